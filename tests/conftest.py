"""Fixtures: workspaces in which the tests run, fresh or finished."""

import gc
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes.fork_server import make_worker
from filelock import FileLock
from helpers import ALONE, SHARED, dvc, git, make_workspace
from xdist.scheduler import LoadScopeScheduling

pytest_plugins = ["fakes.small_hub"]
gc.disable()  # until the libraries are imported: it would search millions of objects that stay
modules_passed_over = [0]  # their number
MakeOnce = Callable[[str, Callable[[Path], None]], Path]


class GroupScheduling(LoadScopeScheduling):
    """Gives the tests of a group to one process, and others to the next free one."""

    def _split_scope(self, nodeid: str) -> str:
        return ALONE.get(nodeid.partition("::")[0], nodeid)


def pytest_xdist_setupnodes(specs: list[Any]) -> None:
    """Start the processes as forks of one that has imported the libraries: each would import them for ten seconds."""
    program = shlex.quote(str(make_worker()))
    for spec in specs:
        if spec.popen and not spec.python:
            spec.python = program


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> GroupScheduling:
    """Replace the scheduler of `--dist`."""
    return GroupScheduling(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with one test that makes `finished`, while the other processes run slow ones that do not wait for it.

    Fast tests come last, so that the processes end together.
    """
    waiting, others = [], []
    for item in items:
        (waiting if "finished" in getattr(item, "fixturenames", ()) else others).append(item)

    def is_fast(item: pytest.Item) -> bool:
        return not {"slow", "rare"} & {mark.name for mark in item.iter_markers()}

    items[:] = [*waiting[:1], *sorted([*others, *waiting[1:]], key=is_fast)]


def pytest_collection_finish(session: pytest.Session) -> None:
    """Let the garbage collection pass over what was imported; each search of it would take half a second."""
    _pass_over_imports()
    gc.enable()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    """Let it also pass over what a test imported: Accelerate starts a garbage collection after each training."""
    yield
    if len(sys.modules) > modules_passed_over[0] + 50:
        _pass_over_imports()


def _pass_over_imports() -> None:
    """Let the garbage collection pass over all objects that exist, after it has removed those that are not used."""
    modules_passed_over[0] = len(sys.modules)
    gc.collect()
    gc.freeze()


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh workspace with tiny params; the test runs inside it."""
    monkeypatch.chdir(make_workspace(tmp_path))
    return tmp_path


@pytest.fixture(scope="session")
def make_once(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> MakeOnce:
    """A function that returns a folder, which the first process of pytest-xdist that wants it makes for all."""
    top = tmp_path_factory.getbasetemp()
    top = top if worker_id == "master" else top.parent

    def call(name: str, make: Callable[[Path], None]) -> Path:
        folder, done = top / name, top / f"{name}.done"
        with FileLock(top / f"{name}.lock"):
            if not done.exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                make(folder)
                done.touch()
        return folder

    return call


@pytest.fixture(scope="session")
def finished(make_once: MakeOnce) -> Path:
    """A workspace in which `dvc repro` ran once, committed. Read it, or copy it; do not change it."""

    def make(folder: Path) -> None:
        make_workspace(folder)
        dvc(folder, "repro")
        git(folder, "add", ".")
        git(folder, "commit", "-q", "-m", "Run the pipeline")
        git(folder, "gc", "-q")

    return make_once("finished", make)


@pytest.fixture
def quick_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Save empty figures. Drawing takes most of the time of evaluate; test_figures.py tests it."""
    from stages.evaluate.figures import Figure

    draw = Figure.savefig

    def draw_nothing(figure: Figure, *args: Any, **kwargs: Any) -> None:
        figure.clear()
        draw(figure, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", draw_nothing)


@pytest.fixture
def copied(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick_figures: None) -> Path:
    """The finished workspace once more, to change; the test runs inside it."""
    folder = tmp_path / "copied"
    shutil.copytree(finished, folder)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[str]:
    """The address of a Ray cluster with two simulated nodes of one CPU each."""
    cluster_utils = pytest.importorskip("ray.cluster_utils", reason="the extra ray is not installed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        nodes = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        try:
            nodes.add_node(num_cpus=1)
            yield nodes.address
        finally:
            nodes.shutdown()


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real clips and a real pretrained encoder, which are not part of the project."""
    if not (SHARED / "data" / "gtzan-sample").is_dir():
        pytest.skip(f"no real clips at {SHARED.name}/data/gtzan-sample beside the project")
    return SHARED
