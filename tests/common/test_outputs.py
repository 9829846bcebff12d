"""Outputs that are complete or as they were, however the process ends."""

import errno
import multiprocessing
import os
import re
import shutil
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest
import yaml
from fakes.small_disk import small_disk
from helpers import user_error

from stages.common.errors import UserError
from stages.common.outputs import atomic_outputs, clean_up, require_files


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("dvc.yaml").write_text(yaml.safe_dump({"stages": {"fit": {"cmd": "fit", "outs": [*map(str, TARGETS)]}}}))


TARGETS = [Path("out/model"), Path("out/metrics.json"), Path("out/runs")]
NAMES = {"out/model/file", "out/metrics.json", "out/runs/file"}


def write_all(text: str) -> None:
    """Write a folder, a file and a folder."""
    with atomic_outputs(*TARGETS) as [model, metrics, runs]:
        write(model, text, folder=True)
        write(metrics, text, folder=False)
        write(runs, text, folder=True)


def contents() -> dict[str, str]:
    return {str(file): file.read_text() for file in sorted(Path("out").rglob("*")) if file.is_file()}


def test_missing_output_of_an_earlier_stage() -> None:
    with pytest.raises(UserError) as found:
        require_files(Path(), Path("data/splits.csv"))
    assert found.value.file == "data/splits.csv"


def test_private_file_becomes_readable() -> None:
    with atomic_outputs(Path("thing")) as [path]:
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
    with atomic_outputs(target) as [path]:
        write(path, "first", folder)
    before = {file: file.stat().st_ino for file in Path("out").rglob("*")}

    def fail() -> None:
        with atomic_outputs(target) as [path]:
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
        with atomic_outputs(target) as [path]:
            write(path, text, folder)
            assert target.exists() == (text == "second")
            inode = path.stat().st_ino
        assert target.stat().st_ino == inode
        assert (target / "file" if folder else target).read_text() == text
    assert [file.name for file in Path("out").iterdir()] == ["thing"]


def test_leftover_is_removed() -> None:
    write(Path(".thing.partial"), "of a killed stage", folder=True)
    with atomic_outputs(Path("thing")) as [path]:
        assert not path.exists()
        path.write_text("new")
    assert [file.name for file in Path().glob("thing*")] == ["thing"]


def run_until(action: Callable[[], object], call: str, number: int) -> bool:
    """Run an action in a fork that ends, as with SIGKILL, before the n-th call of a function of the system.

    Returns:
        Whether it was ended.
    """

    def run() -> None:
        original, calls = getattr(os, call), count()

        def end_or_call(*arguments: object, **options: object) -> object:
            if next(calls) == number:
                os._exit(9)
            return original(*arguments, **options)

        setattr(os, call, end_or_call)
        action()
        os._exit(0)

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    process.join()
    return process.exitcode == 9


def assert_whole(possible: set[str], names: set[str]) -> None:
    assert set(contents().values()) <= possible
    assert len(set(contents().values())) <= 1
    assert set(contents()) == names


@pytest.mark.slow
@pytest.mark.parametrize(
    "call", ["rename", "unlink", *(pytest.param(call, marks=pytest.mark.rare) for call in ("rmdir", "fsync"))]
)
@pytest.mark.parametrize(
    "exists", [True, pytest.param(False, marks=pytest.mark.rare)], ids=["old outputs", "no outputs"]
)
def test_process_killed_at_any_moment(call: str, exists: bool) -> None:
    """Also while the next stage cleans up."""
    for number in count():
        shutil.rmtree("out", ignore_errors=True)
        if exists:
            write_all("old")
        early = run_until(lambda: write_all("new"), call, number)
        for cleaning in count():
            if not run_until(clean_up, call, cleaning):
                break
        finished = not early or set(contents().values()) == {"new"}
        assert_whole({"old", "new"}, NAMES if exists or finished else set())
        if not early:
            break


def test_files_of_the_user_stay() -> None:
    Path("out/model.old").mkdir(parents=True)
    Path("out/metrics.json.partial").write_text("mine")
    write_all("new")
    clean_up()
    assert Path("out/model.old").is_dir()
    assert contents()["out/metrics.json.partial"] == "mine"


@pytest.mark.parametrize("number", range(6))
def test_failed_rename_is_undone(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    write_all("old")
    original, calls = os.rename, count()

    def rename(source: Path, target: Path) -> None:
        if next(calls) == number:
            raise OSError(errno.EIO, "broken disk")
        original(source, target)

    monkeypatch.setattr(os, "rename", rename)
    with pytest.raises(OSError, match="broken disk"):
        write_all("new")
    assert contents() == dict.fromkeys(sorted(NAMES), "old")


def test_second_process_is_refused(capfd: pytest.CaptureFixture[str]) -> None:
    write_all("old")
    with atomic_outputs(*TARGETS) as [model, *_]:
        write(model, "new", folder=True)
        process = multiprocessing.get_context("fork").Process(target=refuse)
        process.start()
        process.join()
        assert process.exitcode == 0
        assert model.exists()
        Path("out/.metrics.json.partial").write_text("")
        Path("out/.runs.partial").mkdir()
    assert capfd.readouterr().out.startswith("out/model: another process writes it: since ")
    assert contents() == {"out/metrics.json": "", "out/model/file": "new"}


def refuse() -> None:
    clean_up()
    print(user_error(lambda: write_all("other")), flush=True)


def test_full_disk(tmp_path: Path) -> None:
    with small_disk(tmp_path / "out", kilobytes=400):
        write_all("old")
        error = user_error(lambda: write_all("new" * 200_000))
        assert error.file == "out/model"
        assert re.fullmatch(
            r"out/model: the disk is full: it needs more than 0.\d MB, 0.\d MB are free; .*", str(error)
        )
        assert contents() == dict.fromkeys(sorted(NAMES), "old")


def test_mounted_disk_is_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "out/model").mkdir(parents=True)
    with small_disk(tmp_path / "out/model", kilobytes=400):
        assert "mount it at the folder above" in str(user_error(lambda: write_all("new")))
    assert contents() == {}
