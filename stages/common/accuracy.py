"""Accuracy as a 🤗 Evaluate module. `evaluate.load("accuracy")` would download a script."""

from tempfile import TemporaryDirectory

import datasets
import evaluate
from sklearn.metrics import accuracy_score


class Accuracy(evaluate.Metric):
    """Compute the share of clips whose predicted label is correct. All data stay in memory."""

    def __init__(self) -> None:
        # Evaluate makes its folder also if nothing goes there. That in HOME, the default, may not be writable.
        with TemporaryDirectory() as folder:
            super().__init__(keep_in_memory=True, cache_dir=folder)

    def _info(self) -> evaluate.MetricInfo:
        ids = datasets.Value("int64")
        return evaluate.MetricInfo(
            description=self.__doc__ or "",
            citation="",
            features=datasets.Features({"predictions": ids, "references": ids}),
        )

    def _compute(self, predictions: list[int], references: list[int]) -> dict[str, float]:
        return {"accuracy": float(accuracy_score(references, predictions))}
