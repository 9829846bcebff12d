import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from fakes.fork_server import make_python
from helpers import ROOT

from stages.common.errors import UserError
from stages.common.stage import run_command

STAGES = ["check", "download", "split", "resample_encode", "train", "evaluate", "evaluate.baselines", "publish"]
TOOLS = ["compare", "crossval", "presets", "push", "reproduce", "verify"]
WITH_DVC = ["tools.push", "tools.reproduce", "tools.verify"]
COMMANDS = [*(f"stages.{name}" for name in STAGES), *(f"tools.{name}" for name in TOOLS)]


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_interrupt_ends_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> None:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as stop:
        run_command(main)
    assert stop.value.code == 130
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("interrupted")


def test_error_ends_in_one_line() -> None:
    def main() -> None:
        raise UserError("must be 1", key="train.epochs")

    with pytest.raises(SystemExit) as stop:
        run_command(main)
    assert str(stop.value.code) == "error: params.yaml: train.epochs: must be 1"


def test_other_errors_are_raised() -> None:
    def main() -> None:
        raise OSError(errno.EPIPE, "no reader")

    with pytest.raises(OSError, match="no reader"):
        run_command(main)


@pytest.mark.slow
@pytest.mark.parametrize("stderr", [subprocess.PIPE, subprocess.STDOUT])
def test_output_without_reader_ends_quietly(stderr: int) -> None:
    """As in `python -m tools.classify ... | head`, without and with `2>&1`."""
    stream = "stdout" if stderr == subprocess.PIPE else "stderr"
    code = f"""import sys
from stages.common.stage import run_command
run_command(lambda: [print("line", file=sys.{stream}) for _ in range(100_000)])"""
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=stderr, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "line\n"
        process.stdout.close()
        assert process.stderr is None or process.stderr.read() == ""
        assert process.wait() == 141


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "utf-8"])
def test_names_in_any_encoding(encoding: str) -> None:
    code = "from stages.common.stage import run_command; run_command(lambda: print('日本 café'))"
    env = os.environ | {"PYTHONIOENCODING": encoding, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, check=True)
    assert done.stdout.strip() == "日本 café".encode(encoding, "backslashreplace")


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_help(command: str, tmp_path: Path) -> None:
    kind = "dvc" if command in WITH_DVC else "stages"
    python, env = [make_python(kind) / "python", "-m", command], os.environ | {"PYTHONPATH": str(ROOT)}
    shown = subprocess.run([*python, "--help"], env=env, capture_output=True, text=True)
    assert shown.returncode == 0
    assert shown.stdout.startswith(f"usage: python -m {command}")
    assert "Run     python -m" in shown.stdout
    if command.startswith("stages"):
        for part in ("Reads   ", "Writes  "):
            assert part in shown.stdout
        assert ("keys of " in shown.stdout) == (command not in ("stages.check", "stages.evaluate.baselines"))
    refused = subprocess.run([*python, "a", "b", "c", "--frobnicate"], env=env, capture_output=True, text=True)
    assert refused.returncode == 2
    assert "Traceback" not in refused.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_objects_of_libraries_are_searched_rarely(workspace: Path) -> None:
    """A million objects stay, as those of imported libraries do. The printing function runs when Python ends."""
    code = """import atexit, gc
from stages.check import __main__ as check
from stages.common.stage import run_stage
searched, objects = set(), []
gc.callbacks.append(lambda phase, info: searched.add(info["generation"]))
atexit.register(lambda: print(2 in searched, gc.get_freeze_count() > 0))
def main():
    objects.extend([] for _ in range(1_000_000))
main.__module__ = check.__name__
run_stage(main)"""
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True)
    assert done.stdout == "False True\n"
