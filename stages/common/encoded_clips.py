"""Encoded clips as batches of tensors, whole or in windows."""

from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow.compute as pc
import torch
from datasets import Dataset, List, load_from_disk
from transformers import AutoFeatureExtractor

from stages.common import frozen
from stages.common.stage import StageError


class Encoded(NamedTuple):
    """data/encoded, opened: rows with clip, label (an id) and features; label names in the order of ids."""

    rows: Dataset
    labels: list[str]
    extractor: Any
    key: str  # the column of features: the model's input (input_values, input_features), or one of frozen.COLUMNS

    @property
    def input(self) -> str:
        """The name of the model's input."""
        return self.extractor.model_input_names[0]

    @property
    def part(self) -> str | None:
        """The part of the model whose output the features are; None where they are the model's input."""
        return next((part for part, column in frozen.COLUMNS.items() if column == self.key), None)


def open_encoded(folder: Path) -> Encoded:
    """Open the rows without reading them; float16 on disk comes out as float32."""
    rows = load_from_disk(folder).with_format("numpy")
    extractor = AutoFeatureExtractor.from_pretrained(folder, trust_remote_code=False)
    key = next((column for column in frozen.COLUMNS.values() if column in rows.column_names), None)
    return Encoded(rows, rows.features["label"].names, extractor, key or extractor.model_input_names[0])


def take(encoded: Encoded, splits: pd.DataFrame, split: str) -> Dataset:
    """The rows of one split, in the order of data/encoded."""
    wanted = set(splits.loc[splits["split"] == split, "clip"])
    clips = encoded.rows.data.column("clip").to_pylist()
    if lost := sorted(wanted - set(clips)):
        raise StageError(f"data/splits.csv lists clip {lost[0]}, data/encoded does not have it; run dvc repro")
    return encoded.rows.select([row for row, clip in enumerate(clips) if clip in wanted])


def selection_split(splits: pd.DataFrame) -> str:
    """The split on which the best epoch is chosen: validation where there is one, else test, as the course does."""
    return "validation" if (splits["split"] == "validation").any() else "test"


def window_length(encoded: Encoded, model: torch.nn.Module, seconds: float | None, key: str) -> int | None:
    """Length of a window in samples, or in frames where the feature encoder's output is cached; None for whole clips.

    Raises:
        StageError: the model takes spectrograms of one fixed size, the whole base model has seen the clips already, no
            clip is as long as the window, or the window is too short for the model.
    """
    if seconds is None:
        return None
    if encoded.part == "base":
        raise StageError(
            f"params.yaml: {key}: the base model's output is of whole clips, which cannot be cut; set it to null"
        )
    if encoded.part is None and not isinstance(encoded.rows.features[encoded.key], List):
        raise StageError(
            f"params.yaml: {key}: {type(encoded.extractor).__name__} makes a spectrogram of one fixed length of each "
            "clip, which cannot be cut; set it to null, and resample_encode.max_seconds for shorter clips"
        )
    rate = encoded.extractor.sampling_rate
    window = round(seconds * rate)
    frames = int(model._get_feat_extract_output_lengths(window))
    window = frames if encoded.part else window
    chunks = encoded.rows.data.column(encoded.key).chunks
    longest = max(pc.max(pc.list_value_length(getattr(chunk, "storage", chunk))).as_py() for chunk in chunks)
    if window > longest:
        told = longest * seconds / window if encoded.part else longest / rate
        raise StageError(
            f"params.yaml: {key}: {seconds} s is longer than every clip (at most {told:.3g} s); "
            "make it shorter, or null for whole clips"
        )
    if frames < 1:
        raise StageError(f"params.yaml: {key}: {seconds} s is shorter than one frame; make it longer")
    return window


class Clips(torch.utils.data.Dataset):
    """Clips of one split for a data loader: a fresh random window of each, or the whole clip where window is None."""

    def __init__(self, rows: Dataset, key: str, window: int | None = None):
        self.rows, self.key, self.window = rows, key, window

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        """Features, float32, shape (samples,), (bins, frames) or cached (frames, channels), and the label's id."""
        row = self.rows[index]
        array = row[self.key]
        if self.window is not None and len(array) > self.window:
            # torch's generator, since the Trainer seeds it, in every worker too.
            start = int(torch.randint(len(array) - self.window + 1, ()))
            array = array[start : start + self.window]
        return array, int(row["label"])


def alike(clips: Clips, batch_size: int) -> list[list[int]]:
    """Indices of all clips in batches, each of clips of one length."""
    shapes = [clips[index][0].shape for index in range(len(clips))]
    order = sorted(range(len(clips)), key=shapes.__getitem__)
    same = [list(group) for _, group in groupby(order, key=shapes.__getitem__)]
    return [group[start : start + batch_size] for group in same for start in range(0, len(group), batch_size)]


def collate(encoded: Encoded, clips: list[tuple[np.ndarray, int]]) -> dict[str, torch.Tensor]:
    """Stack clips or windows, with zeros after the shorter ones.

    An attention mask goes along only where something was padded and the feature extractor wants one: without a mask,
    attention keeps its fast path.

    Returns:
        The model's input, float32 (batch, ...), labels int64 (batch,), and perhaps attention_mask (batch, samples).
    """
    arrays, labels = zip(*clips)
    if len({array.shape for array in arrays}) == 1:
        tensors = {encoded.input: torch.from_numpy(np.stack(arrays))}
    elif encoded.part:
        # The shortest sets the length: a mask would have to count samples, of which nothing is left here.
        frames = min(len(array) for array in arrays)
        tensors = {encoded.input: torch.from_numpy(np.stack([array[:frames] for array in arrays]))}
    else:
        masked = encoded.extractor.return_attention_mask
        tensors = encoded.extractor.pad(
            {encoded.input: list(arrays)}, padding=True, return_attention_mask=masked, return_tensors="pt"
        )
    return {**tensors, "labels": torch.tensor(labels)}


def cut(array: np.ndarray, window: int | None) -> list[np.ndarray]:
    """All of a clip in windows side by side; the last one reaches back so that it is as long as the others."""
    if window is None or len(array) <= window:
        return [array]
    starts = [*range(0, len(array) - window, window), len(array) - window]
    return [array[start : start + window] for start in starts]
