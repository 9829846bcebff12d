"""Run the experiments of a search: in clones on this machine, or as tasks of a Ray cluster."""

import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from stages.common.errors import UserError
from stages.common.params import read_file
from stages.common.paths import EPOCHS, FIGURE, METRICS, PREDICTIONS, SELECTION
from tools import sweep_task
from tools.crossval import flat, read_params
from tools.revisions import git
from tools.sweep import SECONDS_TO_END, find_reason
from tools.sweep_plan import exp_refs, fetch_experiments, list_experiments

# Outputs of the stages after train, in git: those of the last commit would look like those of a trial.
OF_TEST = (str(METRICS), str(PREDICTIONS), str(FIGURE))
TRAIN, EVALUATE = "train", "evaluate"

# Gets a source, the name of an experiment, its overrides and its Part; yields what `sweep_task.run` yields.
Start = Callable[[sweep_task.Source, str, list[str], sweep_task.Part], Iterator[str]]
# Gets the folder of a project in which a training runs; returns whether to end it.
Watch = Callable[[Path], bool]


class FailedRunError(UserError):
    """An experiment failed; the message says why, and where its log is."""


class StoppedError(Exception):
    """An experiment was ended: the search was interrupted, or its `Watch` asked to."""


@dataclass
class Runner:
    """Runs experiments, several at the same time in threads.

    Attributes:
        start: runs one, see `sweep_task.run`.
        folder: for clones, on this machine; a training there goes on from the checkpoint of an interrupted one.
        logs: folder for the output of those that fail.
        interrupted: set it to end all that run.
    """

    source: sweep_task.Source
    start: Start
    git_remote: str | None
    folder: Path
    logs: Path
    interrupted: threading.Event
    local: bool

    def __post_init__(self) -> None:
        self._lock = threading.Lock()

    def revision(self, name: str) -> str:
        """Return the git reference of an experiment on the last commit."""
        return f"{exp_refs(self.source.commit)}/{name}"

    def run(self, name: str, overrides: list[str], target: str, watch: Watch | None = None) -> str:
        """Run an experiment up to a stage, unless it was run before, and return its revision.

        Raises:
            FailedRunError: it failed, or its params are not valid.
            StoppedError: it was ended.
        """
        with self._lock:  # Hydra has global state
            params = read_all_params(overrides)
        if self._is_done(name, params, target):
            return self.revision(name)
        part = sweep_task.Part(target, OF_TEST if target == TRAIN else ())
        stopped = threading.Event()
        if self.local:
            part = sweep_task.Part(part.target, part.without, str(self.folder), partial(self._watch, watch, stopped))
        started = time.monotonic()
        *_, last = self.start(self.source, name, overrides, part)
        if self.git_remote:
            fetch_experiments(self.git_remote, self.source.commit)
        status, _, output = last.partition("\n")
        if status == "ok" and self._is_done(name, params, target):
            return self.revision(name)
        if stopped.is_set() or self.interrupted.is_set():
            raise StoppedError
        if status == "ok":
            output += f"error: its result is missing; share the folder {self.source.url}, or use --git-remote\n"
        self.logs.mkdir(parents=True, exist_ok=True)
        log = self.logs / f"{name}.log"
        log.write_text(output, encoding="utf-8")
        seconds = time.monotonic() - started
        raise FailedRunError(f"failed after {seconds:.0f} s: {find_reason(output)}; log: {os.path.relpath(log)}")

    def _watch(self, watch: Watch | None, stopped: threading.Event, project: Path) -> bool:
        if self.interrupted.is_set() or (watch and watch(project)):
            stopped.set()
        return stopped.is_set()

    def _is_done(self, name: str, params: dict[str, Any], target: str) -> bool:
        revision = self.revision(name)
        if git("rev-parse", "--verify", "--quiet", revision) is None:
            return False
        needed = METRICS if target == EVALUATE else SELECTION
        return git("cat-file", "-e", f"{revision}:./{needed}") is not None and read_params(revision) == params

    def clear(self) -> None:
        """Remove the clones that a killed search left."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True, exist_ok=True)  # a process of that search may still write there


def read_all_params(overrides: list[str]) -> dict[str, Any]:
    """Return the params with other values, by dotted key.

    Raises:
        FailedRunError: they contradict each other.
    """
    if not overrides:
        return {key[1:]: value for key, value in flat(read_file()).items()}
    try:
        [experiment] = list_experiments(overrides)
    except UserError as error:
        first, _, more = str(error).partition("\n")
        raise FailedRunError(first + (" ..." if more else "")) from None
    return experiment.params


def read_selection(revision: str) -> dict[str, Any]:
    """Read metrics/selection.json of an experiment."""
    content: dict[str, Any] = json.loads(git("show", f"{revision}:./{SELECTION}") or "{}")
    return content


def read_epochs_so_far(project: Path) -> list[float]:
    """Return the accuracies of the epochs of a training that runs in this folder."""
    with suppress(OSError, ValueError, StopIteration):  # no epoch yet, or its row is being written
        file = next((project / EPOCHS.parent).glob(f".{EPOCHS.name}.partial/plots/metrics/eval_accuracy.tsv"))
        header, *rows = file.read_text(encoding="utf-8").splitlines()
        column = header.split("\t").index("eval_accuracy")
        return [float(row.split("\t")[column]) for row in rows]
    return []


def start_on_ray(ray: Any, resources: dict[str, float], interrupted: threading.Event) -> Start:
    """Return a function that runs an experiment as a Ray task."""
    try:
        task = ray.remote(sweep_task.run).options(num_returns="streaming", max_retries=1, **resources)
    except ValueError as error:
        raise UserError(f"--cpus, --gpus: {' '.join(str(error).split())}") from None

    def start(source: sweep_task.Source, name: str, overrides: list[str], part: sweep_task.Part) -> Iterator[str]:
        running = task.remote(source, name, overrides, part)
        deadline = float("inf")
        while time.monotonic() < deadline:
            if ray.wait([running], timeout=1)[0]:
                try:
                    message = ray.get(next(running))
                except (ray.exceptions.RayError, StopIteration) as error:
                    message = f"failed\nerror: {type(error).__name__}: {' '.join(str(error).split())}"
                yield message
                if "\n" in message:
                    return
            elif interrupted.is_set() and deadline == float("inf"):
                ray.cancel(running, force=False)
                deadline = time.monotonic() + SECONDS_TO_END
        yield "failed\nerror: interrupted"

    return start


def count_fitting(ray: Any, resources: dict[str, float]) -> int:
    """Return how many tasks run at the same time on the cluster, at least 1."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    wanted = {"CPU": resources["num_cpus"], "GPU": resources["num_gpus"]}
    fit = [
        min(node.get(name, 0) // each for name, each in wanted.items() if each)
        for node in nodes
        if any(wanted.values())
    ]
    return max(1, int(sum(fit)))
