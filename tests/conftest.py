"""Fixtures: workspaces in which the tests run, fresh or finished."""

import shutil
from pathlib import Path

import pytest
from filelock import FileLock
from helpers import SHARED, dvc, git, make_workspace

pytest_plugins = ["fakes.small_hub"]


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh workspace with tiny params; the test runs inside it."""
    monkeypatch.chdir(make_workspace(tmp_path))
    return tmp_path


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A workspace in which `dvc repro` ran once, committed. Read it, or copy it; do not change it.

    It takes a minute to make, so the processes of pytest-xdist share it.
    """
    top = tmp_path_factory.getbasetemp()
    top = top if worker_id == "master" else top.parent
    folder, done = top / "finished", top / "finished.done"
    with FileLock(top / "finished.lock"):
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make_workspace(folder)
            dvc(folder, "repro")
            git(folder, "add", ".")
            git(folder, "commit", "-q", "-m", "Run the pipeline")
            done.touch()
    return folder


@pytest.fixture
def copied(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The finished workspace once more, to change; the test runs inside it."""
    folder = tmp_path / "copied"
    shutil.copytree(finished, folder)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real clips and a real pretrained encoder, which are not part of the project."""
    if not (SHARED / "data" / "gtzan-sample").is_dir():
        pytest.skip(f"no real clips at {SHARED.name}/data/gtzan-sample beside the project")
    return SHARED
