"""Set a temperature and a threshold on the validation clips, and measure the answers to the test clips."""

import math
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.optimize import minimize_scalar

from stages.common.answers import Answering, is_answered, score_labels
from stages.evaluate.metrics import calibration_error, cross_entropy
from stages.evaluate.params import EvaluateParams

if TYPE_CHECKING:  # it imports torch
    from stages.evaluate.prediction import Logits

MAX_TEMPERATURE = 10.0  # and the smallest is its inverse: few clips that are all correct would lead to 0
DIGITS = 6  # decimals of temperature and threshold
CURVE_ROWS = 20  # shares of clips at which the accuracy of answers is computed: 5%, 10%, ...


def fit_temperature(logits: "Logits") -> float:
    """Return the temperature with the lowest cross-entropy (Guo et al., 2017), with DIGITS decimals."""
    rows = np.arange(len(logits.clips))

    def loss(logarithm: float) -> float:
        of_actual = logits.to_probabilities(math.exp(logarithm))[rows, logits.actual]
        return float(-np.log(of_actual.clip(min=np.finfo(float).tiny)).mean())

    end = math.log(MAX_TEMPERATURE)
    best = minimize_scalar(loss, bounds=(-end, end), method="bounded", options={"xatol": 1e-7})
    temperature = round(math.exp(best.x), DIGITS)
    return temperature if loss(math.log(temperature)) < loss(0.0) else 1.0


def round_up(probability: float) -> float:
    """Round up to DIGITS decimals, at most to 1, so that a larger probability is still larger than the result."""
    return min(math.ceil(probability * 10**DIGITS) / 10**DIGITS, 1.0)


def choose_threshold(
    scores: np.ndarray,
    correct: np.ndarray,
    background: np.ndarray,
    max_background: float | None,
    min_accuracy: float | None,
) -> float | None:
    """Return the smallest threshold, that is the most answers, that satisfies both limits; None if none is needed.

    Args:
        scores: as `score_labels` returns them, of clips of the labels. correct: whether they are classified correctly,
            bool of the same shape. background: scores of clips of the background, or none.
        max_background: largest share of the background that may be above the threshold; None: any.
        min_accuracy: smallest accuracy of the clips above the threshold; None: any. If no threshold reaches it, it is
            ignored, with a warning.
    """
    lowest = 0.0
    if max_background is not None and len(background):
        allowed = math.floor(max_background * len(background) + 1e-9)
        lowest = round_up(np.sort(background)[::-1][allowed]) if allowed < len(background) else 0.0
    if min_accuracy is not None:
        candidates = [lowest, *(round_up(score) for score in np.unique(scores) if score > lowest)]
        for threshold in candidates:
            above = scores > threshold
            if above.any() and correct[above].mean() >= min_accuracy:
                return threshold or None
        print(f"warning: no threshold gives an accuracy of {min_accuracy} on the validation clips, so it is ignored")
    return lowest or None


def set_answering(
    logits: "Logits | None", labels: list[str], background: str | None, params: EvaluateParams
) -> tuple[Answering, dict[str, int]]:
    """Set temperature and threshold.

    Args:
        logits: of the validation clips; None if there are none, and then nothing is set.

    Returns:
        How the model answers, and for metrics.json the number of clips that it was set on.
    """
    if logits is None:
        return Answering(background=background), {"validation_clips": 0, "validation_background_clips": 0}
    is_background = np.array(labels)[logits.actual] == background
    numbers = {"validation_clips": int((~is_background).sum()), "validation_background_clips": int(is_background.sum())}
    temperature = fit_temperature(logits) if params.calibrate else 1.0
    probabilities = logits.to_probabilities(temperature)
    scores = score_labels(probabilities, labels, background)
    correct = probabilities.argmax(axis=1) == logits.actual
    threshold = choose_threshold(
        scores[~is_background],
        correct[~is_background],
        scores[is_background],
        params.max_background,
        params.min_answered_accuracy,
    )
    return Answering(temperature, threshold, background), numbers


def trace_answers(scores: np.ndarray, correct: np.ndarray, background: np.ndarray) -> list[dict[str, float]]:
    """Compute the accuracy of answers by the share of clips that get one, in rows with more and more answers.

    Args:
        scores: as `score_labels` returns them, of clips of the labels. correct: bool of the same shape. background:
            scores of clips of the background, or none.

    Returns:
        threshold; coverage: share of the clips above it; accuracy of these; and, with a background, let_through: share
        of its clips above it.
    """
    order = np.sort(scores)[::-1]
    numbers = [math.ceil(len(scores) * row / CURVE_ROWS) for row in range(1, CURVE_ROWS)]
    thresholds = [float(order[number]) for number in numbers if number < len(order)] + [0.0]
    rows: list[dict[str, float]] = []
    for before, threshold in pairwise([math.inf, *thresholds]):
        above = scores > threshold
        if threshold == before or not above.any():
            continue
        row = {"threshold": threshold, "coverage": float(above.mean()), "accuracy": float(correct[above].mean())}
        rows.append(row | ({"let_through": float((background > threshold).mean())} if len(background) else {}))
    return rows


def measure_answers(logits: "Logits", labels: list[str], answering: Answering) -> dict[str, Any]:
    """Compute what metrics.json has about the answers to the test clips. logits: also of the background's clips."""
    names, background = np.array(labels), answering.background
    is_background = names[logits.actual] == background
    probabilities = logits.to_probabilities(answering.temperature)
    scores, predicted = score_labels(probabilities, labels, background), probabilities.argmax(axis=1)
    correct, above = predicted == logits.actual, is_answered(probabilities, labels, answering)
    answered, through = above & ~is_background, above & is_background
    clips = logits.select(~is_background)
    before = clips.to_probabilities()
    measured = answering._asdict() | {
        "coverage": float(answered.sum() / (~is_background).sum()),
        "accuracy": float(correct[answered].mean()) if answered.any() else None,
        "log_loss_before": cross_entropy(before, clips.actual),
        "calibration_error_before": calibration_error(before, clips.actual),
        "background_clips": int(is_background.sum()),
        "let_through": float(through.sum() / is_background.sum()) if is_background.any() else None,
    }
    labels_through, counts = np.unique(names[predicted[through]], return_counts=True)
    return measured | {
        "let_through_as": [{"label": str(label), "n_clips": int(n)} for label, n in zip(labels_through, counts)],
        "curve": trace_answers(scores[~is_background], correct[~is_background], scores[is_background]),
    }
