"""What is kept of a run that was killed."""

import os
import time
from pathlib import Path

import pytest

from stages.common.environment_record import earlier_seconds
from stages.common.kept_work import RUN, Kind, lock_of, open_run

KIND = Kind("kept", "the work of a run", lambda folder: (folder / "work").exists())


def test_copies_of_queued_experiments_share_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = tmp_path / "project"
    copy = project / ".dvc" / "tmp" / "exps" / "standalone" / "tmpabc"
    copy.mkdir(parents=True)
    monkeypatch.chdir(project)
    expected = KIND.top()
    assert expected == project / ".dvc/tmp/kept"
    monkeypatch.chdir(copy)
    assert KIND.top() == expected


def test_same_run_twice_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with open_run(KIND, {"a": 1}) as first:
        with open_run(KIND, {"a": 1}) as second:
            assert first != second
            assert all(Path(lock_of(folder).lock_file).exists() for folder in (first, second))
        assert first.exists()
        assert not second.exists()
    assert not list(KIND.top().iterdir())


def test_seconds_of_earlier_runs_are_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for expected, seconds in ((0, 100), (100, 20), (120, 0)):
        earlier_seconds.clear()
        with open_run(KIND, {"a": 1}) as folder:
            assert sum(earlier_seconds) == pytest.approx(expected, abs=2)
            (folder / "work").touch()
            for file in folder.iterdir():
                os.utime(file, (time.time(), time.time() - (seconds if file.name != "work" else 0)))
            assert (folder / RUN).exists()
    earlier_seconds.clear()
    with open_run(KIND, {"a": 2}):
        assert sum(earlier_seconds) == 0
    earlier_seconds.clear()
