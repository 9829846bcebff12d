"""Measure the finetuned model on the test split, and how far one gets without it.

Reads   params.yaml: evaluate, resample_encode.max_seconds; models/finetuned/; data/encoded/;
        data/splits.csv; data/raw/; metrics/train/; metrics/split.json
Writes  metrics/metrics.json: accuracy with its 95% interval, macro-F1, loss, calibration, baselines, and more per label
        metrics/predictions.csv: clip, label, prediction, and a probability per label
        metrics/confusion.csv: actual, predicted, one row per clip, as `dvc plots` wants it
        metrics/result.png: the learning curves, the confusion matrix and the reliability diagram
        metrics/report.html: a report to look at, with the worst errors to listen to
Run     python -m stages.evaluate (as a script it would hide the library of the same name)
"""

import json
from collections.abc import Iterator
from itertools import groupby, islice
from pathlib import Path
from typing import Any

from stages.common.repeatable import repeat

# isort: split
import numpy as np
import pandas as pd
import torch
from pydantic import Field
from tqdm import tqdm
from transformers import AutoModelForAudioClassification
from transformers.utils import logging

from stages.common import batches, frozen, intervals, pictures, processor, report, scores
from stages.common.baseline import baseline
from stages.common.stage import Number, Section, StageError, load_params, need, run, whole
from stages.common.tables import read_table

ENCODED = Path("data/encoded")
SPLITS = Path("data/splits.csv")
RAW = Path("data/raw")
FINETUNED = Path("models/finetuned")
METRICS = Path("metrics/metrics.json")
PREDICTIONS = Path("metrics/predictions.csv")
CONFUSION = Path("metrics/confusion.csv")
PICTURE = Path("metrics/result.png")
REPORT = Path("metrics/report.html")
SPLIT = Path("metrics/split.json")
EPOCHS = Path("metrics/train")


class Params(Section):
    threads: int | None = Field(ge=1)  # CPU threads; null takes them all, a number repeats to the byte
    batch_size: int = Field(ge=1)
    window_seconds: Number | None = Field(gt=0)  # a clip's windows are averaged; null takes the clip whole


def pieces(clips: batches.Clips, window: int | None) -> Iterator[tuple[int, tuple[np.ndarray, int]]]:
    """All windows of all clips: the clip's row, and (features, label id) as `batches.collate` takes them."""
    for row in range(len(clips)):
        features, label = clips[row]
        for piece in batches.cut(features, window):
            yield row, (piece, label)


@torch.inference_mode()
def predict(
    model: torch.nn.Module, encoded: batches.Encoded, clips: batches.Clips, window: int | None, batch_size: int
) -> tuple[np.ndarray, float]:
    """Probabilities of each clip, the mean over its windows: float64, shape (clips, labels); rows sum to 1.

    And the accuracy of the windows, each on its own.
    """
    totals = np.zeros((len(clips), len(encoded.labels)))
    right: list[bool] = []
    with tqdm(total=len(clips), desc="evaluate", unit="clip") as bar:
        # Only windows of one length share a batch: padding would make a clip's result depend on its neighbours.
        for _, alike in groupby(pieces(clips, window), key=lambda piece: piece[1][0].shape):
            while some := list(islice(alike, batch_size)):
                rows, windows = zip(*some)
                inputs = batches.collate(encoded, list(windows))
                logits = model(inputs[encoded.input].to(model.device)).logits.double().cpu()
                np.add.at(totals, list(rows), logits.softmax(-1).numpy())
                right += (logits.argmax(-1) == inputs["labels"]).tolist()
                bar.update(rows[-1] + 1 - bar.n)
    return totals / totals.sum(axis=1, keepdims=True), float(np.mean(right))


def predict_halving(
    model: torch.nn.Module, encoded: batches.Encoded, clips: batches.Clips, window: int | None, batch_size: int
) -> tuple[np.ndarray, float]:
    """As `predict`, with smaller batches where the GPU's memory cannot hold these.

    Raises:
        StageError: a single window does not fit.
    """
    while True:
        try:
            return predict(model, encoded, clips, window, batch_size)
        except torch.OutOfMemoryError:
            if batch_size == 1:
                raise StageError(
                    "params.yaml: evaluate.window_seconds: a single clip or window does not fit into memory; make it "
                    "shorter"
                ) from None
            batch_size //= 2
            print(f"out of memory: starting again with batches of {batch_size}", flush=True)
            torch.cuda.empty_cache()


