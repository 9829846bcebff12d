"""Sweeps on a Ray cluster with two simulated nodes, with real DVC and Ray."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest
import yaml
from dvc.repo import Repo
from fakes.fork_server import make_python
from helpers import ROOT, dvc, error_of, git, needs, set_params, user_error

from tools import compare, crossval, sweep, sweep_plan, sweep_task
from tools.revisions import experiments
from tools.sweep_plan import list_experiments, make_name

pytestmark = needs("ray", "ray")
RunTool = Callable[..., str]
FOLDS = ["-S", "split.folds=2", "-S", "split.fold=range(2)"]


@pytest.fixture(scope="module")
def cluster() -> Iterator[dict[str, str]]:
    """Start a Ray cluster of two nodes that run the stages as forks; return the environment for the tools."""
    cluster_utils = pytest.importorskip("ray.cluster_utils")
    forks = make_python()
    path = os.pathsep.join([str(forks), str(Path(sys.executable).parent), os.environ["PATH"]])
    settings = {"PATH": path, "PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0", "OMP_WAIT_POLICY": "passive"}
    # Not pytest's folder: paths of sockets may have 107 bytes.
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        settings["TMPDIR"] = folder
        for key, value in settings.items():
            patch.setenv(key, value)
        started = cluster_utils.Cluster(
            initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False}
        )
        try:
            started.add_node(num_cpus=1)
            yield dict(os.environ) | {"RAY_ADDRESS": started.address}
        finally:
            started.shutdown()


def find_source(git_remote: str | None, dvc_remote: str | None) -> sweep_task.Source:
    with Repo() as repo:
        return sweep_plan.find_source(repo, git_remote, dvc_remote, "token")


def start_sweep(env: dict[str, str], *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tools.sweep", *arguments]
    return subprocess.Popen(command, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def run_sweep(env: dict[str, str], *arguments: str) -> tuple[int, list[str]]:
    """Return exit status and lines of a sweep in the current folder."""
    process = start_sweep(env, *arguments)
    output, _ = process.communicate(timeout=300)
    return process.returncode, output.splitlines()


@pytest.mark.rare
@pytest.mark.slow
def test_folds_of_two_seeds(cluster: dict[str, str], copied: Path, run_tool: RunTool) -> None:
    status, lines = run_sweep(cluster, *FOLDS, "-S", "train.seed=1,2")
    assert status == 0, lines
    names = [f"split.fold={fold},split.folds=2,train.seed={seed}" for seed in (1, 2) for fold in (0, 1)]
    assert sum(": started on " in line for line in lines) == 4
    assert {line.partition(": ")[0] for line in lines if ": finished in " in line} == set(names)
    table = dvc(copied, "exp", "show", "--csv", "--only-changed")
    assert all(name in table for name in names)
    assert "over 2 folds" in run_tool(crossval, *names[:2])
    assert "difference: B - A" in run_tool(compare, names[0], names[2])
    assert not git(copied, "status", "--porcelain")
    dvc(copied, "exp", "apply", names[3])
    assert dvc(copied, "status").strip().endswith("Data and pipelines are up to date.")
    git(copied, "reset", "-q", "--hard")

    # A tracker has to be installed where the experiment runs.
    tracker = next(name for name in ("wandb", "mlflow", "trackio") if find_spec(name) is None)
    status, lines = run_sweep(cluster, *FOLDS, "-S", "train.seed=2", "-S", f"train.report_to=[],[{tracker}]")
    assert status == 1
    assert [line.partition(": done before, as ")[2] for line in lines if ": done before" in line] == names[2:], lines
    failed = [line for line in lines if ": failed after " in line]
    assert len(failed) == 2
    for line in failed:
        assert f"train.report_to: {tracker} is not installed" in line
        assert tracker in Path(line.partition("; log: ")[2]).read_text()
    assert len(experiments()) == 4
    assert not list(Path(".dvc/cache").glob(".sweep-*"))


@pytest.mark.rare
@pytest.mark.slow
def test_interrupt_ends_all_processes(cluster: dict[str, str], copied: Path) -> None:
    command = f"sleep {1_000_000 + os.getpid()}"
    Path("dvc.yaml").write_text(yaml.safe_dump({"stages": {"wait": {"cmd": command, "params": ["train"]}}}))
    git(copied, "commit", "-q", "-a", "-m", "Wait")
    process = start_sweep(cluster, "-S", "train.seed=1,2,3")
    assert process.stdout is not None
    while sum(command in " ".join(found.info["cmdline"] or []) for found in psutil.process_iter(["cmdline"])) < 2:
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert output.splitlines()[-1] == "interrupted"
    left = [" ".join(found.info["cmdline"] or []) for found in psutil.process_iter(["cmdline"])]
    assert not [line for line in left if command in line or "/sweep-" in line]
    assert not list(Path(cluster["TMPDIR"]).glob("sweep-*"))


@pytest.mark.rare
@pytest.mark.slow
def test_node_that_shares_nothing(cluster: dict[str, str], copied: Path, tmp_path: Path) -> None:
    """It gets the project from a git remote and the data from a DVC remote, and pushes both."""
    error = "no remote storage; dvc remote add storage URL"
    assert error in str(user_error(lambda: find_source(None, "storage")))
    dvc(copied, "remote", "add", "-d", "storage", str(tmp_path / "storage"))
    git(copied, "commit", "-q", "-a", "-m", "Add a remote")
    dvc(copied, "push")
    git(tmp_path, "init", "-q", "--bare", "bare.git")
    git(copied, "remote", "add", "hub", str(tmp_path / "bare.git"))
    error = "hub does not have the last commit; git push hub"
    assert error in str(user_error(lambda: find_source("hub", None)))
    git(copied, "push", "-q", "hub", "main")
    source = find_source("hub", None)
    messages = list(sweep_task.run(source, "renamed", ["publish.name=other"]))
    assert messages[1].startswith("ok\n"), messages
    assert experiments() == {}
    sweep_plan.fetch_experiments("hub", source.commit)
    assert list(experiments()) == ["renamed"]
    dvc(copied, "exp", "pull", "hub", "renamed")
    dvc(copied, "exp", "apply", "renamed")
    assert "other" in Path("models/published/README.md").read_text()


def test_node_without_cache_or_remote(workspace: Path) -> None:
    source = find_source(None, None)
    _, output = sweep_task.run(source, "name", [])
    assert output.startswith("failed\nerror: the node ")
    assert "does not see the cache" in sweep.find_reason(output)


def test_all_combinations_are_checked_first(workspace: Path) -> None:
    epochs, fold = error_lines(["train.epochs=0,3", "split.fold=0,1"])
    assert epochs.startswith("split.fold=0,train.epochs=0 and 1 more: params.yaml: train.epochs: input should be ")
    assert fold.startswith("split.fold=1,train.epochs=0 and 1 more: params.yaml: split.fold: needs split.folds")


def error_lines(set_param: list[str]) -> list[str]:
    return str(user_error(lambda: list_experiments(set_param))).split("\nerror: ")


@pytest.mark.parametrize(
    ("set_param", "expected"),
    [
        ("train.epoch=3", "Could not override 'train.epoch'"),
        ("train.epochs=range(", "range("),
        ("other.yaml:a=3", "only keys of params.yaml"),
    ],
)
def test_invalid_grid(workspace: Path, set_param: str, expected: str) -> None:
    [line] = error_lines([set_param])
    assert expected in line


@pytest.mark.slow
def test_names(workspace: Path) -> None:
    def names(*set_param: str) -> list[str]:
        return [experiment.name for experiment in list_experiments(list(set_param))]

    assert names("train.learning_rate=1e-4,3e-4") == ["train.learning_rate=0.0001", "train.learning_rate=0.0003"]
    assert names("train.seed=1", "split.seed=2") == names("split.seed=2", "train.seed=01e0,1", "train.seed=1")[-1:]
    masks = names("train.spec_augment={mask_time_prob: 0.05},{mask_time_prob: 0.06}", "publish.name=a/b")
    assert len(set(masks)) == 2
    for name in [*masks, make_name(["publish.name=x"], {"publish": {"name": "a/../b.lock"}})]:
        git(workspace, "check-ref-format", f"refs/exps/{name}")
        assert not {*name} & {*" /{}:\"'"}


def test_changes_that_are_not_committed(workspace: Path, run_tool: RunTool, capsys: pytest.CaptureFixture[str]) -> None:
    (workspace / "notes.txt").touch()
    sweep_plan.check_workspace()
    assert "not in git, so the experiments do not have it: notes.txt" in capsys.readouterr().out
    set_params(workspace, {"train.epochs": 2})
    message = error_of(lambda: run_tool(sweep, "-S", "train.seed=1"))
    assert "not committed, so the experiments would not have it: params.yaml" in message


def test_ray_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert "pip install --constraint constraints.txt --editable '.[ray]'" in str(
        user_error(lambda: sweep.connect(None))
    )


def test_no_cluster_at_the_address() -> None:
    with socket.socket() as taken:  # it does not listen
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        assert f"no connection to Ray: {address}: Connection refused" in str(user_error(lambda: sweep.connect(address)))
    assert "no connection to Ray" in str(user_error(lambda: sweep.connect("127.0.0.1:99999")))


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        ("epoch 1\nerror: params.yaml: train.epochs: wrong\nERROR: failed to run", "params.yaml: train.epochs: wrong"),
        ("ERROR: failed to push\n\n", "failed to push"),
        ("fatal: repository 'x' does not exist\n", "repository 'x' does not exist"),
        ("Killed\n", "Killed"),
        ("", "no output"),
    ],
)
def test_reason(output: str, reason: str) -> None:
    assert sweep.find_reason(output) == reason
