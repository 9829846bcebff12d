"""Trainings that are killed, or asked to end, and go on."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from fakes.fork_server import make_python
from filelock import Timeout
from helpers import digests, set_params, user_error

from stages.common.errors import UserError
from stages.common.kept_work import lock_of, open_run
from stages.common.paths import EPOCHS, FINETUNED, RUNS
from stages.train.__main__ import describe_training, main
from stages.train.checkpoints import CHECKPOINTS as KIND
from stages.train.checkpoints import Writer, describe_run, find_last, loading

CHECKPOINTS, EXPECTED = Path(".dvc/tmp/checkpoints"), Path(".dvc/tmp/expected.json")
LOCK = Path(".dvc/tmp/outputs/models-finetuned")  # its last word is the process that trains
# All that draws random numbers, or keeps a state between epochs.
MASKS = {"mask_time_prob": 0.1, "mask_time_length": 2, "mask_feature_prob": 0.1, "mask_feature_length": 2}
PARAMS = {
    "train.spec_augment": MASKS,
    "train.dropout": 0.2,
    "train.epochs": 4,
    "train.logging_steps": 3,
    "train.early_stopping": 3,
}
# Asks to end when a method is called at a step.
ASK = """
import stages.common.interrupts as interrupts
from stages.train.trainer import ClipTrainer
original = ClipTrainer.{method}
def method(self, *args, **kwargs):
    if self.state.global_step == {step}:
        interrupts._requests.append(15)
    return original(self, *args, **kwargs)
ClipTrainer.{method} = method
from stages.train.__main__ import main
main()
"""


def start(*arguments: str) -> subprocess.Popen[str]:
    """Start Python as a fork that has imported the libraries."""
    python = make_python() / "python"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([python, *arguments], text=True, **pipes)  # type: ignore[call-overload]


def results() -> dict[str, str]:
    return {str(folder): digest for folder in (FINETUNED, EPOCHS, RUNS) for digest in [repr(digests(folder))]}


@pytest.fixture(scope="session")
def trained(finished: Path, make_once: Callable[..., Path]) -> Path:
    """A workspace with PARAMS, with the results of a training in EXPECTED, and with the model of another seed."""

    def make(folder: Path) -> None:
        shutil.copytree(finished, folder, dirs_exist_ok=True)
        set_params(folder, PARAMS)
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            main()
            assert not list(CHECKPOINTS.iterdir())
            found = results()
            EXPECTED.write_text(json.dumps(found))
            set_params(folder, {"train.seed": 1})
            main()
            assert results() != found
        set_params(folder, {"train.seed": 42})

    return make_once("trained", make)


@pytest.fixture
def expected(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The results of a training that was not interrupted. The model must not have them before it goes on."""
    monkeypatch.chdir(shutil.copytree(trained, tmp_path / "copied"))
    return dict(json.loads(EXPECTED.read_text()))