def measure(
    probabilities: np.ndarray, actual: np.ndarray, groups: np.ndarray, labels: list[str], more: dict[str, Any]
) -> dict[str, Any]:
    """The content of metrics.json. What a person compares between runs are its numbers; `dvc exp show` skips its lists.

    Args:
        probabilities: float64 (clips, labels). actual: label ids, int64 (clips,).
        groups: of the split, one per clip, shape (clips,).
        more: what does not follow from these.
    """
    predicted = probabilities.argmax(axis=1)
    answers = {"predictions": predicted, "references": actual}
    reliability = scores.reliability(probabilities, actual)
    return {
        **scores.Accuracy(keep_in_memory=True).compute(**answers),
        **scores.MacroF1(keep_in_memory=True).compute(**answers),
        **scores.of_probabilities(probabilities, actual),
        "calibration_error": scores.calibration_error(reliability),
        **more,
        "n": len(actual),
        "accuracy_interval_95": intervals.accuracy_interval(predicted == actual, groups),
        "interval_of": "groups" if len(set(groups)) < len(groups) else "clips",
        "per_label": scores.per_label(actual, predicted, labels),
        "reliability": reliability,
    }


def rounded(value: Any) -> Any:
    """Six decimals everywhere, so that a last bit of arithmetic does not show as a change."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(item) for item in value]
    return round(value, 6) if isinstance(value, float) else value


def main() -> None:
    params = load_params("evaluate", Params)
    need(FINETUNED / "config.json", ENCODED, SPLITS, RAW / "clips.csv", EPOCHS, SPLIT)
    repeat(0, params.threads)
    logging.set_verbosity_error()
    encoded = batches.open_encoded(ENCODED)
    if len(encoded.labels) < 2:
        raise StageError(f"{ENCODED} has no label but {encoded.labels[0]}, which is always right; add clips of another")
    splits = read_table(SPLITS)
    rows = batches.take(encoded, splits, "test")
    model = AutoModelForAudioClassification.from_pretrained(FINETUNED, dtype=torch.float32, trust_remote_code=False)
    model.to(processor.device()).eval()
    window = batches.window_length(encoded, model, params.window_seconds, "evaluate.window_seconds")
    with frozen.stand_in(model, encoded.key):
        clips = batches.Clips(rows, encoded.key)
        probabilities, window_accuracy = predict_halving(model, encoded, clips, window, params.batch_size)
    if not np.isfinite(probabilities).all():
        raise StageError(f"{FINETUNED}: its answers are no numbers, training diverged; lower train.learning_rate")
    actual = np.array(rows["label"])
    more = {} if window is None else {"window_accuracy": window_accuracy}
    seconds = load_params("resample_encode.max_seconds", Number)
    more["baseline"] = baseline(RAW, read_table(RAW / "clips.csv"), splits, seconds, params.threads)
    more["selected_on"] = batches.selection_split(splits)
    groups = splits[splits["split"] == "test"].set_index("clip").loc[rows["clip"], "group"].to_numpy()
    metrics = measure(probabilities, actual, groups, encoded.labels, more)
    names = np.array(encoded.labels)
    outcome = pd.DataFrame(
        {"clip": rows["clip"], "label": names[actual], "prediction": names[probabilities.argmax(axis=1)]}
    )
    confusion = outcome.rename(columns={"label": "actual", "prediction": "predicted"})[["actual", "predicted"]]
    outcome = outcome.join(pd.DataFrame(probabilities.round(6), columns=encoded.labels))
    for path, table in ((PREDICTIONS, outcome), (CONFUSION, confusion)):
        with whole(path) as file:
            table.to_csv(file, index=False, lineterminator="\n")
    with whole(METRICS) as file:
        file.write_text(json.dumps(rounded(metrics), indent=2) + "\n")
    low, high = metrics["accuracy_interval_95"]
    told = f"accuracy {metrics['accuracy']:.3f} ({low:.2f} to {high:.2f}) on {metrics['n']} test clips"
    epochs = pictures.read_epochs(EPOCHS)
    with whole(PICTURE) as file:
        pictures.save_result(
            file, epochs, actual, probabilities.argmax(axis=1), encoded.labels, metrics["reliability"], told
        )
    with whole(REPORT) as file:
        split = json.loads(SPLIT.read_text())
        report.write_report(file, rounded(metrics), split, epochs, outcome, RAW)
    print(f"{METRICS}: {told}")
    print("without the model: " + ", ".join(f"{name} {value:.3f}" for name, value in metrics["baseline"].items()))


if __name__ == "__main__":
    run(main, {"evaluate": Params})
