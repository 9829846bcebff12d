from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import change_config, finetuned_weights, set_params
from torch.nn.functional import cross_entropy

from stages.train.__main__ import main
from stages.train.loss import EPOCH, MeanLoss, compute_metrics

LOGITS = torch.tensor([[2.0, 0.0, 1.0], [0.0, 3.0, 0.5], [1.0, 1.0, 1.0], [0.0, 0.0, 4.0]])
LABELS = torch.tensor([0, 2, 1, 2])


def outputs(logits: torch.Tensor, training: bool = True) -> SimpleNamespace:
    return SimpleNamespace(logits=logits.clone().requires_grad_(training))


def test_mean_over_uneven_batches() -> None:
    loss = MeanLoss(label_smoothing=0.0)
    loss(outputs(LOGITS[:3]), LABELS[:3])
    loss(outputs(LOGITS[3:]), LABELS[3:])
    loss(outputs(LOGITS, training=False), LABELS.flip(0))  # evaluation does not count
    assert loss.pop_mean(EPOCH) == pytest.approx(float(cross_entropy(LOGITS, LABELS)))
    loss(outputs(LOGITS[:1]), LABELS[:1])
    assert loss.pop_mean(EPOCH) == pytest.approx(float(cross_entropy(LOGITS[:1], LABELS[:1])))


def test_micro_batches_sum_to_mean() -> None:
    loss = MeanLoss(label_smoothing=0.0)
    parts = [loss(outputs(LOGITS[rows]), LABELS[rows], torch.tensor(4)) for rows in (slice(0, 2), slice(2, 4))]
    torch.testing.assert_close(sum(parts), cross_entropy(LOGITS, LABELS))


@pytest.mark.parametrize(("training", "smoothing"), [(True, 0.3), (False, 0.0)])
def test_label_smoothing_only_in_training(training: bool, smoothing: float) -> None:
    loss = MeanLoss(label_smoothing=0.3)(outputs(LOGITS, training), LABELS)
    torch.testing.assert_close(loss, cross_entropy(LOGITS, LABELS, label_smoothing=smoothing))


@pytest.mark.parametrize("predictions", [LOGITS.numpy(), (LOGITS.numpy(), np.zeros(4))], ids=["array", "tuple"])
def test_metrics_of_all_clips(predictions: object) -> None:
    metrics = compute_metrics(SimpleNamespace(predictions=predictions, label_ids=LABELS.numpy()))
    assert metrics["accuracy"] == 0.5
    assert metrics["cross_entropy"] == pytest.approx(float(cross_entropy(LOGITS, LABELS)), abs=1e-6)


def test_rank_is_accuracy_then_loss() -> None:
    """More correct clips win whatever the loss; of equal accuracy, the lower loss; a diverged training loses."""

    def rank(scale: float, correct: int) -> float:
        logits = np.zeros((4, 2))
        logits[range(4), [0] * correct + [1] * (4 - correct)] = scale
        with np.errstate(all="ignore"):
            return compute_metrics(SimpleNamespace(predictions=logits, label_ids=np.zeros(4, int)))["rank"]

    assert rank(9, 2) < rank(1, 2) < rank(1000, 3) < rank(9, 3) < rank(1, 4) < rank(9, 4)
    assert rank(np.nan, 2) == 0.5


@pytest.mark.slow
def test_accumulation_equals_larger_batch(copied: Path) -> None:
    set_params(copied, {"train.window_seconds": None, "train.dropout": 0.0})
    set_params(copied, {"train.epochs": 2, "train.learning_rate": 1e-3})
    change_config(attention_dropout=0.0, activation_dropout=0.0)
    results = []
    for size, accumulation in ((4, 1), (2, 2)):
        set_params(copied, {"train.batch_size": size, "train.gradient_accumulation_steps": accumulation})
        main()
        results.append(finetuned_weights())
    for name, tensor in results[0].items():
        torch.testing.assert_close(results[1][name], tensor, atol=2e-5, rtol=1e-3, msg=name)
