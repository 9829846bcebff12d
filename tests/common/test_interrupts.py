"""Stages that are ended by signals, as a terminal, a cluster or a closed window sends them."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from helpers import set_params

PARTIAL = Path("data/.raw.partial")
SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


def start(**options: object) -> subprocess.Popen[str]:
    """Start the stage that composes clips, in a process group of its own."""
    set_params(Path(), {"download.dataset.clips_per_label": 200})
    command = [sys.executable, "-m", "stages.download", "dataset"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, text=True, start_new_session=True, **pipes, **options)  # type: ignore[call-overload]


def wait_for(condition: Callable[[], object]) -> None:
    for _ in range(1200):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("nothing happened within 60 s")


def is_composing(stage: subprocess.Popen[str]) -> bool:
    return PARTIAL.exists() and len(psutil.Process(stage.pid).children()) > 0 and len(list(PARTIAL.rglob("*.wav"))) > 4


@pytest.mark.slow
@pytest.mark.parametrize(
    "number",
    [*SIGNALS[:2], pytest.param(SIGNALS[2], marks=pytest.mark.rare)],
    ids=lambda number: number.name,
)
def test_signal_ends_all_processes_with_one_line(number: signal.Signals, workspace: Path) -> None:
    with start() as stage:
        wait_for(lambda: is_composing(stage))
        children = psutil.Process(stage.pid).children(recursive=True)
        # A terminal sends SIGINT and SIGHUP to all processes of the group.
        stage.send_signal(number) if number == signal.SIGTERM else os.killpg(stage.pid, number)
        errors = stage.communicate()[1]
    assert stage.returncode == 128 + number
    assert "Traceback" not in errors
    last = errors.splitlines()[-1]
    assert last.startswith("interrupted; " if number == signal.SIGINT else f"ended by {number.name}; ")
    assert "no partial output was left" in last
    wait_for(lambda: not any(child.is_running() for child in children))
    assert not PARTIAL.exists()
    assert not Path("data/raw").exists()


@pytest.mark.slow
@pytest.mark.parametrize("milliseconds", [150, 300, 600])
def test_signal_during_imports(milliseconds: int, workspace: Path) -> None:
    """The stage imports torch for seconds."""
    Path("models/base").mkdir(parents=True)
    command = [sys.executable, "-X", "importtime", "-m", "stages.train"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as stage:
        assert stage.stderr is not None
        lines = []
        for line in stage.stderr:
            lines.append(line)
            if "stages.common.interrupts" in line:
                time.sleep(milliseconds / 1000)
                stage.send_signal(signal.SIGINT)
                break
        lines += stage.stderr.readlines()
    assert stage.returncode == 130, lines[-10:]
    assert [line for line in lines if line.strip() and not line.startswith("import time:")][-1].startswith(
        "interrupted; "
    )


@pytest.mark.slow
def test_workers_end_with_a_killed_stage(workspace: Path) -> None:
    with start() as stage:
        wait_for(lambda: is_composing(stage))
        children = psutil.Process(stage.pid).children(recursive=True)
        assert len(children) >= 1
        stage.kill()
        stage.communicate()
        wait_for(lambda: not any(child.is_running() for child in children))
    assert PARTIAL.exists()
    subprocess.run([sys.executable, "-m", "stages.split"], capture_output=True)
    assert not PARTIAL.exists()


@pytest.mark.slow
def test_stage_ends_with_dvc(workspace: Path) -> None:
    """Nobody would record its outputs."""
    code = (
        "import subprocess, sys, time; "
        "print(subprocess.Popen([sys.executable, '-m', 'stages.download', 'dataset']).pid, flush=True); time.sleep(60)"
    )
    set_params(Path(), {"download.dataset.clips_per_label": 2000})
    env = os.environ | {"DVC_STAGE": "download@dataset"}
    with subprocess.Popen([sys.executable, "-c", code], env=env, stdout=subprocess.PIPE, text=True) as runner:
        assert runner.stdout is not None
        stage = psutil.Process(int(runner.stdout.readline()))
        wait_for(PARTIAL.exists)
        runner.kill()
        wait_for(lambda: not stage.is_running() or stage.status() == psutil.STATUS_ZOMBIE)
    assert not PARTIAL.exists()


@pytest.mark.slow
def test_ignored_signals_stay_ignored(workspace: Path) -> None:
    """For example SIGHUP after nohup."""
    set_params(Path(), {"download.dataset.clips_per_label": 4})
    command = ["nohup", sys.executable, "-m", "stages.download", "dataset"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as stage:
        wait_for(PARTIAL.exists)
        stage.send_signal(signal.SIGHUP)
        stage.communicate()
    assert stage.returncode == 0
    assert Path("data/raw/clips.csv").exists()


@pytest.mark.slow
def test_cluster_ends_dvc_and_a_training_step(workspace: Path) -> None:
    """Both get SIGTERM; the step takes seconds, and DVC ends at once."""
    code = """
import stages.common.interrupts as interrupts, time
with interrupts.defer_signals():
    print("step", flush=True)
    while not interrupts.find_request():
        time.sleep(0.1)
    time.sleep(2)
    print("saved", flush=True)
"""
    Path("stages/step").mkdir()
    Path("stages/step/__main__.py").write_text(code)
    command = "import subprocess, sys; subprocess.run([sys.executable, '-m', 'stages.step'])"
    env = os.environ | {"DVC_STAGE": "train"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(
        [sys.executable, "-c", command], env=env, text=True, start_new_session=True, **pipes
    ) as runner:  # type: ignore[call-overload]
        assert runner.stdout.readline() == "step\n"
        os.killpg(runner.pid, signal.SIGTERM)
        assert runner.stdout.readline() == "saved\n"
