"""Encode the shards of data/encoded on the machines of a Ray cluster.

The machines need no shared disk: the clips of a shard and the base model travel through Ray's object store, with the
code. Each task writes them into a temporary folder, encodes there as one machine would, and returns the file. If a
worker or its machine is lost, Ray runs the task again.
"""

import tempfile
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import chdir
from itertools import islice
from pathlib import Path
from typing import Any

from stages.common.ray_cluster import connected  # before ray

# isort: split
import numpy as np
import ray
from datasets import Features
from ray.exceptions import RayError
from tqdm import tqdm

from stages.common.errors import UserError, reading
from stages.common.paths import BASE, RAW
from stages.resample_encode.encoder import ClipRow, Encoder
from stages.resample_encode.params import ResampleEncodeParams

MAX_RETRIES = 3  # of a shard whose worker was lost; a clip that ends the process ends each of them
MORE = 2  # shards in the object store than can run now; a cluster that can grow does so while tasks wait
WEIGHTS = {".safetensors", ".bin"}  # of the base model; only a cached part of the model needs them
Files = dict[str, np.ndarray]  # path inside the project -> bytes, as uint8, which Ray stores without a copy


def write_shards(
    address: str,
    folder: Path,
    columns: Features,
    rows: Sequence[ClipRow],
    shards: dict[str, slice],
    params: ResampleEncodeParams,
) -> Iterator[tuple[str, list[str]]]:
    """Encode clips on a Ray cluster, and write and yield the same as `Encoder.write_shards`.

    Args:
        address: of the cluster, as `ray.init` takes it.

    Raises:
        UserError: a clip cannot be encoded, there is no such cluster, or a shard was lost too often.
    """
    clips = sum(len(rows[part]) for part in shards.values())
    try:
        with connected(address), tqdm(desc="encode", total=clips, unit="clip") as bar:
            for name, (content, silent) in zip(shards, _run_tasks(columns, rows, shards, params)):
                content.tofile(folder / name)
                yield name, silent
                bar.update(len(rows[shards[name]]))
    except RayError as error:
        raise UserError(f"a shard of data/encoded was lost {MAX_RETRIES + 1} times: {error}; see Ray's logs") from None


def _run_tasks(
    columns: Features, rows: Sequence[ClipRow], shards: dict[str, slice], params: ResampleEncodeParams
) -> Iterator[tuple[np.ndarray, list[str]]]:
    """Yield what the tasks return, in the order of the shards."""
    needed = params.cache != "input"
    base = ray.put({str(file): _read(file) for file in _list_base() if needed or file.suffix not in WEIGHTS})
    threads, gpus = params.workers or 1, int(needed and "GPU" in ray.cluster_resources())
    task = ray.remote(num_cpus=threads, num_gpus=gpus, max_retries=MAX_RETRIES)(_encode_shard)

    def start(part: slice) -> Any:
        clips = {str(RAW / row.path): _read(RAW / row.path) for row in rows[part]}
        return task.remote(base, clips, columns, list(rows[part]), params, threads)

    remaining, waiting = iter(shards.values()), deque[Any]()
    while True:
        cluster = ray.cluster_resources()
        at_a_time = (cluster.get("GPU", 0) if gpus else cluster.get("CPU", 0) / threads) + MORE
        waiting.extend(map(start, islice(remaining, max(0, int(at_a_time) - len(waiting)))))
        if not waiting:
            return
        yield ray.get(waiting.popleft())


def _encode_shard(
    base: Files, clips: Files, columns: Features, rows: list[ClipRow], params: ResampleEncodeParams, threads: int
) -> tuple[np.ndarray, list[str]]:
    """Encode the clips of a shard in a temporary folder, and return the content of the file and the silent clips."""
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        for name, content in (base | clips).items():
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            content.tofile(name)
        encoder = Encoder(params)
        [(name, silent)] = encoder.write_shards(Path(), columns, rows, {"shard": slice(len(rows))}, threads)
        return np.fromfile(name, np.uint8), silent


def _list_base() -> list[Path]:
    return [file for file in sorted(BASE.rglob("*")) if file.is_file()]


def _read(file: Path) -> np.ndarray:
    with reading(file):
        return np.fromfile(file, np.uint8)
