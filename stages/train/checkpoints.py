"""Keep checkpoints of a training, so that it goes on where it was killed.

Each training has a folder (see `stages.common.kept_work`).
"""

import json
import pickle
import shutil
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.utils._pytree import tree_map_only

from stages.common.errors import UserError
from stages.common.inputs import find_entry
from stages.common.kept_work import Kind, describe_inputs
from stages.common.outputs import sync_file
from stages.train.params import WITHOUT_EFFECT

STATE = "trainer_state.json"
WEIGHTS = "pytorch_model.bin"  # where the Trainer looks for weights


def describe_run(micro_batch: int, processes: int, device: str, precision: str, lora: bool = False) -> dict[str, Any]:
    """Return what decides the result of a training: values by name. Empty if dvc.yaml does not list the inputs."""
    ignored = [f"train.{key}" for key in (*WITHOUT_EFFECT, "eval_batch_size")]
    libraries = ["accelerate", "numpy", "scikit-learn", "torch", "transformers", *(["peft"] if lora else [])]
    inputs = describe_inputs(find_entry("train"), ignored, libraries)
    found: dict[str, Any] = {
        "device": device,
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "precision": precision,
    }
    found |= {"threads": torch.get_num_threads(), "micro-batch": micro_batch, "processes": processes}
    return inputs and json.loads(json.dumps(inputs | found, default=str))


def remove(folders: list[Path]) -> None:
    """Remove the folders of a training that is done."""
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def find_last(folder: Path) -> Path | None:
    """Return the folder of the last complete checkpoint of a training."""
    complete = [file.parent for file in folder.glob(f"checkpoint-*/{STATE}")]
    return max(complete, key=lambda path: int(path.name.partition("-")[2]), default=None)


CHECKPOINTS = Kind("checkpoints", "the checkpoint of a training", lambda folder: find_last(folder) is not None)


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
