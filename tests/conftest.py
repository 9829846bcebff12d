"""Fixtures: workspaces in which the tests run, fresh or finished."""

import shutil
from pathlib import Path

import pytest
from helpers import SHARED, dvc, git, make_workspace

pytest_plugins = ["fakes.small_hub"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run all tests of the finished pipeline in one process, because it takes a minute to make."""
    for item in items:
        if "finished" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group("finished"))


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh workspace with tiny params; the test runs inside it."""
    monkeypatch.chdir(make_workspace(tmp_path))
    return tmp_path


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace in which `dvc repro` ran once, committed. Read it, or copy it; do not change it."""
    folder = make_workspace(tmp_path_factory.mktemp("finished"))
    dvc(folder, "repro")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "Run the pipeline")
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
