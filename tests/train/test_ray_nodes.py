"""Training on two simulated machines of a Ray cluster."""

from pathlib import Path

import numpy as np
import pytest
from helpers import set_params, user_error
from train.test_ranks import logged

from stages.train.__main__ import main
from stages.train.ranks import choose_launcher

# Ray Train uses Ray Data, which warns of its own settings.
pytestmark = [pytest.mark.slow, pytest.mark.rare, pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")]


def test_two_machines_train_as_one(
    copied: Path, ray_cluster: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Batches of three clips, and a last one of two: the shares differ."""
    monkeypatch.setenv("RAY_ADDRESS", ray_cluster)
    monkeypatch.setenv("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
    set_params(copied, {"train.batch_size": 3, "train.gradient_accumulation_steps": 2, "train.logging_steps": 1})
    set_params(copied, {"train.dropout": 0.0, "train.attention_dropout": 0.0, "train.epochs": 2, "train.processes": 1})
    main()
    one = logged()
    set_params(copied, {"train.processes": 2})
    capsys.readouterr()
    main()
    printed = capsys.readouterr()
    assert "epoch 2/2  train loss" in printed.out
    assert "8/8" in printed.err  # the bar
    assert "ray" not in (printed.out + printed.err).lower()
    two = logged()
    assert len(one["train/loss"]) == 2 * 4
    assert {tag: len(values) for tag, values in one.items()} == {tag: len(values) for tag, values in two.items()}
    for tag in ("train/loss", "train/learning_rate", "train/grad_norm", "eval/loss", "eval/accuracy"):
        np.testing.assert_allclose(two[tag], one[tag], rtol=1e-3, err_msg=tag)
    assert not list(Path(".dvc/tmp").glob("ray-*"))


def test_processes_of_a_cluster_without_gpus(ray_cluster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", ray_cluster)
    assert choose_launcher("auto", 1)[1:] == (1, "cpu")
    assert choose_launcher(2, 1)[1:] == (2, "cpu")
    error = user_error(lambda: choose_launcher(2, 2))
    assert "CPUs for 0 processes of 2 threads" in str(error)
    assert error.key == "train.processes"
