"""Metrics as 🤗 Evaluate modules of the project's own: `evaluate.load` would fetch a script from the network."""

import datasets
import evaluate
import numpy as np
from scipy.stats import binomtest
from sklearn.metrics import accuracy_score, f1_score, precision_recall_fscore_support

FEATURES = datasets.Features({"predictions": datasets.Value("int64"), "references": datasets.Value("int64")})


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


def interval(correct: int, n: int) -> tuple[float, float]:
    """Wilson's 95% interval of an accuracy measured on n clips (Wilson, JASA 1927)."""
    bounds = binomtest(correct, n).proportion_ci(0.95, method="wilson")
    return float(bounds.low), float(bounds.high)
