"""Run DVC experiments for all combinations of params, on the nodes of a Ray cluster or on this machine.

Each experiment is a Ray task. It clones the last commit, runs `dvc exp run` there and pushes the result, which is then
a row of `dvc exp show` here. What is done on this commit is skipped, so a sweep that was interrupted goes on.

Run     python -m tools.sweep -S train.learning_rate=1e-4,3e-4 -S 'split.fold=range(5)'
"""

import json
import os
import socket
import sys
import tempfile
import time
from argparse import Namespace
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dvc.repo import Repo

from stages.common.errors import MAX_REASON, UserError, printable
from stages.common.paths import METRICS
from stages.common.stage import command_parser, run_command
from tools import sweep_task
from tools.revisions import experiments, git
from tools.sweep_plan import (
    Experiment,
    check_workspace,
    exp_refs,
    fetch_experiments,
    find_done,
    find_source,
    list_experiments,
)

SECONDS_TO_END = 20  # that the tasks get after Ctrl-C


def connect(address: str | None) -> Any:
    """Connect to a Ray cluster, or start Ray on this machine; return the module `ray`.

    Raises:
        UserError: Ray is not installed, or there is no cluster at the address.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Under `uv run`, Ray would copy the folder with all data to each node.
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    try:
        import ray
    except ImportError:
        message = "Ray is not installed; pip install --constraint constraints.txt --editable '.[ray]'"
        raise UserError(message) from None
    try:
        # Without an address, Ray would also join what another program has started on this machine.
        address = address or os.environ.get("RAY_ADDRESS") or "local"
        if address.startswith("ray://"):
            raise UserError(f"{address}: Ray's client cannot do this; run it on a node of the cluster: --address=auto")
        _require_open(address)
        ray.init(address=address, include_dashboard=False, log_to_driver=False, logging_level="error")
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(f"no connection to Ray: {' '.join(str(error).split())}") from None
    ray.cloudpickle.register_pickle_by_value(sweep_task)  # the nodes may not have this version of it
    return ray


def _require_open(address: str) -> None:
    """Raise OSError if nothing listens at HOST:PORT, for which Ray would wait for minutes."""
    host, _, port = address.rpartition(":")
    if host and port.isdigit():
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
        except (OSError, OverflowError) as error:
            raise OSError(f"{address}: {getattr(error, 'strerror', None) or error}") from None


def choose_resources(ray: Any, options: Namespace, threads: int) -> dict[str, float]:
    """Return the resources of each task.

    Args:
        threads: CPUs by default, if a node has as many.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    most = {name: max(node.get(name, 0) for node in nodes) for name in ("CPU", "GPU")}
    cpus = options.cpus if options.cpus is not None else max(1, min(threads, most["CPU"]))
    gpus = options.gpus if options.gpus is not None else min(1, most["GPU"])
    if not any(node.get("CPU", 0) >= cpus and node.get("GPU", 0) >= gpus for node in nodes):
        print(f"warning: no node has {cpus:g} CPUs and {gpus:g} GPUs yet; the experiments wait for one", flush=True)
    return {"num_cpus": cpus, "num_gpus": gpus}


