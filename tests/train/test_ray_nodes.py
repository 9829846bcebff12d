"""Training on two simulated machines of a Ray cluster."""

import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from helpers import error_of, set_params, user_error
from train.test_ranks import logged

from stages.train.__main__ import main
from stages.train.checkpoints import checkpoints_folder, find_last
from stages.train.ranks import choose_launcher

# Ray Train uses Ray Data, which warns of its own settings.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")]


def kill_a_worker(killed: list[int]) -> None:
    """Kill the process of a worker of this one's cluster as soon as there is a checkpoint."""
    while not any(map(find_last, checkpoints_folder().glob("*/"))):
        time.sleep(0.01)
    for process in psutil.Process().children(recursive=True):
        if process.name().startswith("ray::RayTrainWorker"):
            process.kill()
            killed.append(process.pid)
            return


def test_two_machines_train_as_one(
    copied: Path, ray_cluster: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """They go on after one of them was lost. Batches of three clips, and a last one of two: the shares differ."""
    monkeypatch.setenv("RAY_ADDRESS", ray_cluster)
    monkeypatch.setenv("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
    set_params(copied, {"train.batch_size": 3, "train.gradient_accumulation_steps": 2, "train.logging_steps": 1})
    set_params(copied, {"train.dropout": 0.0, "train.attention_dropout": 0.0, "train.epochs": 4})
    set_params(copied, {"train.save_every": 0.25, "train.processes": 1})
    main()
    one = logged()
    set_params(copied, {"train.processes": 2})
    killed: list[int] = []
    killer = threading.Thread(target=kill_a_worker, args=[killed], daemon=True)
    killer.start()
    error = error_of(main)
    assert killed
    assert error.startswith("error: a process on the Ray cluster ended: ")
    assert error.endswith("run dvc repro to go on from the last checkpoint")
    capsys.readouterr()
    main()
    printed = capsys.readouterr()
    assert "goes on after step" in printed.out
    assert "epoch 4/4  train loss" in printed.out
    assert "16/16" in printed.err  # the bar
    assert "ray" not in (printed.out + printed.err).lower()
    two = logged()
    assert len(one["train/loss"]) == 4 * 4
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
