"""Metrics as 🤗 Evaluate modules of the project's own: `evaluate.load` would fetch a script from the network."""

from itertools import pairwise

import datasets
import evaluate
import numpy as np
from sklearn.metrics import (
    accuracy_score,
    f1_score,
    log_loss,
    precision_recall_fscore_support,
    top_k_accuracy_score,
)

FEATURES = datasets.Features({"predictions": datasets.Value("int64"), "references": datasets.Value("int64")})
BINS = 10  # of the top probability, of equal width


def _info(description: str) -> evaluate.MetricInfo:
    return evaluate.MetricInfo(description=description, citation="", features=FEATURES)


class Accuracy(evaluate.Metric):
    """The share of clips that got their own label."""

    def _info(self) -> evaluate.MetricInfo:
        return _info(self.__doc__)

    def _compute(self, predictions: list[int], references: list[int]) -> dict[str, float]:
        return {"accuracy": float(accuracy_score(references, predictions))}


class MacroF1(evaluate.Metric):
    """The mean over labels of the harmonic mean of precision and recall: each label counts the same."""

    def _info(self) -> evaluate.MetricInfo:
        return _info(self.__doc__)

    def _compute(self, predictions: list[int], references: list[int]) -> dict[str, float]:
        labels = sorted(set(references))
        return {"macro_f1": float(f1_score(references, predictions, labels=labels, average="macro", zero_division=0))}


def per_label(actual: np.ndarray, predicted: np.ndarray, labels: list[str]) -> list[dict[str, float | int | str]]:
    """Precision, recall, F1 and number of clips of every label. actual, predicted: label ids, int (clips,)."""
    ids = range(len(labels))
    table = precision_recall_fscore_support(actual, predicted, labels=ids, zero_division=0)
    names = ("precision", "recall", "f1", "n")
    return [
        {"label": label, **{name: float(v) if name != "n" else int(v) for name, v in zip(names, values)}}
        for label, *values in zip(labels, *table)
    ]


def of_probabilities(probabilities: np.ndarray, actual: np.ndarray) -> dict[str, float]:
    """Log loss, and the share of clips whose own label is among the two likeliest.

    probabilities: float64 (clips, labels), at least two labels; actual: label ids, int (clips,).
    """
    ids = range(probabilities.shape[1])
    return {
        "loss": float(log_loss(actual, probabilities, labels=ids)),
        # Of two labels, scikit-learn would take the second column alone, and warn.
        "top_2_accuracy": float(top_k_accuracy_score(actual, probabilities, k=2, labels=ids)) if len(ids) > 2 else 1.0,
    }


def reliability(probabilities: np.ndarray, actual: np.ndarray) -> list[dict[str, float | int | None]]:
    """How often clips of about one top probability are right: a row per bin; None where a bin has no clip.

    A probability on the edge of two bins counts in the lower one (Guo et al., On Calibration of Modern Neural Networks,
    2017). probabilities: float64 (clips, labels); actual: label ids, int (clips,).
    """
    top = probabilities.max(axis=1).clip(max=1.0)  # a sum's last bit may lie above
    right = probabilities.argmax(axis=1) == actual
    rows = []
    for low, high in pairwise(step / BINS for step in range(BINS + 1)):
        inside = (top > low) & (top <= high)
        means = (float(top[inside].mean()), float(right[inside].mean())) if inside.any() else (None, None)
        rows.append(dict(zip(("low", "high", "confidence", "accuracy", "n"), (low, high, *means, int(inside.sum())))))
    return rows


def calibration_error(rows: list[dict[str, float | int | None]]) -> float:
    """The expected calibration error (Guo et al., 2017): the mean gap in `reliability`, over clips."""
    gaps = [row["n"] * abs(row["accuracy"] - row["confidence"]) for row in rows if row["n"]]
    return sum(gaps) / sum(row["n"] for row in rows)