class Sweep:
    """The experiments that run, and what became of the others.

    Attributes:
        failed: number of experiments that failed.
    """

    def __init__(self, ray: Any, source: sweep_task.Source, git_remote: str | None, logs: Path) -> None:
        self.ray, self.source, self.git_remote, self.logs = ray, source, git_remote, logs
        self.failed = 0
        self._running: dict[Any, tuple[str, float]] = {}  # the task -> name of the experiment and time of its start

    def run(self, pending: list[Experiment], jobs: int | None, resources: dict[str, float]) -> None:
        """Run experiments; print a line when one starts and when it ends. jobs: number at the same time, None for all.

        When the experiments are interrupted, they end first.
        """
        try:
            task = self.ray.remote(sweep_task.run).options(num_returns="streaming", max_retries=1, **resources)
        except ValueError as error:
            raise UserError(f"--cpus, --gpus: {' '.join(str(error).split())}") from None
        waiting = deque(pending)
        try:
            while waiting or self._running:
                while waiting and len(self._running) < (jobs or len(pending)):
                    experiment = waiting.popleft()
                    started = task.remote(self.source, experiment.name, experiment.overrides)
                    self._running[started] = (experiment.name, time.monotonic())
                for ready in self.ray.wait(list(self._running), timeout=1)[0]:
                    self._receive(ready)
        finally:
            self._cancel()

    def _receive(self, task: Any) -> None:
        """Take the next message of a task."""
        name, start = self._running[task]
        try:
            message = self.ray.get(next(task))
        except (self.ray.exceptions.RayError, StopIteration) as error:
            message = f"failed\nerror: {type(error).__name__}: {' '.join(str(error).split())}"
        if "\n" not in message:
            self._running[task] = (name, time.monotonic())
            print(f"{name}: started on {message}", flush=True)
            return
        del self._running[task]
        status, _, output = message.partition("\n")
        print(f"{name}: {self._finish(name, status, output, time.monotonic() - start)}", flush=True)

    def _finish(self, name: str, status: str, output: str, seconds: float) -> str:
        """Return the line about an experiment that ended. output: of git and DVC; it is written to a file if failed."""
        if self.git_remote:
            fetch_experiments(self.git_remote, self.source.commit)
        accuracy = read_test_accuracy(f"{exp_refs(self.source.commit)}/{name}")
        if status == "ok" and accuracy is not None:
            return f"finished in {seconds:.0f} s, accuracy {accuracy:.3f}"
        if status == "ok":
            output += f"error: its node has another folder {self.source.url}; share it, or use --git-remote\n"
        self.failed += 1
        self.logs.mkdir(parents=True, exist_ok=True)
        log = self.logs / f"{name}.log"
        log.write_text(output, encoding="utf-8")
        return f"failed after {seconds:.0f} s: {find_reason(output)}; log: {os.path.relpath(log)}"

    def _cancel(self) -> None:
        """End the tasks that run."""
        for task in self._running:
            self.ray.cancel(task, force=False)
        deadline = time.monotonic() + SECONDS_TO_END
        while self._running and time.monotonic() < deadline:
            for ready in self.ray.wait(list(self._running), timeout=1)[0]:
                try:
                    next(ready)
                except (self.ray.exceptions.RayError, StopIteration):
                    del self._running[ready]


def read_test_accuracy(revision: str) -> float | None:
    """Read the test accuracy of an experiment; None if it is missing."""
    try:
        return float(json.loads(git("show", f"{revision}:./{METRICS}") or "")["accuracy"])
    except (ValueError, LookupError, TypeError):
        return None


def find_reason(output: str) -> str:
    """Return the line of an output that says why it failed: the stage's, or else DVC's, or else the last."""
    lines = [line.strip() for line in output.splitlines() if line.strip()] or ["no output"]
    found = [line for start in ("error: ", "ERROR: ", "fatal: ") for line in lines if line.startswith(start)]
    return printable([*found, lines[-1]][0].partition(": ")[2] if found else lines[-1], MAX_REASON)


def sweep(options: Namespace) -> int:
    """Run the experiments that are not done, and return the number of those that failed."""
    planned = list_experiments(options.set_param)
    check_workspace()
    with Repo() as repo, mark(Path(repo.cache.local_cache_dir)) as token:
        source = find_source(repo, options.git_remote, options.remote, token)
        if options.git_remote:
            fetch_experiments(options.git_remote, source.commit)
        done = find_done(planned, experiments())
        for name, same in done.items():
            print(f"{name}: done before" + (f", as {same}" if same != name else ""))
        pending = [experiment for experiment in planned if experiment.name not in done]
        if not pending:
            return 0
        ray = connect(options.address)
        try:
            resources = choose_resources(ray, options, max(experiment.threads for experiment in pending))
            print("{} to run; CPUs for each: {num_cpus:g}, GPUs: {num_gpus:g}".format(len(pending), **resources))
            started = Sweep(ray, source, options.git_remote, Path(repo.tmp_dir) / "sweep")
            started.run(pending, options.jobs, resources)
        finally:
            ray.shutdown()
    return started.failed


@contextmanager
def mark(folder: Path) -> Iterator[str]:
    """Make a file in a folder, and yield its name."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".sweep-") as file:
        yield Path(file.name).name


def main() -> None:
    """Run the sweep; exit status 1 if an experiment failed."""
    parser = command_parser("tools.sweep", __doc__)
    add = parser.add_argument
    add("-S", "--set-param", action="append", required=True, metavar="KEY=VALUES", help="as of dvc exp run --queue")
    add("--address", help="of a Ray cluster; default: RAY_ADDRESS, or else Ray starts on this machine")
    add("--cpus", type=float, help="CPUs of each experiment; default: train.threads")
    add("--gpus", type=float, help="GPUs of each experiment; default: 1 if a node has one")
    add("--jobs", type=int, help="experiments at the same time; default: as many as fit")
    add("--git-remote", metavar="NAME", help="git remote for nodes that do not share this folder, such as origin")
    add("--remote", metavar="NAME", help="DVC remote for nodes that do not share DVC's cache; default: the default one")
    options = parser.parse_args()
    if options.jobs is not None and options.jobs < 1:
        parser.error("--jobs must be at least 1")
    sys.exit(bool(sweep(options)))


if __name__ == "__main__":
    run_command(main)
