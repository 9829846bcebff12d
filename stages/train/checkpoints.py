"""Keep checkpoints of a training, so that it goes on where it was killed.

They are outside of DVC's outputs, which DVC removes before the stage starts. Each training has a folder, whose name
depends on all that decides its result: params, code, inputs, libraries and device.
"""

import hashlib
import json
import pickle
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import filelock
import torch
from torch.utils._pytree import tree_map_only

from stages.common.errors import UserError
from stages.common.inputs import find_entry, read_inputs
from stages.common.outputs import sync_file
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


def describe_run(micro_batch: int, processes: int, device: str, precision: str) -> dict[str, Any]:
    """Return what decides the result of a training: values by name. Empty if dvc.yaml does not list the inputs."""
    inputs = read_inputs(find_entry("train"), largest=None)
    ignored = {f"{PARAMS}: train.{key}" for key in (*WITHOUT_EFFECT, "eval_batch_size")}
    inputs = {name: value for name, value in inputs.items() if name not in ignored}
    found: dict[str, Any] = {
        package: metadata.version(package) for package in ("accelerate", "numpy", "torch", "transformers")
    }
    found |= {"device": device, "instructions": torch.backends.cpu.get_cpu_capability(), "precision": precision}
    found |= {"threads": torch.get_num_threads(), "micro-batch": micro_batch, "processes": processes}
    return inputs and json.loads(json.dumps(inputs | found, default=str))


@contextmanager
def open_run(run: dict[str, Any]) -> Iterator[Path]:
    """Yield the folder of a training, whose earlier checkpoints it may have. `run`: as `describe_run` returns it."""
    if not run:  # nothing would tell its checkpoints from those of other trainings
        with tempfile.TemporaryDirectory() as temporary:
            yield Path(temporary)
        return
    top = checkpoints_folder()
    folder = top / hashlib.sha256(json.dumps(run, sort_keys=True).encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    lock = lock_of(folder)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:  # the same training runs in another folder
        folder = Path(tempfile.mkdtemp(dir=top, prefix=f"{folder.name}-"))
    try:
        (folder / RUN).write_text(json.dumps(run, indent=2), encoding="utf-8")
        if find_last(folder) is None and (line := explain_unused(run, top)):
            print(line, flush=True)
        yield folder
    finally:
        if find_last(folder) is None:
            shutil.rmtree(folder, ignore_errors=True)
        if lock.is_locked:
            Path(lock.lock_file).unlink(missing_ok=True)
            lock.release()


def remove(folders: list[Path]) -> None:
    """Remove the folders of a training that is done."""
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def lock_of(folder: Path) -> filelock.BaseFileLock:
    """Return the lock that a training holds while it uses its folder."""
    return filelock.FileLock(f"{folder}.{LOCK}")


def explain_unused(run: dict[str, Any], top: Path) -> str | None:
    """Return a line about the newest checkpoint of another training, if there is one: what differs."""
    try:
        files = [file for file in top.glob(f"*/{RUN}") if find_last(file.parent)]
        newest = max(files, key=lambda file: file.stat().st_mtime)
        before = json.loads(newest.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # there is none, or another process removes it
        return None
    name = next((name for name in sorted({*run, *before}) if run.get(name) != before.get(name)), None)
    if name is None:
        return None
    values = f" ({before.get(name)}, now {run.get(name)})" if name.startswith(PARAMS.name) else ""
    name = name.removeprefix(f"{PARAMS}: ")
    return f"not used: the checkpoint of a training with another {name}{values}; see python -m tools.checkpoints"


def find_last(folder: Path) -> Path | None:
    """Return the folder of the last complete checkpoint of a training."""
    complete = [file.parent for file in folder.glob(f"checkpoint-*/{STATE}")]
    return max(complete, key=lambda path: int(path.name.partition("-")[2]), default=None)


def damaged_checkpoint(folder: Path, reason: object) -> UserError:
    """Return the error for a checkpoint that cannot be loaded."""
    line = " ".join(str(reason).split())[:300]
    return UserError(f"the checkpoint is damaged: {line}; remove it: python -m tools.checkpoints --clear", file=folder)


@contextmanager
def loading(folder: Path) -> Iterator[None]:
    """Raise UserError if a checkpoint in this folder cannot be loaded inside the block."""
    try:
        yield
    except (OSError, RuntimeError, ValueError, LookupError, EOFError, pickle.UnpicklingError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        raise damaged_checkpoint(folder, error) from None


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
        self.last = self.pool.submit(self._write, name, tensors, texts, keep)

    def _write(self, name: str, tensors: dict[str, Any], texts: dict[str, str], keep: tuple[str, ...]) -> None:
        partial = self.folder / f".{name}.partial"
        try:
            for file, content in tensors.items():
                torch.save(content, partial / file)
            for file, text in texts.items():
                (partial / file).write_text(text, encoding="utf-8")
            for path in partial.iterdir():
                sync_file(path)
            shutil.rmtree(self.folder / name, ignore_errors=True)
            partial.rename(self.folder / name)
        except (OSError, RuntimeError) as error:  # torch raises RuntimeError if the disk is full
            shutil.rmtree(partial, ignore_errors=True)
            reason = " ".join(str(error).split())
            raise UserError(f"a checkpoint cannot be written: {reason}; free space there", file=self.folder) from error
        for other in self.folder.glob("*-*"):
            if keep and other.name not in (name, *keep):
                shutil.rmtree(other)

    def wait(self) -> None:
        """Wait until all is written.

        Raises:
            UserError: a checkpoint cannot be written, e.g. because the disk is full.
        """
        if self.last:
            self.last.result()
            self.last = None
