import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import ROOT

from stages.common.errors import UserError
from stages.common.stage import atomic_output, require_files, run_command

STAGES = ["download", "split", "resample_encode", "train", "evaluate", "evaluate.baselines", "publish"]
TOOLS = ["compare", "crossval", "presets", "push", "verify"]
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


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (UserError("must be 1", key="train.epochs"), "error: params.yaml: train.epochs: must be 1"),
        (OSError(errno.ENOSPC, "No space left", "data/raw/x"), "error: data/raw/x: the disk is full"),
        (OSError(errno.EDQUOT, "Quota exceeded"), "the disk is full"),
    ],
    ids=["user", "disk", "quota"],
)
def test_error_ends_in_one_line(error: Exception, expected: str) -> None:
    def main() -> None:
        raise error

    with pytest.raises(SystemExit) as stop:
        run_command(main)
    assert expected in str(stop.value.code)
    assert "\n" not in str(stop.value.code)


def test_other_errors_are_raised() -> None:
    def main() -> None:
        raise OSError(errno.EIO, "broken disk")

    with pytest.raises(OSError, match="broken disk"):
        run_command(main)


def test_missing_output_of_an_earlier_stage() -> None:
    with pytest.raises(UserError) as found:
        require_files(Path(), Path("data/splits.csv"))
    assert found.value.file == "data/splits.csv"


def test_private_file_becomes_readable() -> None:
    with atomic_output(Path("thing")) as path:
        path.mkdir()
        (path / "file").touch(mode=0o600)
    assert Path("thing/file").stat().st_mode & 0o444 == 0o444


def write(path: Path, text: str, folder: bool) -> None:
    if folder:
        path.mkdir()
        path = path / "file"
    path.write_text(text)


@pytest.mark.parametrize("folder", [False, True])
@pytest.mark.parametrize("error", [UserError("invalid"), KeyboardInterrupt(), SystemExit(1)], ids=repr)
def test_failed_output_changes_nothing(folder: bool, error: BaseException) -> None:
    target = Path("out/thing")
    with atomic_output(target) as path:
        write(path, "first", folder)
    before = {file: file.stat().st_ino for file in Path("out").rglob("*")}

    def fail() -> None:
        with atomic_output(target) as path:
            write(path, "second, incompl", folder)
            raise error

    with pytest.raises(type(error)):
        fail()
    assert {file: file.stat().st_ino for file in Path("out").rglob("*")} == before
    assert (target / "file" if folder else target).read_text() == "first"


@pytest.mark.parametrize("folder", [False, True])
def test_output_appears_at_once(folder: bool) -> None:
    """Check that the output is renamed, not copied: a copy could be read while it is incomplete."""
    target = Path("out/thing")
    for text in ("first", "second"):
        with atomic_output(target) as path:
            write(path, text, folder)
            assert target.exists() == (text == "second")
            inode = path.stat().st_ino
        assert target.stat().st_ino == inode
        assert (target / "file" if folder else target).read_text() == text
    assert [file.name for file in Path("out").iterdir()] == ["thing"]


def test_leftover_is_removed() -> None:
    write(Path("thing.partial"), "of a killed stage", folder=True)
    with atomic_output(Path("thing")) as path:
        assert not path.exists()
        path.write_text("new")
    assert [file.name for file in Path().iterdir()] == ["thing"]


@pytest.mark.parametrize("command", COMMANDS)
def test_help(command: str, tmp_path: Path) -> None:
    python, env = [sys.executable, "-m", command], os.environ | {"PYTHONPATH": str(ROOT)}
    shown = subprocess.run([*python, "--help"], env=env, capture_output=True, text=True)
    assert shown.returncode == 0
    assert shown.stdout.startswith(f"usage: python -m {command}")
    assert "Run     python -m" in shown.stdout
    if command.startswith("stages"):
        for part in ("Reads   ", "Writes  "):
            assert part in shown.stdout
        assert ("keys of " in shown.stdout) == (command != "stages.evaluate.baselines")
    refused = subprocess.run([*python, "a", "b", "c", "--frobnicate"], env=env, capture_output=True, text=True)
    assert refused.returncode == 2
    assert "Traceback" not in refused.stderr
    assert list(tmp_path.iterdir()) == []