@pytest.mark.slow
def test_killed_training_gives_same_bytes(expected: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    set_params(Path(), {"train.save_every": 0.3})
    choose = random.Random(3)
    for _ in range(3):
        before = find_last(next(CHECKPOINTS.glob("*/"), Path("none")))
        with start("-m", "stages.train") as stage:
            deadline = time.monotonic() + 60
            while stage.poll() is None and time.monotonic() < deadline:
                last = find_last(next(CHECKPOINTS.glob("*/"), Path("none")))
                if last and last != before:
                    time.sleep(choose.uniform(0, 0.1))
                    break
                time.sleep(0.005)
            psutil.Process(int(LOCK.read_text().split()[-1])).kill()
    assert results() != expected
    main()
    assert "goes on after step " in capsys.readouterr().out
    assert results() == expected
    assert not list(CHECKPOINTS.iterdir())


@pytest.mark.slow
def test_checkpoints_are_in_use_until_they_are_removed(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another run with the same key must not go on from them while the model is saved."""
    locked = []

    def describe(*arguments: Any) -> dict[str, Any]:
        [folder] = CHECKPOINTS.glob("*/")
        with pytest.raises(Timeout):
            lock_of(folder).acquire(timeout=0)
        locked.append(folder)
        return describe_training(*arguments)

    monkeypatch.setattr("stages.train.__main__.describe_training", describe)
    set_params(copied, PARAMS)
    main()
    assert locked
    assert not list(CHECKPOINTS.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "step"),
    [
        ("training_step", 7),
        pytest.param("training_step", 19, marks=pytest.mark.rare),
        ("evaluation_loop", 20),
        pytest.param("evaluation_loop", 40, marks=pytest.mark.rare),
    ],
)
def test_asked_training_saves_and_goes_on(method: str, step: int, expected: dict[str, str]) -> None:
    """In an epoch, at its last step, and while an epoch, the last one too, is evaluated."""
    with start("-c", ASK.format(method=method, step=step)) as stage:
        errors = stage.communicate()[1]
    line = errors.splitlines()[-1]
    assert line.startswith("ended by SIGTERM; a checkpoint was saved after ")
    assert line.endswith("of 4 epochs. Run dvc repro to go on from it")
    assert [last.name for last in map(find_last, CHECKPOINTS.glob("*/")) if last] == [
        f"checkpoint-{step + (method == 'training_step')}"
    ]
    assert not list(FINETUNED.parent.glob(".finetuned*"))
    main()
    assert results() == expected


@pytest.mark.slow
@pytest.mark.parametrize(
    ("params", "stops"),
    [
        (
            {"augment": {"mixup": 0.4, "noise": [10, 40]}, "sampler": "balanced", "average_epochs": 2},
            [("training_step", 24), ("_measure_average", 30)],
        ),
        pytest.param(
            {"lora": {"r": 2, "lora_dropout": 0.2}, "layers": "weighted"},
            [("training_step", 24)],
            marks=pytest.mark.rare,
        ),
    ],
    ids=["average", "lora"],
)
def test_recipes_go_on(copied: Path, params: dict[str, Any], stops: list[tuple[str, int]]) -> None:
    """What draws per clip, and what keeps a state: the mean of weights, which may be evaluated when it ends."""
    set_params(copied, {f"train.{key}": value for key, value in params.items()})
    set_params(copied, {"train.head_learning_rate": 0.01, "train.dropout": 0.2, "train.lr_scheduler_type": "cosine"})
    set_params(copied, {"train.save_every": 1000})
    main()
    expected = results()
    for method, step in stops:
        shutil.rmtree(FINETUNED)
        with start("-c", ASK.format(method=method, step=step)) as stage:
            assert "a checkpoint was saved after" in stage.communicate()[1]
        main()
        assert results() == expected


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_signal_saves_a_checkpoint(number: signal.Signals, copied: Path) -> None:
    """With SIGTERM as users run it: a process of its own, which imports the libraries."""
    set_params(copied, {"train.epochs": 500, "train.save_every": 1000})
    python = Path(sys.executable) if number == signal.SIGTERM else make_python() / "python"
    command = [python, "-m", "stages.train"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as stage:
        assert stage.stdout is not None
        stage.stdout.readline()  # of the first epoch
        os.kill(int(LOCK.read_text().split()[-1]), number)
        errors = stage.communicate()[1]
    # A fork of the server that ends by itself sends no status.
    assert stage.returncode == 128 + number or number != signal.SIGTERM
    assert "Traceback" not in errors
    assert re.search(r"; a checkpoint was saved after [\d.]+ of 500 epochs. Run dvc repro", errors.splitlines()[-1])
    assert find_last(next(CHECKPOINTS.glob("*/")))


@pytest.mark.slow
def test_changed_training_starts_afresh(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with start("-c", ASK.format(method="training_step", step=12)) as stage:
        stage.communicate()
    set_params(copied, {"train.learning_rate": 0.5, "train.save_every": 3})
    main()
    output = capsys.readouterr().out
    assert "goes on" not in output
    assert "not used: the checkpoint of a training with another train.learning_rate (0.003, now 0.5)" in output
    set_params(copied, {"train.learning_rate": 0.003})
    main()
    assert "goes on after step 13" in capsys.readouterr().out


@pytest.mark.slow
def test_moved_or_damaged_checkpoint(expected: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The best epoch is older than the checkpoint, and the project has another path when training goes on."""
    with start("-c", ASK.format(method="training_step", step=35)) as stage:
        stage.communicate()
    moved = tmp_path / "moved"
    Path.cwd().rename(moved)
    monkeypatch.chdir(moved)
    optimizer = next(CHECKPOINTS.glob("*/checkpoint-36/optimizer.pt"))
    content = optimizer.read_bytes()
    optimizer.write_bytes(content[: len(content) // 2])
    error = user_error(main)
    assert "the checkpoint is damaged: " in str(error)
    assert "python -m tools.checkpoints --clear" in str(error)
    optimizer.write_bytes(content)
    main()
    assert results() == expected


def test_checkpoint_on_a_full_disk(tmp_path: Path) -> None:
    writer = Writer(tmp_path)
    folder = writer.prepare("checkpoint-1")
    (folder / "optimizer.pt").symlink_to("/dev/full")
    writer.write("checkpoint-1", {"optimizer.pt": {"a": torch.zeros(1_000_000)}}, {})
    error = user_error(writer.wait)
    assert "a checkpoint cannot be written" in str(error)
    assert error.file == str(tmp_path)
    assert not list(tmp_path.iterdir())


def test_without_inputs_no_checkpoint_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All trainings would share it."""
    monkeypatch.chdir(tmp_path)
    assert describe_run(8, 1, "cpu", "fp32") == {}
    with open_run(KIND, {}) as folder, open_run(KIND, {}) as other:
        assert folder.is_dir()
        assert folder != other
    assert not list(CHECKPOINTS.iterdir())


def test_lack_of_memory_is_no_damage(tmp_path: Path) -> None:
    """The batches get smaller; the checkpoint stays."""
    with pytest.raises(torch.OutOfMemoryError), loading(tmp_path):
        raise torch.OutOfMemoryError("CUDA out of memory")
    with pytest.raises(UserError, match="the checkpoint is damaged"), loading(tmp_path):
        raise RuntimeError("invalid header")
