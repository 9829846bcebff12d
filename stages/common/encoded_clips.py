"""The format of data/encoded: a data set for `datasets.load_from_disk`, written and read."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from datasets import Array2D, ClassLabel, Dataset, DatasetInfo, Features, List, Value, load_from_disk
from datasets.arrow_writer import ArrowWriter

from stages.common.configs import load_extractor
from stages.common.errors import UserError, damaged, reading
from stages.common.paths import SPLITS
from stages.common.tables import read_json, write_json

# Rows in a file of data/encoded; 256 clips of 30 s have 250 MB. The segments of a clip are in one file.
SHARD_CLIPS = 256
SETTINGS = "encoding.json"
# The column that holds the cached output of a part of the model, by Transformers' name for that output.
CACHE_COLUMNS = {"feature_encoder": "extract_features", "base": "last_hidden_state", "layers": "hidden_states"}


class EncodedClips(NamedTuple):
    """data/encoded, opened.

    rows: clip, label (an id) and the features of each clip. A clip in segments has a row for each, with its start in
        seconds.
    labels: names, in the order of ids.
    extractor: the feature extractor.
    feature_column: the model's input (input_values, input_features), or one of CACHE_COLUMNS.
    settings: the params that the clips were encoded with, and the background if there is one.
    """

    rows: Dataset
    labels: list[str]
    extractor: Any
    feature_column: str
    settings: dict[str, Any]

    @property
    def input_name(self) -> str:
        """The name of the model's input."""
        return self.extractor.model_input_names[0]

    @property
    def cached_part(self) -> str | None:
        """The part of the model whose output is cached; None if the features are the model's input."""
        return next((part for part, column in CACHE_COLUMNS.items() if column == self.feature_column), None)

    @property
    def background(self) -> str | None:
        """The label of clips that have none of the others, which are left out of accuracies; None: there is none."""
        return self.settings.get("background")

    def drop_background(self, splits: pd.DataFrame) -> pd.DataFrame:
        """Return the rows of splits.csv whose label is not the background."""
        return splits[splits["label"] != self.background]


def describe_features(column: str, labels: list[str], row: tuple[Any, ...]) -> Features:
    """Return the columns of data/encoded. row: the first, as `Encoder.encode` yields it."""
    array = row[-1]
    shape: tuple[int | None, ...] = array.shape
    if column in CACHE_COLUMNS.values():
        shape = (None, shape[1])  # the number of frames depends on the clip's length
    feature = List(Value("float16")) if len(shape) == 1 else Array2D(shape, "float16")
    start = {"start": Value("float64")} if len(row) > 3 else {}
    return Features({"clip": Value("string"), "label": ClassLabel(names=labels), **start, column: feature})


def cut_shards(rows: Sequence[int]) -> dict[str, slice]:
    """Return the files of data/encoded by name, as Datasets names them, with the clips of each.

    Args:
        rows: number of rows of each clip.
    """
    starts, size = [0], 0
    for clip, number in enumerate(rows):
        if size >= SHARD_CLIPS:
            starts.append(clip)
            size = 0
        size += number
    ends = [*starts[1:], len(rows)]
    return {
        f"data-{number:05d}-of-{len(starts):05d}.arrow": slice(*clips) for number, clips in enumerate(zip(starts, ends))
    }


def write_shard(file: Path, features: Features, rows: Iterable[tuple[Any, ...]]) -> None:
    """Write rows, as `Encoder.encode` yields them, as a file of data/encoded, with the same bytes every time.

    Raises:
        UserError: a spectrogram has another shape than `features`.
    """
    column = list(features)[-1]
    shape = getattr(features[column], "shape", (None,))
    # Batches of one clip: reading a clip touches its own bytes only, and writing holds one in memory.
    with ArrowWriter(path=str(file), features=features, writer_batch_size=1) as writer:
        for row in rows:
            if shape[0] is not None and row[-1].shape != tuple(shape):
                raise UserError(
                    f"clip {row[0]}: its spectrogram has the shape {row[-1].shape}, the first has {tuple(shape)}; "
                    "choose a base model whose feature extractor pads, such as Whisper or AST"
                )
            writer.write(dict(zip(features, row)))
        writer.finalize()


def write_description(folder: Path, features: Features, shards: Iterable[str], settings: dict[str, Any]) -> None:
    """Write what `Dataset.save_to_disk` writes beside the shards, with the same bytes every time.

    save_to_disk itself puts a fingerprint into state.json that changes with paths and code; DVC would see new data.
    """
    DatasetInfo(features=features).write_to_directory(folder)
    files = [{"filename": name} for name in shards]
    state = {"_data_files": files, "_fingerprint": "encoded", "_split": None}
    form: dict[str, Any] = {
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
    }
    (folder / "state.json").write_text(json.dumps(state | form, indent=2) + "\n")
    write_json(folder / SETTINGS, settings)


