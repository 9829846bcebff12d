from pathlib import Path

import pytest
from helpers import set_params
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from stages.common.paths import EPOCHS, RUNS
from stages.common.tables import read_epochs
from stages.train.__main__ import main

pytestmark = pytest.mark.slow


def test_one_row_per_epoch(finished: Path) -> None:
    epochs = read_epochs(finished / EPOCHS)
    assert set(epochs) == {"train_loss", "eval_loss", "eval_accuracy"}
    assert epochs.index.tolist() == [1, 2, 3]
    assert epochs.notna().all(axis=None)


def test_tensorboard_has_every_logged_step(copied: Path) -> None:
    set_params(copied, {"train.epochs": 3, "train.logging_steps": 2})
    main()
    events = list(EventFileLoader(str(RUNS / "events.out.tfevents.0")).Load())
    tags = [value.tag for event in events for value in event.summary.value]
    assert tags.count("eval/accuracy") == 3
    assert tags.count("train/loss") == 3 * 10 // 2


def test_loss_of_short_epoch(copied: Path) -> None:
    """An epoch of fewer steps than logging_steps has a loss."""
    set_params(copied, {"train.epochs": 2, "train.batch_size": 20, "train.logging_steps": 50})
    main()
    losses = read_epochs(EPOCHS)["train_loss"]
    assert len(losses) == 2
    assert losses.between(1.0, 4.0).all()
