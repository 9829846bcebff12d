"""Classify the test clips with the fine-tuned model."""

from collections.abc import Iterator
from itertools import groupby, islice
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from stages.common.architectures import use_cached_part
from stages.common.classifier import load_classifier
from stages.common.configs import load_config
from stages.common.device import find_device, with_smaller_batches
from stages.common.encoded_clips import EncodedClips, collate, select_split
from stages.common.errors import UserError
from stages.common.paths import ENCODED, FINETUNED
from stages.common.windows import ClipDataset, cut_windows, window_length
from stages.evaluate.params import EvaluateParams


class Predictions(NamedTuple):
    """The model's predictions of the test clips.

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


def predict_test_clips(encoded: EncodedClips, splits: pd.DataFrame, params: EvaluateParams) -> Predictions:
    """Load the fine-tuned model and classify the test clips.

    Raises:
        UserError: there is a single label, a window does not fit the clips, memory is too small, or training diverged.
    """
    if len(encoded.labels) < 2:
        raise UserError(f"the only label is {encoded.labels[0]}; add clips of another", file=ENCODED)
    clips = select_split(encoded, splits, "test")
    model = load_classifier(FINETUNED, load_config(FINETUNED), new_head=False).to(find_device()).eval()
    window = window_length(encoded, model, params.window_seconds, "evaluate.window_seconds")
    with use_cached_part(model, encoded.cached_part):
        probabilities, window_accuracy = with_smaller_batches(
            lambda batch_size: predict(model, encoded, ClipDataset(clips), window, batch_size),
            params.batch_size,
            "evaluate.window_seconds",
            "make it shorter",
        )
    if not np.isfinite(probabilities).all():
        raise UserError("its predictions are not numbers, training diverged; lower train.learning_rate", file=FINETUNED)
    accuracy = None if window is None else window_accuracy
    return Predictions(clips.names, encoded.labels, clips.labels, probabilities, accuracy)


@torch.inference_mode()
def predict(
    model: torch.nn.Module, encoded: EncodedClips, clips: ClipDataset, window: int | None, batch_size: int
) -> tuple[np.ndarray, float]:
    """Average the probabilities of each clip's windows.

    Returns:
        Probabilities, float64 (clips, labels), whose rows sum to 1, and the accuracy of single windows.
    """
    totals = np.zeros((len(clips), len(encoded.labels)))
    correct: list[bool] = []
    with tqdm(total=len(clips), desc="evaluate", unit="clip") as bar:
        # Batches of windows of the same length: with padding, a result would depend on the rest of the batch.
        for _, same_length in groupby(_windows(clips, window), key=lambda item: item[1][0].shape):
            while batch := list(islice(same_length, batch_size)):
                rows, windows = zip(*batch)
                inputs = collate(encoded, list(windows))
                logits = model(inputs[encoded.input_name].to(model.device)).logits.cpu().double()
                np.add.at(totals, list(rows), logits.softmax(-1).numpy())
                correct += (logits.argmax(-1) == inputs["labels"]).tolist()
                bar.update(rows[-1] + 1 - bar.n)
    return totals / totals.sum(axis=1, keepdims=True), float(np.mean(correct))


def _windows(clips: ClipDataset, window: int | None) -> Iterator[tuple[int, tuple[np.ndarray, int]]]:
    """Yield all windows of all clips: the clip's row, and (features, label id) for `collate`."""
    for row in range(len(clips)):
        features, label = clips[row]
        for array in cut_windows(features, window):
            yield row, (array, label)
