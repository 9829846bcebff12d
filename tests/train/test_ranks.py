"""Training in several processes."""

import signal
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import numpy as np
import psutil
import pytest
import torch
from fakes.failing_rank import fail
from helpers import set_params, user_error
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from stages.common.paths import RUNS
from stages.train.__main__ import main
from stages.train.checkpoints import CHECKPOINTS, find_last
from stages.train.ranks import count_processes, raise_reported, report_errors, run

pytestmark = pytest.mark.slow


def logged() -> dict[str, list[float]]:
    """Return the TensorBoard logs: numbers by tag."""
    found: dict[str, list[float]] = {}
    for event in EventFileLoader(str(RUNS / "events.out.tfevents.0")).Load():
        for value in event.summary.value:
            found.setdefault(value.tag, []).append(value.tensor.float_val[0])
    return found


def test_two_processes_train_as_one(copied: Path) -> None:
    """Batches of three clips, and a last one of two: the shares differ. All that draws per clip is on."""
    set_params(copied, {"train.augment": {"mixup": 0.4, "noise": [10, 40]}, "train.sampler": "balanced"})
    set_params(copied, {"train.head_learning_rate": 0.001, "train.average_epochs": 2})
    set_params(copied, {"train.batch_size": 3, "train.gradient_accumulation_steps": 2, "train.logging_steps": 1})
    set_params(copied, {"train.dropout": 0.0, "train.attention_dropout": 0.0, "train.epochs": 2, "train.processes": 1})
    main()
    one = logged()
    set_params(copied, {"train.processes": 2})
    main()
    two = logged()
    assert len(one["train/loss"]) == 2 * 4
    assert {tag: len(values) for tag, values in one.items()} == {tag: len(values) for tag, values in two.items()}
    for tag in ("train/loss", "train/learning_rate", "train/grad_norm", "eval/loss", "eval/accuracy"):
        np.testing.assert_allclose(two[tag], one[tag], rtol=1e-3, err_msg=tag)


def test_error_of_a_process_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(torch.OutOfMemoryError):
        report_errors(fail, ("memory",), tmp_path)
    with pytest.raises(torch.OutOfMemoryError):
        raise_reported(tmp_path)
    user_error(lambda: report_errors(fail, ("refused",), tmp_path))
    assert user_error(lambda: raise_reported(tmp_path)).key == "train.spec_augment"


@pytest.mark.rare
@pytest.mark.parametrize("how", ["killed", "memory", "refused"])
def test_failed_process_ends_all(how: str) -> None:
    if how == "memory":
        with pytest.raises(torch.OutOfMemoryError):
            run(fail, (how,), 2)
        return
    error = user_error(lambda: run(fail, (how,), 2))
    assert error.key == (None if how == "killed" else "train.spec_augment")
    if how == "killed":
        assert str(error).startswith("process 1 ended with SIGKILL; run dvc repro")


def test_killed_process_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """As torch reports it; test_failed_process_ends_all kills a real one."""
    failure = ProcessFailure(local_rank=1, pid=1, exitcode=-signal.SIGKILL, error_file="none")

    def launch(*args: object) -> NoReturn:
        raise ChildFailedError("train", {1: failure})

    monkeypatch.setattr("stages.train.ranks.elastic_launch", launch)
    assert str(user_error(lambda: run(fail, (), 2))).startswith("process 1 ended with SIGKILL; run dvc repro")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_processes_without_gpu() -> None:
    assert count_processes("auto") == 1
    assert count_processes(3) == 3


def test_more_processes_than_gpus_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stages.train.ranks.count_gpus", lambda: 2)
    assert count_processes("auto") == 2
    assert user_error(lambda: count_processes(3)).key == "train.processes"


@pytest.mark.rare
def test_signal_saves_a_checkpoint_of_all(copied: Path) -> None:
    """It comes from a cluster, so it goes to the process that DVC started."""
    set_params(copied, {"train.epochs": 1000, "train.save_every": 1000, "train.processes": 2})
    command = [sys.executable, "-m", "stages.train"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as stage:
        assert stage.stdout is not None
        stage.stdout.readline()  # of the first epoch
        children = psutil.Process(stage.pid).children(recursive=True)
        stage.send_signal(signal.SIGTERM)
        errors = stage.communicate()[1]
    assert stage.returncode == 128 + signal.SIGTERM
    assert "Traceback" not in errors
    assert errors.splitlines()[-1] == "ended by SIGTERM; run dvc repro to go on from the last checkpoint"
    last = find_last(next(CHECKPOINTS.top().glob("*/")))
    assert last is not None
    assert {"rng_state_0.pth", "rng_state_1.pth", "optimizer.pt"} <= {file.name for file in last.iterdir()}
    assert not psutil.wait_procs(children, timeout=30)[1]
