"""Turn every clip into what the base model takes in: mono, resampled, cut, and through its own feature extractor.

Reads   params.yaml: resample_encode; data/raw/ (clips.csv and the files it lists); models/base/
Writes  data/encoded/: a data set for `datasets.load_from_disk` with clip, label and, in float16, the model's input or
        what a frozen part of the model makes of it, and the preprocessor config
Run     python -m stages.resample_encode
"""

import csv
import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from datasets import Array2D, ClassLabel, DatasetInfo, Features, List, Value
from datasets.arrow_writer import ArrowWriter
from pydantic import Field
from tqdm import tqdm
from transformers import AutoConfig, AutoFeatureExtractor
from transformers.utils import logging

from stages.common import audio, classifier, frozen, processor
from stages.common.repeatable import repeat
from stages.common.stage import Number, Section, StageError, load_params, need, run, whole

RAW = Path("data/raw")
BASE = Path("models/base")
ENCODED = Path("data/encoded")
SHARD = "data-00000-of-00001.arrow"
A = TypeVar("A")
B = TypeVar("B")


class Params(Section):
    max_seconds: Number = Field(gt=0)  # of each clip, from its start
    feature_extractor: dict[str, bool | int | float | str] = {}  # settings that replace the base model's own
    workers: int | None = Field(ge=1)  # threads; null takes one per core
    # What is kept of a clip: the model's input, or the output of a part that training freezes.
    representation: Literal["input", "feature_encoder", "base"] = "input"
    precision: Literal["auto", "fp32", "bf16"] = "fp32"  # of that part; auto takes bf16 where the processor has it


def load_feature_extractor(folder: Path, settings: dict[str, Any]) -> Any:
    """The base model's feature extractor with some settings replaced.

    Raises:
        StageError: a setting that this feature extractor does not have.
    """
    extractor = AutoFeatureExtractor.from_pretrained(folder, trust_remote_code=False)
    for key in settings:
        if key not in extractor.to_dict():
            raise StageError(
                f"params.yaml: resample_encode.feature_extractor.{key}: {type(extractor).__name__} has no such setting"
            )
    return AutoFeatureExtractor.from_pretrained(folder, trust_remote_code=False, **settings)


def load_part(folder: Path, part: str, precision: str) -> Callable[[np.ndarray], np.ndarray]:
    """A part of the base model as a function: the model's input, float32, to float32 (frames, channels).

    Of the whole base it is one frame, the mean.

    Raises:
        StageError: the model has no such part, its head needs more than the part's output, or it is not whole.
    """
    repeat(0, threads=1)  # the clips are spread over threads already
    logging.set_verbosity_error()
    model = classifier.load(folder, AutoConfig.from_pretrained(folder, trust_remote_code=False)).eval()
    if not frozen.can_be_cached(model, part):
        raise StageError(
            f"params.yaml: resample_encode.representation: {model.config.model_type} has no {part} whose output is all "
            "that its head needs; set input"
        )
    device = processor.device()
    module = getattr(*frozen.find(model, part)).to(device)
    bf16 = precision == "bf16" or (precision == "auto" and processor.has_bf16())

    @torch.inference_mode()
    def run_part(features: np.ndarray) -> np.ndarray:
        with torch.autocast(device, torch.bfloat16, enabled=bf16):
            output = module(torch.from_numpy(features)[None].to(device))
        # The heads map each frame linearly and take the mean, so that the mean alone gives the same.
        output = output[0].T if part == "feature_encoder" else output.last_hidden_state.mean(1)
        return output.float().cpu().numpy()

    return run_part


def encode(
    file: Path,
    extractor: Any,
    max_seconds: float,
    shortest: int = 1,
    part: Callable[[np.ndarray], np.ndarray] | None = None,
) -> np.ndarray:
    """One clip as the model takes it in.

    Args:
        shortest: samples at the model's sampling rate that it needs at least.
        part: the part of the model that the feature extractor's output then goes through.

    Returns:
        float16, shape (samples,) for waveform models, (bins, frames) or (frames, bins) for spectrogram models,
        (frames, channels) behind a part of the model.

    Raises:
        StageError: the clip is too short, or its samples too large for float16.
    """
    samples = audio.load(file, extractor.sampling_rate, max_seconds)
    if len(samples) < shortest:
        raise StageError(
            f"{file}: {len(samples)} samples at {extractor.sampling_rate} Hz, and the model needs {shortest} at least; "
            "remove the clip"
        )
    features = extractor(samples, sampling_rate=extractor.sampling_rate, return_tensors="np")
    array = features[extractor.model_input_names[0]][0].astype(np.float32, copy=False)
    if part is not None:
        array = part(array)
    # torch rounds as numpy does, in a thirtieth of its time.
    half = torch.from_numpy(array).half()
    if not np.isfinite(torch.aminmax(half)).all():
        mend = "scale the clip, or set do_normalize: true" if part is None else "set representation: input"
        raise StageError(f"{file}: {'samples' if part is None else 'states'} too large for float16; {mend}")
    return half.numpy()


