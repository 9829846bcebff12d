"""Temperature, threshold and the curve of answers."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from stages.common.answers import Answering
from stages.evaluate.calibration import (
    MAX_TEMPERATURE,
    choose_threshold,
    fit_temperature,
    measure_answers,
    set_answering,
    trace_answers,
)
from stages.evaluate.metrics import cross_entropy
from stages.evaluate.params import EvaluateParams
from stages.evaluate.prediction import Logits

LABELS = ["a", "b", "noise"]
SCORES = arrays(np.float64, st.integers(1, 60), elements=st.floats(0, 1))


def make_logits(values: np.ndarray, actual: np.ndarray) -> Logits:
    """One window for each clip."""
    rows = np.arange(len(actual))
    return Logits([f"{row}" for row in rows], actual, rows, values)


@st.composite
def draw_logits(draw: st.DrawFn) -> Logits:
    """Clips with one to three windows each."""
    actual = draw(arrays(np.int64, st.integers(1, 20), elements=st.integers(0, 2)))
    rows = np.repeat(np.arange(len(actual)), draw(st.integers(1, 3)))
    values = draw(arrays(np.float64, (len(rows), 3), elements=st.floats(-30, 30)))
    return make_logits(values[: len(actual)], actual)._replace(rows=rows, values=values)


@pytest.mark.slow
@settings(deadline=None, max_examples=30)
@given(draw_logits())
def test_temperature_never_makes_the_loss_worse(logits: Logits) -> None:
    temperature = fit_temperature(logits)
    assert 1 / MAX_TEMPERATURE <= temperature <= MAX_TEMPERATURE
    after, before = (cross_entropy(logits.to_probabilities(value), logits.actual) for value in (temperature, 1.0))
    assert after <= before + 1e-9


def test_temperature_of_overconfident_logits_is_found() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(20_000, 3))
    chances = np.exp(values) / np.exp(values).sum(axis=1, keepdims=True)
    actual = (rng.random((len(values), 1)) > chances.cumsum(axis=1)).sum(axis=1).clip(max=2)
    assert fit_temperature(make_logits(2.5 * values, actual)) == pytest.approx(2.5, rel=0.05)


@pytest.mark.slow
@given(SCORES, SCORES, st.floats(0, 1), st.none() | st.floats(0, 1))
def test_threshold_satisfies_its_limits(
    scores: np.ndarray, background: np.ndarray, share: float, min_accuracy: float | None
) -> None:
    correct = np.arange(len(scores)) % 3 > 0
    threshold = choose_threshold(scores, correct, background, share, min_accuracy) or 0.0
    assert 0 <= threshold <= 1
    assert (background > threshold).mean() <= share + 1e-9
    if min_accuracy is None and threshold:
        assert (background > threshold - 2e-6).mean() > share  # a smaller one would let through too much


def test_threshold_of_examples() -> None:
    scores, correct = np.array([0.9, 0.8, 0.7, 0.6]), np.array([True, True, False, True])
    none = np.array([])
    assert choose_threshold(scores, correct, none, 0.05, None) is None
    assert choose_threshold(scores, correct, np.array([0.1, 0.65, 0.75]), 0.34, None) == 0.65
    assert choose_threshold(scores, correct, np.array([0.1, 0.65, 0.75]), 0.05, None) == 0.75
    assert choose_threshold(scores, correct, np.array([0.5]), None, None) is None
    assert choose_threshold(scores, correct, none, None, 0.75) is None  # three of four are correct
    assert choose_threshold(scores, correct, none, None, 0.8) == 0.7
    assert choose_threshold(scores, correct, np.array([0.85]), 0.0, 0.8) == 0.85


def test_accuracy_that_no_threshold_reaches_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    assert choose_threshold(np.array([0.9, 0.8]), np.array([False, True]), np.array([]), None, 0.9) is None
    assert "no threshold gives an accuracy of 0.9" in capsys.readouterr().out


@pytest.mark.slow
@given(SCORES, SCORES | st.just(np.array([])))
def test_curve_rises_with_coverage(scores: np.ndarray, background: np.ndarray) -> None:
    correct = np.arange(len(scores)) % 2 > 0
    rows = trace_answers(scores, correct, background)
    for row, following in pairwise(rows):
        assert row["threshold"] > following["threshold"]
        assert row["coverage"] <= following["coverage"]
        assert row.get("let_through", 0) <= following.get("let_through", 0)
    for row in rows:
        above = scores > row["threshold"]
        assert (row["coverage"], row["accuracy"]) == (above.mean(), correct[above].mean())
        assert ("let_through" in row) == (len(background) > 0)
    assert (rows[-1]["coverage"] if rows else 0) == (scores > 0).mean()


def test_answers_are_counted() -> None:
    """Four clips of labels: correct, wrong, below the threshold, taken for noise. Three of noise: one gets a label."""
    values = np.log(
        [
            [0.8, 0.1, 0.1],
            [0.8, 0.1, 0.1],
            [0.4, 0.3, 0.3],
            [0.1, 0.1, 0.8],
            [0.7, 0.1, 0.2],
            [0.1, 0.4, 0.5],
            [0.4, 0.35, 0.25],
        ]
    )
    logits = make_logits(values, np.array([0, 1, 0, 0, 2, 2, 2]))
    found = measure_answers(logits, LABELS, Answering(1.0, 0.5, "noise"))
    assert (found["coverage"], found["accuracy"], found["background_clips"]) == (0.5, 0.5, 3)
    assert found["let_through"] == pytest.approx(1 / 3)
    assert found["let_through_as"] == [{"label": "a", "n_clips": 1}]
    assert found["curve"][-1]["coverage"] == 0.75
    assert found["log_loss_before"] == pytest.approx(-np.log([0.8, 0.1, 0.4, 0.1]).mean())
    other = measure_answers(logits, LABELS, Answering())
    assert (other["coverage"], other["let_through"], other["background_clips"]) == (1.0, None, 0)


def test_without_validation_clips_nothing_is_set() -> None:
    assert set_answering(None, LABELS, "noise", EvaluateParams()) == (
        Answering(background="noise"),
        {"validation_clips": 0, "validation_background_clips": 0},
    )


def test_limits_use_the_probabilities_after_the_temperature() -> None:
    values = np.array([[9.0, 0, 0], [9, 0, 0], [9, 0, 0], [0, 9, 0], [0, 0, 9], [5, 0, 0]])
    logits = make_logits(values, np.array([0, 0, 1, 1, 2, 2]))
    answering, numbers = set_answering(logits, LABELS, "noise", EvaluateParams())
    assert numbers == {"validation_clips": 4, "validation_background_clips": 2}
    assert answering.temperature > 1
    assert answering.threshold == pytest.approx(logits.to_probabilities(answering.temperature)[5, 0], abs=2e-6)
    params = EvaluateParams(calibrate=False, max_background=None)
    assert set_answering(logits, LABELS, "noise", params)[0] == Answering(background="noise")
