import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from stages.common import scores


@st.composite
def answers(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities, (clips, labels), and label ids, (clips,)."""
    shape = draw(st.tuples(st.integers(1, 30), st.integers(2, 5)))
    raw = draw(arrays(float, shape, elements=st.floats(0.01, 1)))
    return raw / raw.sum(axis=1, keepdims=True), draw(arrays(int, shape[0], elements=st.integers(0, shape[1] - 1)))


@settings(deadline=None)
@given(answers())
def test_the_bins_hold_every_clip_once_and_the_error_is_a_share(answers: tuple[np.ndarray, np.ndarray]) -> None:
    probabilities, actual = answers
    rows = scores.reliability(probabilities, actual)
    assert [row["low"] for row in rows] == [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
    assert sum(row["n"] for row in rows) == len(actual)
    for row in rows:
        assert (row["confidence"] is None) == (row["accuracy"] is None) == (row["n"] == 0)
        assert row["n"] == 0 or row["low"] < row["confidence"] <= row["high"] + 1e-12
    filled = [row for row in rows if row["n"]]
    accuracy = (probabilities.argmax(axis=1) == actual).mean()
    assert sum(row["n"] * row["accuracy"] for row in filled) / len(actual) == pytest.approx(accuracy)
    error = scores.calibration_error(rows)
    # The bins' gaps cannot add to less than the gap of all clips together.
    assert abs(accuracy - probabilities.max(axis=1).mean()) - 1e-9 <= error <= 1
    order = np.random.default_rng(0).permutation(len(actual))
    assert scores.calibration_error(scores.reliability(probabilities[order], actual[order])) == pytest.approx(error)


def test_an_edge_belongs_to_the_lower_bin() -> None:
    top = np.arange(1, 11) / 10
    rows = scores.reliability(np.stack([top, np.zeros(10)], axis=1), np.zeros(10, dtype=int))
    assert [row["n"] for row in rows] == [1] * 10


def test_who_is_sure_and_right_is_calibrated_and_who_is_sure_and_wrong_is_not() -> None:
    sure = np.eye(3)
    assert scores.calibration_error(scores.reliability(sure, np.arange(3))) == 0
    assert scores.calibration_error(scores.reliability(sure, np.array([1, 2, 0]))) == 1


@settings(deadline=None)
@given(answers())
def test_two_guesses_are_at_least_as_good_as_one(answers: tuple[np.ndarray, np.ndarray]) -> None:
    probabilities, actual = answers
    # Of equal probabilities, scikit-learn and argmax take different ones.
    probabilities += 1e-6 * np.random.default_rng(0).random(probabilities.shape)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    found = scores.of_probabilities(probabilities, actual)
    assert (probabilities.argmax(axis=1) == actual).mean() <= found["top_2_accuracy"] <= 1
    own = probabilities[np.arange(len(actual)), actual]
    assert found["loss"] == pytest.approx(-np.log(own).mean())