def ordered(function: Callable[[A], B], items: Iterable[A], workers: int) -> Iterator[B]:
    """Map on threads, in order, with no more than two results a worker waiting: memory does not grow with the items."""
    with ThreadPoolExecutor(workers) as pool:
        items = iter(items)
        waiting = deque(pool.submit(function, item) for item in islice(items, 2 * workers))
        while waiting:
            yield waiting.popleft().result()
            waiting.extend(pool.submit(function, item) for item in islice(items, 1))


def write_dataset(folder: Path, key: str, labels: list[str], rows: Iterable[tuple[str, str, np.ndarray]]) -> None:
    """Write (clip, label, features) rows as `Dataset.save_to_disk` lays them out, but the same bytes every time.

    save_to_disk itself puts a fingerprint into state.json that changes with paths and code; DVC would see new data.
    """
    folder.mkdir()
    rows = iter(rows)
    first = next(rows)
    shape = first[2].shape
    if key in frozen.COLUMNS.values():
        shape = (None, shape[1])  # as many frames as the clip is long
    column = List(Value("float16")) if len(shape) == 1 else Array2D(shape, "float16")
    features = Features({"clip": Value("string"), "label": ClassLabel(names=labels), key: column})
    # One clip a batch: reading a clip touches its own bytes alone, and writing holds one in memory.
    with ArrowWriter(path=str(folder / SHARD), features=features, writer_batch_size=1) as writer:
        for row in chain([first], rows):
            if len(shape) == 2 and shape[0] is not None and row[2].shape != shape:
                raise StageError(
                    f"clip {row[0]}: a spectrogram of shape {row[2].shape}, the first has {shape}; choose a base model "
                    "whose feature extractor pads, such as Whisper or AST"
                )
            writer.write(dict(zip(features, row)))
        writer.finalize()
    DatasetInfo(features=features).write_to_directory(folder)
    state = {"_data_files": [{"filename": SHARD}], "_fingerprint": "encoded", "_split": None}
    form = {"_format_columns": None, "_format_kwargs": {}, "_format_type": None, "_output_all_columns": False}
    (folder / "state.json").write_text(json.dumps(state | form, indent=2) + "\n")


def main() -> None:
    params = load_params("resample_encode", Params)
    need(RAW / "clips.csv", BASE / "config.json")
    extractor = load_feature_extractor(BASE, params.feature_extractor)
    with (RAW / "clips.csv").open(newline="") as file:
        clips = list(csv.DictReader(file))
    labels = sorted({clip["label"] for clip in clips})
    kept = params.representation
    # On a GPU two are enough to keep it busy, and each holds a clip's activations there.
    many = os.cpu_count() or 1
    workers = params.workers or (min(2, many) if processor.device() == "cuda" and kept != "input" else many)
    config = json.loads((BASE / "config.json").read_text())
    shortest = audio.receptive_field(config.get("conv_kernel") or [], config.get("conv_stride") or [])
    part = None if kept == "input" else load_part(BASE, kept, params.precision)
    arrays = ordered(
        lambda clip: encode(RAW / clip["path"], extractor, params.max_seconds, shortest, part), clips, workers
    )
    rows = ((c["clip"], c["label"], a) for c, a in zip(clips, tqdm(arrays, "encode", len(clips), unit="clip")))
    with whole(ENCODED) as folder:
        write_dataset(folder, frozen.COLUMNS.get(kept, extractor.model_input_names[0]), labels, rows)
        extractor.save_pretrained(folder)
    megabytes = (ENCODED / SHARD).stat().st_size / 1e6
    print(f"{ENCODED}: {len(clips)} clips at {extractor.sampling_rate} Hz, {megabytes:.0f} MB")


if __name__ == "__main__":
    run(main, {"resample_encode": Params})