def open_encoded_clips(folder: Path) -> EncodedClips:
    """Open the rows without reading their features.

    Raises:
        UserError: a file is missing or damaged.
    """
    with reading(folder):
        rows = load_from_disk(folder)
        rows.data.validate(full=True)  # offsets that point outside the file would end the process
    extractor = load_extractor(folder)
    cached = next((column for column in CACHE_COLUMNS.values() if column in rows.column_names), None)
    column = cached or extractor.model_input_names[0]
    if reason := _find_damage(rows, column):
        raise damaged(folder, reason)
    return EncodedClips(rows, rows.features["label"].names, extractor, column, read_json(folder / SETTINGS))


def _find_damage(rows: Dataset, column: str) -> str | None:
    """Return what is wrong with the rows of data/encoded, or None."""
    if missing := [name for name in ("clip", "label", column) if name not in rows.column_names]:
        return f"it has no column {missing[0]}"
    names = getattr(rows.features["label"], "names", None)
    clips, labels = rows.data.column("clip").to_pylist(), rows.data.column("label").to_pylist()
    if unnamed := [label for label in labels if label is None or label not in range(len(names or ()))]:
        return f"label {unnamed[0]} is none of {names}"
    starts = rows.data.column("start").to_pylist() if "start" in rows.column_names else [0.0] * len(clips)
    if not len(set(zip(clips, starts))) == len(clips) > 0:
        return "it has no clips, or one twice"
    return None if rows.data.column(column).num_chunks == len(clips) else "a record batch has several clips"


class Clips(NamedTuple):
    """Some clips: names, label ids, int64 (clips,), and the features of each (see `StoredFeatures`).

    A clip in segments has an item for each, with the same name.
    """

    names: list[str]
    labels: np.ndarray
    features: Sequence[np.ndarray]

    def number_recordings(self) -> np.ndarray:
        """Return a number from 0 for each item, int64 (items,): the same for the segments of one clip."""
        numbers = {name: number for number, name in enumerate(dict.fromkeys(self.names))}
        return np.array([numbers[name] for name in self.names])


class StoredFeatures(Sequence[np.ndarray]):
    """Features of some rows of data/encoded: float16, (samples,), (bins, frames) or cached (frames, channels).

    An item is a view of the mapped file, so a window of it reads no other samples. Through `datasets`, each clip would
    be copied, which takes a hundred times as long.
    """

    def __init__(self, rows: Dataset, column: str, numbers: Sequence[int]) -> None:
        chunks = rows.data.column(column).chunks  # one for each clip; the column itself would search for the chunk
        self.cells = [chunks[number] for number in numbers]

    def __len__(self) -> int:
        return len(self.cells)

    def __getitem__(self, index: Any) -> Any:
        """Return the features of one clip."""
        cell = self.cells[index][0]
        values = getattr(cell, "value", cell).values  # Array2D is an extension type around lists of lists
        if not isinstance(values, pa.ListArray):
            return values.to_numpy()
        return values.flatten().to_numpy().reshape(len(values), -1)


def select_split(encoded: EncodedClips, splits: pd.DataFrame, split: str) -> Clips:
    """Return the clips of one split, in the order of data/encoded.

    Raises:
        UserError: data/splits.csv has no clip of the split, or data/encoded has other clips or labels.
    """
    chosen = splits[splits["split"] == split]
    if chosen.empty:
        raise damaged(SPLITS, f"no clip is in {split}")
    wanted = dict(zip(chosen["clip"], chosen["label"]))
    names = encoded.rows.data.column("clip").to_pylist()
    if missing := sorted(wanted.keys() - set(names)):
        raise UserError(f"data/splits.csv lists clip {missing[0]}, data/encoded does not have it; run dvc repro")
    numbers = [number for number, name in enumerate(names) if name in wanted]
    labels, selected = encoded.rows.data.column("label").to_numpy()[numbers], [names[number] for number in numbers]
    for name, label in zip(selected, labels):
        if encoded.labels[label] != wanted[name]:
            raise UserError(
                f"clip {name} has the label {wanted[name]} in data/splits.csv, {encoded.labels[label]} in "
                "data/encoded; run dvc repro"
            )
    return Clips(selected, labels, StoredFeatures(encoded.rows, encoded.feature_column, numbers))


def collate(encoded: EncodedClips, clips: list[tuple[np.ndarray, int]]) -> dict[str, torch.Tensor]:
    """Stack clips or windows, padded with zeros to the length of the longest.

    There is an attention mask only if something was padded and the feature extractor wants one: without a mask,
    attention can use its fast kernel.

    Returns:
        The model's input, float32 (batch, ...), labels int64 (batch,), and perhaps attention_mask (batch, samples).
    """
    arrays, labels = zip(*clips)
    if len({array.shape for array in arrays}) == 1:
        tensors = {encoded.input_name: torch.from_numpy(np.stack(arrays))}
    elif encoded.cached_part:
        # Cut to the shortest: a mask would have to count samples, which the cached output no longer has.
        frames = min(len(array) for array in arrays)
        tensors = {encoded.input_name: torch.from_numpy(np.stack([array[:frames] for array in arrays]))}
    else:
        masked = encoded.extractor.return_attention_mask
        tensors = encoded.extractor.pad(
            {encoded.input_name: list(arrays)}, padding=True, return_attention_mask=masked, return_tensors="pt"
        )
    return {**tensors, "labels": torch.tensor(labels)}
