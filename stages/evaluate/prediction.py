"""Classify the test and validation clips with the fine-tuned model."""

from collections.abc import Iterator
from contextlib import ExitStack
from itertools import groupby, islice
from queue import SimpleQueue
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm
from transformers import PreTrainedModel

from stages.common.answers import to_probabilities
from stages.common.architectures import use_cached_part
from stages.common.classifier import load_classifier
from stages.common.configs import load_config
from stages.common.device import copy_to_devices, find_devices, with_smaller_batches
from stages.common.encoded_clips import EncodedClips, collate, select_split
from stages.common.errors import UserError
from stages.common.paths import ENCODED, FINETUNED, SPLITS
from stages.common.threads import borrow, map_in_threads
from stages.common.windows import ClipDataset, cut_windows, window_length
from stages.evaluate.params import EvaluateParams

# Windows: the clip's row, and (features, label id) for `collate`.
Batch = list[tuple[int, tuple[np.ndarray, int]]]


class Logits(NamedTuple):
    """The model's output for the windows of some clips.

    clips: names. actual: label ids, int64 (clips,).
    rows: the clip of each window, int64 (windows,). values: float64 (windows, labels).
    """

    clips: list[str]
    actual: np.ndarray
    rows: np.ndarray
    values: np.ndarray

    def to_probabilities(self, temperature: float = 1.0) -> np.ndarray:
        """Average the probabilities of each clip's windows: float64 (clips, labels); rows sum to 1."""
        totals = np.zeros((len(self.clips), self.values.shape[1]))
        np.add.at(totals, self.rows, to_probabilities(self.values, temperature))
        return totals / totals.sum(axis=1, keepdims=True)

    def select(self, chosen: np.ndarray) -> "Logits":
        """Return those of some clips. chosen: bool (clips,)."""
        windows = chosen[self.rows]
        rows = (np.cumsum(chosen) - 1)[self.rows[windows]]
        clips = [clip for clip, is_chosen in zip(self.clips, chosen) if is_chosen]
        return Logits(clips, self.actual[chosen], rows, self.values[windows])

    @property
    def window_accuracy(self) -> float:
        """The accuracy of single windows."""
        return float(np.mean(self.values.argmax(axis=1) == self.actual[self.rows]))


class Predictions(NamedTuple):
    """The model's predictions of the test clips, without those of the background.

    clips: names. labels: names, in the order of ids. actual: label ids, int64 (clips,).
    probabilities: float64 (clips, labels); rows sum to 1.
    window_accuracy: accuracy of single windows; None if clips are not cut.
    """

    clips: list[str]
    labels: list[str]
    actual: np.ndarray
    probabilities: np.ndarray
    window_accuracy: float | None

    @property
    def predicted(self) -> np.ndarray:
        """Label ids, int64 (clips,)."""
        return self.probabilities.argmax(axis=1)

    def to_table(self) -> pd.DataFrame:
        """Return the content of predictions.csv: clip, label, prediction, and a probability for each label."""
        names = np.array(self.labels)
        table = pd.DataFrame({"clip": self.clips, "label": names[self.actual], "prediction": names[self.predicted]})
        return table.join(pd.DataFrame(self.probabilities.round(6), columns=self.labels))


def predict_splits(encoded: EncodedClips, splits: pd.DataFrame, params: EvaluateParams) -> dict[str, Logits]:
    """Load the fine-tuned model and classify the test clips and, if there are any, the validation clips.

    Returns:
        The logits by the name of the split.

    Raises:
        UserError: there is a single label, a window does not fit the clips, memory is too small, or training diverged.
    """
    if len(encoded.labels) < 2:
        raise UserError(f"the only label is {encoded.labels[0]}; add clips of another", file=ENCODED)
    names = [name for name in ("test", "validation") if name == "test" or (splits["split"] == name).any()]
    selected = {name: ClipDataset(select_split(encoded, splits, name)) for name in names}
    model = load_classifier(FINETUNED, load_config(FINETUNED), new_head=False).eval()
    window = window_length(encoded, model, params.window_seconds, "evaluate.window_seconds")
    models = copy_to_devices(model, find_devices())
    with ExitStack() as cached:
        for one in models:
            cached.enter_context(use_cached_part(one, encoded.cached_part))
        logits = with_smaller_batches(
            lambda size: {name: predict(models, encoded, clips, window, size) for name, clips in selected.items()},
            params.batch_size,
            "evaluate.window_seconds",
            "make it shorter",
        )
    if not all(np.isfinite(part.values).all() for part in logits.values()):
        raise UserError("its predictions are not numbers, training diverged; lower train.learning_rate", file=FINETUNED)
    return logits


def select_predictions(logits: Logits, encoded: EncodedClips, temperature: float, in_windows: bool) -> Predictions:
    """Return the predictions of the clips that are not of the background. logits: of the test clips.

    Raises:
        UserError: all of them are of the background.
    """
    chosen = np.array(encoded.labels)[logits.actual] != encoded.background
    if not chosen.any():
        raise UserError(f"all test clips are of the background {encoded.background}; add others", file=SPLITS)
    clips = logits.select(chosen)
    accuracy = clips.window_accuracy if in_windows else None
    return Predictions(clips.clips, encoded.labels, clips.actual, clips.to_probabilities(temperature), accuracy)


def predict(
    models: list[PreTrainedModel], encoded: EncodedClips, clips: ClipDataset, window: int | None, batch_size: int
) -> Logits:
    """Classify the windows of clips; those of a clip's segments belong to the clip.

    Args:
        models: copies of the model, one on each device; they share the batches.
        window: its length; None for complete clips.
    """
    free: SimpleQueue[PreTrainedModel] = SimpleQueue()
    for model in models:
        free.put(model)

    @torch.inference_mode()
    def classify(batch: Batch) -> tuple[list[int], np.ndarray]:
        rows, windows = zip(*batch)
        inputs = collate(encoded, list(windows))
        with borrow(free) as model:
            return list(rows), model(inputs[encoded.input_name].to(model.device)).logits.cpu().double().numpy()

    batches = _batches(clips, window, batch_size)
    # A single model needs no other thread.
    classified = map_in_threads(classify, batches, len(models)) if len(models) > 1 else map(classify, batches)
    rows: list[int] = []
    values: list[np.ndarray] = []
    with tqdm(total=len(clips), desc="evaluate", unit="clip") as bar:
        for numbers, logits in classified:
            rows += numbers
            values.append(logits)
            bar.update(numbers[-1] + 1 - bar.n)
    recordings = clips.clips.number_recordings()
    _, first = np.unique(recordings, return_index=True)
    names = [clips.clips.names[row] for row in first]
    return Logits(names, clips.clips.labels[first], recordings[rows], np.concatenate(values))


def _batches(clips: ClipDataset, window: int | None, size: int) -> Iterator[Batch]:
    """Yield batches of windows of the same length: with padding, a result would depend on the rest of the batch."""
    for _, same_length in groupby(_windows(clips, window), key=lambda item: item[1][0].shape):
        while batch := list(islice(same_length, size)):
            yield batch


def _windows(clips: ClipDataset, window: int | None) -> Iterator[tuple[int, tuple[np.ndarray, int]]]:
    """Yield all windows of all clips: the clip's row, and (features, label id) for `collate`."""
    for row in range(len(clips)):
        features, label = clips[row]
        for array in cut_windows(features, window):
            yield row, (array, label)
