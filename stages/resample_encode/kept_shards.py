"""Keep the complete shards of an encoding, so that it goes on from there if it was killed."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from stages.common.device import describe_device, is_bf16_chosen
from stages.common.inputs import find_entry
from stages.common.kept_work import Kind, describe_inputs
from stages.common.paths import CLIPS, DATASET_SOURCE, RAW
from stages.resample_encode.params import ResampleEncodeParams

LIBRARIES = ("datasets", "numpy", "pyarrow", "soundfile", "soxr", "torch", "transformers")
SHARDS = Kind("encoded", "the shards of an encoding", lambda folder: any(folder.glob("*.arrow")))
PARTIAL = "partial"  # folder of the shards that are being written


def describe_run(params: ResampleEncodeParams, address: str | None) -> dict[str, Any]:
    """Return what decides the bytes of the shards: values by name. Empty if dvc.yaml does not list the inputs.

    Args:
        address: of the Ray cluster that encodes, if there is one.
    """
    entry = find_entry("resample_encode")
    # The checksums in clips.csv stand for the clips; each clip is compared with its own when it is used.
    deps = [path for path in entry.get("deps", []) if path != RAW.as_posix()]
    raw = [CLIPS.as_posix(), DATASET_SOURCE.as_posix()] if deps else []
    run = describe_inputs(entry | {"deps": deps + raw}, ["resample_encode.workers"], LIBRARIES)
    if run and params.cache != "input":
        run |= {"device": describe_device(), "bf16": is_bf16_chosen(params.precision), "cluster": address}
        run |= {"instructions": torch.backends.cpu.get_cpu_capability()}
    return run


def prepare(folder: Path) -> Path:
    """Return the empty folder for shards that are being written."""
    shutil.rmtree(folder / PARTIAL, ignore_errors=True)
    (folder / PARTIAL).mkdir()
    return folder / PARTIAL


def keep(folder: Path, name: str, silent: list[str]) -> None:
    """Keep a shard that is complete.

    Args:
        folder: of the run. name: of the shard. silent: its clips, or their segments, that are silent.
    """
    (folder / PARTIAL / name).rename(folder / name)
    note = folder / PARTIAL / f"{name}.json"
    note.write_text(json.dumps({"sha256": _hash(folder / name), "silent": silent}), encoding="utf-8")
    note.rename(folder / note.name)


def find_complete(folder: Path, names: Iterable[str]) -> dict[str, list[str]]:
    """Return the complete shards of a run, and the silent clips of each. Others, also damaged ones, are removed."""
    complete = {}
    for name in names:
        file, note = folder / name, folder / f"{name}.json"
        try:
            content = json.loads(note.read_text(encoding="utf-8"))
            if content["sha256"] == _hash(file):
                complete[name] = content["silent"]
                continue
        except (OSError, ValueError, LookupError, TypeError):  # killed between the two files, or damaged
            pass
        file.unlink(missing_ok=True)
        note.unlink(missing_ok=True)
    return complete


def place(folder: Path, names: Iterable[str], target: Path) -> None:
    """Put shards into the output. They also stay here, until the output is complete."""
    for name in names:
        try:
            os.link(folder / name, target / name)  # takes no space
        except OSError:  # another disk, or one that has no such links
            shutil.copyfile(folder / name, target / name)


def remove(folder: Path) -> None:
    """Remove the shards of a run that is done."""
    shutil.rmtree(folder, ignore_errors=True)


def _hash(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
