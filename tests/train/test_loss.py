from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import change_config, finetuned_weights, set_params
from torch.nn.functional import cross_entropy, one_hot

from stages.evaluate.metrics import mean_f1
from stages.train.__main__ import main
from stages.train.loss import EPOCH, MeanLoss, balance_classes, compute_metrics
from stages.train.params import Metric

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


def test_class_weights_are_those_of_the_weighted_mean() -> None:
    """Over all training clips, in batches of any size, as torch and scikit-learn compute it; evaluation has none."""
    weights = balance_classes(LABELS.numpy(), 4)
    torch.testing.assert_close(weights, torch.tensor([4 / 3, 4 / 3, 2 / 3, 1.0]))
    logits = torch.cat([LOGITS, torch.zeros(4, 1)], dim=1)
    gradients = []
    for rows in ([slice(0, 4)], [slice(0, 1), slice(1, 4)]):
        loss, leaf = MeanLoss(0.1, weights), logits.clone().requires_grad_()
        total = sum(loss(SimpleNamespace(logits=leaf[part]), LABELS[part], torch.tensor(4)) for part in rows)
        torch.testing.assert_close(total, cross_entropy(logits, LABELS, weights, label_smoothing=0.1))
        total.backward()  # type: ignore[union-attr]
        gradients.append(leaf.grad)
    torch.testing.assert_close(*gradients)
    evaluated = MeanLoss(0.1, weights)(outputs(LOGITS[:, :3], training=False), LABELS)
    torch.testing.assert_close(evaluated, cross_entropy(LOGITS, LABELS))


def test_mixed_labels() -> None:
    """The loss is the mean of both labels' losses by their shares; an ignored clip has no loss and no gradient."""
    others, share = torch.tensor([1, 2, 0, 0]), torch.tensor([0.3, 1.0, 0.8, 0.5])
    mixed = share[:, None] * one_hot(LABELS, 3) + (1 - share)[:, None] * one_hot(others, 3)
    each = [cross_entropy(LOGITS, labels, reduction="none", label_smoothing=0.1) for labels in (LABELS, others)]
    expected = (share * each[0] + (1 - share) * each[1])[:3].sum() / 3
    mixed[3] = -100
    loss, leaf = MeanLoss(0.1), LOGITS.clone().requires_grad_()
    found = loss(SimpleNamespace(logits=leaf), mixed, torch.tensor(3 * 3))
    torch.testing.assert_close(found, expected)
    found.backward()
    assert leaf.grad is not None
    assert leaf.grad[3].tolist() == [0, 0, 0]
    assert leaf.grad[:3].abs().min() > 0
    assert loss.pop_mean(EPOCH) == pytest.approx(float(expected))


@pytest.mark.parametrize("metric", ["macro_f1", "balanced_accuracy"])
def test_metric_that_selects(metric: Metric) -> None:
    """A model that knows the rare labels wins over one that always predicts the frequent one."""
    labels = np.array([0] * 8 + [1] * 2)
    frequent, balanced = np.zeros((10, 3)), np.zeros((10, 3))
    frequent[:, 0] = 2.0
    balanced[range(10), [0] * 5 + [2] * 3 + [1] * 2] = 0.1
    found = [
        compute_metrics(SimpleNamespace(predictions=logits, label_ids=labels), None, metric)
        for logits in (frequent, balanced)
    ]
    assert found[0]["accuracy"] > found[1]["accuracy"]
    assert found[0]["rank"] < found[1]["rank"]
    predicted = balanced.argmax(1)
    expected = mean_f1(labels, predicted) if metric == "macro_f1" else (5 / 8 + 1) / 2
    assert found[1][metric] == pytest.approx(expected)
    assert found[1]["rank"] - found[1][metric] == pytest.approx(0, abs=1e-8)


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
