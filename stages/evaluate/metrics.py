"""Metrics of the test clips. To add one, write a function and list it in METRIC_FUNCTIONS: report and card show it."""

from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.metrics import f1_score, log_loss, precision_recall_fscore_support, top_k_accuracy_score

from stages.evaluate.intervals import accuracy_interval

if TYPE_CHECKING:  # it imports torch, which tools do not need
    from stages.evaluate.prediction import Predictions

BINS = 10  # of the probability of the predicted label, of equal width
Row = dict[str, Any]


def accuracy(probabilities: np.ndarray, actual: np.ndarray) -> float:
    """Compute the share of correctly classified clips, with 🤗 Evaluate."""
    from stages.common.accuracy import Accuracy  # takes a second to import, which tools can do without

    result = Accuracy().compute(predictions=probabilities.argmax(axis=1), references=actual)
    return float(result["accuracy"])


def macro_f1(probabilities: np.ndarray, actual: np.ndarray) -> float:
    """Compute the mean over labels of F1, so that each label counts the same."""
    return mean_f1(actual, probabilities.argmax(axis=1))


def mean_f1(actual: np.ndarray, predicted: np.ndarray) -> float:
    """Compute macro-F1 over the labels that occur in `actual`. actual, predicted: ids or names, (clips,)."""
    return float(f1_score(actual, predicted, labels=np.unique(actual), average="macro"))


def cross_entropy(probabilities: np.ndarray, actual: np.ndarray) -> float:
    """Compute the mean cross-entropy, also called log loss."""
    return float(log_loss(actual, probabilities, labels=range(probabilities.shape[1])))


def top_2_accuracy(probabilities: np.ndarray, actual: np.ndarray) -> float:
    """Compute the share of clips whose label is among the two most probable."""
    labels = range(probabilities.shape[1])
    # With two labels, scikit-learn takes only the second column, and warns.
    return float(top_k_accuracy_score(actual, probabilities, k=2, labels=labels)) if len(labels) > 2 else 1.0


def calibration_error(probabilities: np.ndarray, actual: np.ndarray) -> float:
    """Compute the expected calibration error (Guo et al., 2017): the mean gap in `reliability`, over clips."""
    rows = [row for row in reliability(probabilities, actual) if row["n_clips"]]
    return sum(row["n_clips"] * abs(row["accuracy"] - row["confidence"]) for row in rows) / len(actual)


# Each takes probabilities, float64 (clips, labels), and label ids, int64 (clips,).
METRIC_FUNCTIONS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "accuracy": accuracy,
    "macro_f1": macro_f1,
    "log_loss": cross_entropy,
    "top_2_accuracy": top_2_accuracy,
    "calibration_error": calibration_error,
}


def reliability(probabilities: np.ndarray, actual: np.ndarray) -> list[Row]:
    """Compute accuracy by bins of the predicted label's probability (Guo et al., 2017).

    A probability on the edge of two bins counts in the lower one. Without clips, a bin's means are None.

    Args:
        probabilities: float64 (clips, labels). actual: label ids, int64 (clips,).
    """
    top = probabilities.max(axis=1).clip(max=1.0)  # rounding may exceed 1
    correct = probabilities.argmax(axis=1) == actual
    rows: list[Row] = []
    for low, high in pairwise(step / BINS for step in range(BINS + 1)):
        inside = (top > low) & (top <= high)
        confidence, share = (float(top[inside].mean()), float(correct[inside].mean())) if inside.any() else (None, None)
        rows.append(
            {"low": low, "high": high, "confidence": confidence, "accuracy": share, "n_clips": int(inside.sum())}
        )
    return rows


def per_label(actual: np.ndarray, predicted: np.ndarray, labels: list[str]) -> list[dict[str, float | int | str]]:
    """Compute precision, recall, F1 and number of clips of each label. actual, predicted: label ids, int64 (clips,)."""
    table = precision_recall_fscore_support(actual, predicted, labels=range(len(labels)), zero_division=0)
    return [
        {"label": label, "precision": float(precision), "recall": float(recall), "f1": float(f1), "n_clips": int(n)}
        for label, precision, recall, f1, n in zip(labels, *table)
    ]


def compare_with_baselines(accuracy: float, low: float, baselines: dict[str, float]) -> str:
    """Return whether the model beats the better baseline: "yes", "not significantly" or "no".

    Args:
        accuracy: of the model. low: lower end of its 95% interval.
    """
    best = max(baselines.values())
    if low > best:
        return "yes"
    return "not significantly" if accuracy > best else "no"


def measure(
    predictions: "Predictions",
    groups: np.ndarray,
    baselines: dict[str, float],
    selected_on: str,
    selection_accuracy: float,
    background: str | None = None,
) -> dict[str, Any]:
    """Compute the content of metrics.json. `dvc exp show` shows its numbers, in this order, and skips its lists.

    Args:
        groups: an id for each test clip, shape (clips,).
        baselines: accuracy of each. selected_on: the split that selected the best epoch. selection_accuracy: of this
            epoch on this split. background: a label that has no test clips.
    """
    probabilities, actual, predicted = predictions.probabilities, predictions.actual, predictions.predicted
    numbers = {name: function(probabilities, actual) for name, function in METRIC_FUNCTIONS.items()}
    if predictions.window_accuracy is not None:
        numbers["window_accuracy"] = predictions.window_accuracy
    low, high = accuracy_interval(predicted == actual, groups)
    beats_baselines = compare_with_baselines(numbers["accuracy"], low, baselines)
    return {
        "selection_accuracy": selection_accuracy,
        "accuracy": numbers.pop("accuracy"),
        "accuracy_low": low,
        "accuracy_high": high,
        **numbers,
        "baselines": baselines,
        "beats_baselines": beats_baselines,
        "selected_on": selected_on,
        "n_clips": len(actual),
        "n_groups": len(set(groups)),
        "interval_of": "groups" if len(set(groups)) < len(groups) else "clips",
        "per_label": [row for row in per_label(actual, predicted, predictions.labels) if row["label"] != background],
        "reliability": reliability(probabilities, actual),
    }


def round_floats(value: Any) -> Any:
    """Round all numbers to six decimals, so that a difference in the last bit does not show as a change."""
    if isinstance(value, dict):
        return {key: round_floats(item) for key, item in value.items()}
    if isinstance(value, list):
        return [round_floats(item) for item in value]
    return round(value, 6) if isinstance(value, float) else value
