"""Keep checkpoints of a training, so that it goes on where it was killed.

They are outside of DVC's outputs, which DVC removes before the stage starts. Each training has a folder, whose name
depends on all that decides its result: params, code, inputs, libraries and device.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import filelock
import torch
import transformers
from torch.utils._pytree import tree_map_only

from stages.common.inputs import find_entry, read_inputs
from stages.common.paths import PARAMS
from stages.train.params import WITHOUT_EFFECT

STATE = "trainer_state.json"
WEIGHTS = "pytorch_model.bin"  # where the Trainer looks for weights
RUN, LOCK = "run.json", "lock"


def checkpoints_folder() -> Path:
    """Return the folder of all checkpoints. Queued experiments, which run in a copy of the project, share it."""
    here = Path.cwd()
    copies = [parent for parent in here.parents if parent.parts[-3:] == (".dvc", "tmp", "exps")]
    return copies[0].parent / "checkpoints" if copies else here / ".dvc" / "tmp" / "checkpoints"


def describe_run(micro_batch: int, processes: int, device: str) -> dict[str, Any]:
    """Return what decides the result of a training: values by name. Empty if dvc.yaml does not list the inputs."""
    inputs = read_inputs(find_entry("train"), largest=None)
    ignored = {f"{PARAMS}: train.{key}" for key in WITHOUT_EFFECT}
    inputs = {name: value for name, value in inputs.items() if name not in ignored}
    found = {"torch": torch.__version__, "transformers": transformers.__version__, "device": device}
    found |= {"threads": torch.get_num_threads(), "micro-batch": micro_batch, "processes": processes}
    return inputs and json.loads(json.dumps(inputs | found, default=str))


@contextmanager
def open_run(run: dict[str, Any]) -> Iterator[Path]:
    """Yield the folder of a training, whose earlier checkpoints it may have. Remove it if the block succeeds."""
    top = checkpoints_folder()
    name = hashlib.sha256(json.dumps(run, sort_keys=True).encode()).hexdigest()[:16]
    folder = top / name
    folder.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(top / f"{name}.{LOCK}")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:  # the same training runs in another folder
        folder = top / f"{name}-{os.getpid()}"
        folder.mkdir()
    try:
        (folder / RUN).write_text(json.dumps(run, indent=2), encoding="utf-8")
        if find_last(folder) is None and (line := explain_unused(run, folder)):
            print(line, flush=True)
        yield folder
        shutil.rmtree(folder)
    finally:
        if find_last(folder) is None:
            shutil.rmtree(folder, ignore_errors=True)
        if lock.is_locked:
            Path(lock.lock_file).unlink(missing_ok=True)
            lock.release()


def explain_unused(run: dict[str, Any], folder: Path) -> str | None:
    """Return a line about the newest checkpoint of another training, if there is one: what differs."""
    others = [
        file.parent for file in folder.parent.glob(f"*/{RUN}") if file.parent != folder and find_last(file.parent)
    ]
    if not others:
        return None
    newest = max(others, key=lambda other: (other / RUN).stat().st_mtime)
    try:
        before = json.loads((newest / RUN).read_text(encoding="utf-8"))
    except ValueError:
        before = {}
    name = next((name for name in sorted({*run, *before}) if run.get(name) != before.get(name)), "")
    values = f" ({before.get(name)}, now {run.get(name)})" if name.startswith("params.yaml") else ""
    name = name.removeprefix("params.yaml: ")
    return f"not used: the checkpoint of a training with another {name}{values}; see python -m tools.checkpoints"


def find_last(folder: Path) -> Path | None:
    """Return the folder of the last complete checkpoint of a training."""
    complete = [file.parent for file in folder.glob(f"checkpoint-*/{STATE}")]
    return max(complete, key=lambda path: int(path.name.partition("-")[2]), default=None)


def to_cpu(tree: Any) -> Any:
    """Copy all tensors in nested lists and dicts to the CPU."""
    return tree_map_only(torch.Tensor, lambda tensor: tensor.detach().to("cpu", copy=True), tree)


class Writer:
    """Writes checkpoints of a training in a thread, one after the other, so that training does not wait.

    A checkpoint is complete or not there: its folder gets its name at the end.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pool = ThreadPoolExecutor(1)
        self.last: Future[None] | None = None

    def prepare(self, name: str) -> Path:
        """Return an empty folder for the files of a checkpoint."""
        partial = self.folder / f".{name}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        return partial

    def write(self, name: str, tensors: dict[str, Any], texts: dict[str, str], keep: tuple[str, ...] = ()) -> None:
        """Write files into the prepared folder.

        Args:
            tensors: for torch.save, by file name; they must not change any more. texts: by file name.
            keep: names of the other checkpoints to keep; without any, all stay.
        """
        self.wait()
        self.last = self.pool.submit(self._write, name, tensors, texts, keep)

    def _write(self, name: str, tensors: dict[str, Any], texts: dict[str, str], keep: tuple[str, ...]) -> None:
        partial = self.folder / f".{name}.partial"
        for file, content in tensors.items():
            torch.save(content, partial / file)
        for file, text in texts.items():
            (partial / file).write_text(text, encoding="utf-8")
        shutil.rmtree(self.folder / name, ignore_errors=True)
        partial.rename(self.folder / name)
        for other in self.folder.glob("*-*"):
            if keep and other.name not in (name, *keep):
                shutil.rmtree(other)

    def wait(self) -> None:
        """Wait until all is written.

        Raises:
            OSError: a checkpoint cannot be written, e.g. because the disk is full.
        """
        if self.last:
            self.last.result()
            self.last = None
