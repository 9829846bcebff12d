import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from helpers import epoch_losses, finetuned_weights, git, set_params, simulate_t4, user_error, write_clips
from transformers import AutoModelForAudioClassification

from stages.common.encoded_clips import open_encoded_clips, select_split
from stages.common.paths import ENCODED, EPOCHS, FINETUNED, METRICS, SPLITS, TRAINING
from stages.common.tables import read_epochs, read_json, read_table
from stages.common.windows import ClipDataset
from stages.download.__main__ import download_dataset, download_model
from stages.evaluate.__main__ import main as evaluate
from stages.resample_encode.__main__ import main as resample_encode
from stages.split.__main__ import main as split
from stages.train.__main__ import main
from stages.train.params import TrainParams
from stages.train.training import choose_precision, selection_split, training_arguments


@pytest.mark.slow
def test_evaluation_batches_change_no_loss(copied: Path) -> None:
    """Clips of many lengths have the same loss in batches of any size."""
    clips = write_clips(copied / "clips", number=6, seconds=0.5)
    write_clips(clips, labels=("c",), number=6, seconds=0.9)
    for n, file in enumerate(sorted(clips.rglob("*.wav"))):
        samples, sampling_rate = soundfile.read(file)
        soundfile.write(file, samples[: len(samples) - 700 * n], sampling_rate)
    set_params(copied, {"download.dataset": {"source": "folder", "path": "clips", "max_rejected": 0}})
    set_params(copied, {"download.model.config.feat_extract_norm": "group", "train.window_seconds": None})
    set_params(copied, {"train.epochs": 1})
    download_dataset()
    download_model()
    split()
    resample_encode()
    losses = []
    for size in (1, 4):
        set_params(copied, {"train.eval_batch_size": size})
        main()
        losses.append(read_epochs(EPOCHS)["eval_loss"].iloc[0])
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


@pytest.mark.slow
def test_best_epoch_is_saved(copied: Path) -> None:
    set_params(copied, {"train.epochs": 6, "train.learning_rate": 0.01})
    set_params(copied, {"train.eval_batch_size": 10, "train.batch_size": 8})  # the last batch of 20 clips has 4
    main()
    model = AutoModelForAudioClassification.from_pretrained(FINETUNED).eval()
    encoded = open_encoded_clips(ENCODED)
    clips = ClipDataset(select_split(encoded, read_table(SPLITS), "validation"))
    with torch.no_grad():
        logits = torch.cat([model(torch.tensor(array)[None]).logits for array, _ in clips])
    labels = torch.tensor([label for _, label in clips])
    epochs = read_epochs(EPOCHS)
    best = epochs.sort_values(["eval_accuracy", "eval_loss"], ascending=[False, True]).iloc[0]  # of equals, lowest loss
    assert float((logits.argmax(dim=1) == labels).float().mean()) == pytest.approx(best["eval_accuracy"], abs=1e-6)
    assert float(torch.nn.functional.cross_entropy(logits, labels)) == pytest.approx(best["eval_loss"], abs=1e-4)


@pytest.mark.slow
def test_early_stopping(copied: Path) -> None:
    set_params(copied, {"train.epochs": 30, "train.early_stopping": 1, "train.learning_rate": 1e-30})
    main()
    assert len(read_epochs(EPOCHS)) == 2


@pytest.mark.slow
def test_git_without_commit_refused(copied: Path) -> None:
    shutil.rmtree(".git")
    git(copied, "init", "-q")
    assert "git commit" in str(user_error(main))


@pytest.mark.slow
def test_masks_longer_than_window_refused(copied: Path) -> None:
    masks = {"mask_time_prob": 0.5, "mask_time_length": 500, "mask_feature_prob": 0.0, "mask_feature_length": 2}
    set_params(copied, {"train.spec_augment": masks})
    error = user_error(main)
    assert error.key == "train.spec_augment.mask_time_length"
    assert "500 frames, but a window has 12" in str(error)
    assert not Path("models/.finetuned.partial").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_fp16_without_gpu_refused() -> None:
    assert user_error(lambda: choose_precision("fp16")).key == "train.precision"


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_auto_without_gpu() -> None:
    assert choose_precision("auto") in ("fp32", "bf16")


def test_auto_on_t4_is_fp16(monkeypatch: pytest.MonkeyPatch) -> None:
    simulate_t4(monkeypatch)
    assert choose_precision("auto") == "fp16"


@pytest.mark.slow
def test_bf16_trains_on_cpu(copied: Path) -> None:
    main()
    expected = epoch_losses()
    set_params(copied, {"train.precision": "bf16"})
    main()
    np.testing.assert_allclose(epoch_losses(), expected, atol=0.05)
    assert finetuned_weights()["classifier.weight"].dtype == torch.float32


@pytest.mark.slow
@pytest.mark.parametrize("accumulation", [pytest.param(1, marks=pytest.mark.rare), 2])
def test_training_and_evaluate_measure_the_same(copied: Path, accumulation: int) -> None:
    """In bf16, and on the same clips: there is no validation split."""
    set_params(copied, {"split.validation_size": 0.0, "train.precision": "bf16", "train.learning_rate": 0.01})
    set_params(copied, {"train.gradient_accumulation_steps": accumulation, "evaluate.batch_size": 3})
    for stage in (split, main, evaluate):
        stage()
    metrics = read_json(METRICS)
    assert metrics["selection_accuracy"] == metrics["accuracy"]
    losses = read_epochs(EPOCHS)["eval_loss"]
    assert losses[read_json(TRAINING)["best_epoch"]] == pytest.approx(metrics["log_loss"], abs=2e-6)


@pytest.mark.parametrize(
    ("splits", "expected"), [(["train", "test"], "test"), (["train", "validation", "test"], "validation")]
)
def test_selection_split(splits: list[str], expected: str) -> None:
    assert selection_split(pd.DataFrame({"split": splits})) == expected


@pytest.mark.parametrize(("micro_batch", "accumulation", "evaluation"), [(8, 3, 12), (2, 12, 3), (1, 24, 1)])
def test_micro_batches_keep_effective_batch(
    tmp_path: Path, micro_batch: int, accumulation: int, evaluation: int
) -> None:
    params = TrainParams(batch_size=8, gradient_accumulation_steps=3, eval_batch_size=12, precision="fp32")
    arguments = training_arguments(params, micro_batch, tmp_path)
    assert arguments.per_device_train_batch_size == micro_batch
    assert arguments.gradient_accumulation_steps == accumulation
    assert arguments.per_device_eval_batch_size == evaluation
