"""Classify the clips that selected the best epoch, so that runs can be compared without the test clips."""

import numpy as np
import pandas as pd

from stages.common.encoded_clips import Clips
from stages.train.callbacks import Bar
from stages.train.loss import average_segments
from stages.train.trainer import ClipTrainer


def predict_selecting(
    trainer: ClipTrainer, clips: Clips, labels: list[str], recordings: np.ndarray | None
) -> pd.DataFrame:
    """Classify clips with the weights of the best epoch, which the trained model has now.

    Args:
        clips: those that selected the epoch. labels: names, in the order of ids.
        recordings: as for `compute_metrics`.

    Returns:
        clip, label and prediction, a row for each clip.
    """
    trainer.remove_callback(Bar)
    trainer.saved_step = trainer.state.global_step  # a signal must not save these weights as those of the last step
    outcome = trainer.evaluation_loop(trainer.get_eval_dataloader(), "selection")
    logits, actual, names = outcome.predictions, np.asarray(outcome.label_ids), clips.names
    if recordings is not None:
        first = np.unique(recordings, return_index=True)[1]
        logits, actual, names = average_segments(logits, recordings), actual[first], [names[row] for row in first]
    predicted = np.argmax(logits, axis=1)
    columns = {"label": [labels[number] for number in actual], "prediction": [labels[number] for number in predicted]}
    return pd.DataFrame({"clip": list(names)} | columns)
