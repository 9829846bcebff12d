"""Keep the complete work of a stage that is killed, so that its next run goes on from there.

It is outside of DVC's outputs, which DVC removes before the stage starts. Each run has a folder, whose name depends on
all that decides its result: params, code, inputs, libraries and device.
"""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import filelock

from stages.common.environment_record import earlier_seconds
from stages.common.inputs import read_inputs
from stages.common.paths import PARAMS

RUN, SECONDS, LOCK = "run.json", "seconds.json", "lock"


class Kind(NamedTuple):
    """A kind of work to keep.

    folder: its name in .dvc/tmp. description: for messages. has_work: whether the folder of a run has complete work.
    """

    folder: str
    description: str
    has_work: Callable[[Path], bool]

    def top(self) -> Path:
        """Return the folder of all runs. Queued experiments, which run in a copy of the project, share it."""
        here = Path.cwd()
        copies = [parent for parent in here.parents if parent.parts[-3:] == (".dvc", "tmp", "exps")]
        return (copies[0].parent if copies else here / ".dvc" / "tmp") / self.folder


def describe_inputs(entry: dict[str, Any], ignored: Iterable[str], libraries: Iterable[str]) -> dict[str, Any]:
    """Return the inputs of a stage and the versions of libraries: values by name. Empty if dvc.yaml has no inputs.

    Args:
        entry: of dvc.yaml. ignored: keys of params without an effect, with their section. libraries: packages.
    """
    without_effect = {f"{PARAMS}: {key}" for key in ignored}
    inputs = {name: value for name, value in read_inputs(entry, largest=None).items() if name not in without_effect}
    return inputs and inputs | {package: metadata.version(package) for package in libraries}


@contextmanager
def open_run(kind: Kind, run: dict[str, Any]) -> Iterator[Path]:
    """Yield the folder of a run, which may have work of an earlier one. run: all that decides its result, by name."""
    top = kind.top()
    top.mkdir(parents=True, exist_ok=True)
    if not run:  # nothing would tell its work from that of other runs
        with tempfile.TemporaryDirectory(dir=top) as temporary:
            yield Path(temporary)
        return
    folder = top / hashlib.sha256(json.dumps(run, sort_keys=True).encode()).hexdigest()[:16]
    folder.mkdir(exist_ok=True)
    lock = lock_of(folder)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:  # the same run is in progress in another folder
        folder = Path(tempfile.mkdtemp(dir=top, prefix=f"{folder.name}-"))
        lock = lock_of(folder)
        lock.acquire()
    folder.mkdir(exist_ok=True)  # a run that ended in between removed it
    try:
        seconds = count_seconds(folder) if kind.has_work(folder) else 0.0
        earlier_seconds.append(seconds)
        (folder / SECONDS).write_text(json.dumps(seconds), encoding="utf-8")
        (folder / RUN).write_text(json.dumps(run, indent=2), encoding="utf-8")
        if not kind.has_work(folder) and (line := explain_unused(kind, run)):
            print(line, flush=True)
        yield folder
    finally:
        if not kind.has_work(folder):
            shutil.rmtree(folder, ignore_errors=True)
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


def lock_of(folder: Path) -> filelock.BaseFileLock:
    """Return the lock that a run holds while it uses its folder."""
    return filelock.FileLock(f"{folder}.{LOCK}")


def count_seconds(folder: Path) -> float:
    """Return how long earlier runs took for the work in a folder: each from its start to its last file."""
    try:
        before = float(json.loads((folder / SECONDS).read_text(encoding="utf-8")))
        start = (folder / RUN).stat().st_mtime
        return before + max(0.0, max(file.stat().st_mtime for file in folder.iterdir()) - start)
    except (OSError, ValueError, TypeError):  # it was killed before it wrote them
        return 0.0


def explain_unused(kind: Kind, run: dict[str, Any]) -> str | None:
    """Return a line about the newest work of another run, if there is any: what differs."""
    try:
        files = [file for file in kind.top().glob(f"*/{RUN}") if kind.has_work(file.parent)]
        newest = max(files, key=lambda file: file.stat().st_mtime)
        before = json.loads(newest.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # there is none, or another process removes it
        return None
    name = next((name for name in sorted({*run, *before}) if run.get(name) != before.get(name)), None)
    if name is None:
        return None
    values = f" ({before.get(name)}, now {run.get(name)})" if name.startswith(PARAMS.name) else ""
    name = name.removeprefix(f"{PARAMS}: ")
    return f"not used: {kind.description} with another {name}{values}; see python -m tools.checkpoints"
