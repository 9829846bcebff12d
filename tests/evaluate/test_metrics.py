import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from stages.evaluate.intervals import accuracy_interval
from stages.evaluate.metrics import (
    METRIC_FUNCTIONS,
    calibration_error,
    compare_with_baselines,
    cross_entropy,
    mean_f1,
    measure,
    per_label,
    reliability,
    round_floats,
    top_2_accuracy,
)
from stages.evaluate.prediction import Predictions

BASELINES = {"majority": 0.25, "spectrum": 0.5}
# The third is wrong.
PREDICTIONS = Predictions(
    clips=["a", "b", "c", "d"],
    labels=["x", "y"],
    actual=np.array([0, 0, 1, 1]),
    probabilities=np.array([[0.8, 0.2], [0.6, 0.4], [0.7, 0.3], [0.1, 0.9]]),
    window_accuracy=None,
)


@st.composite
def draw_predictions(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Return probabilities, (clips, labels), and label ids, (clips,)."""
    shape = draw(st.tuples(st.integers(1, 30), st.integers(2, 5)))
    raw = draw(arrays(float, shape, elements=st.floats(0.01, 1)))
    return raw / raw.sum(axis=1, keepdims=True), draw(arrays(int, shape[0], elements=st.integers(0, shape[1] - 1)))


@pytest.mark.slow
@settings(deadline=None)
@given(draw_predictions())
def test_bins_contain_each_clip_once(predictions: tuple[np.ndarray, np.ndarray]) -> None:
    probabilities, actual = predictions
    rows = reliability(probabilities, actual)
    assert [row["low"] for row in rows] == [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
    assert sum(row["n_clips"] for row in rows) == len(actual)
    for row in rows:
        assert (row["confidence"] is None) == (row["accuracy"] is None) == (row["n_clips"] == 0)
        assert row["n_clips"] == 0 or row["low"] < row["confidence"] <= row["high"] + 1e-12
    accuracy = (probabilities.argmax(axis=1) == actual).mean()
    correct = sum(row["n_clips"] * row["accuracy"] for row in rows if row["n_clips"])
    assert correct / len(actual) == pytest.approx(accuracy)


@pytest.mark.slow
@settings(deadline=None)
@given(draw_predictions())
def test_calibration_error_has_bounds(predictions: tuple[np.ndarray, np.ndarray]) -> None:
    probabilities, actual = predictions
    error = calibration_error(probabilities, actual)
    accuracy = (probabilities.argmax(axis=1) == actual).mean()
    # The gaps of the bins cannot add up to less than the gap of all clips together.
    assert abs(accuracy - probabilities.max(axis=1).mean()) - 1e-9 <= error <= 1
    order = np.random.default_rng(0).permutation(len(actual))
    assert calibration_error(probabilities[order], actual[order]) == pytest.approx(error)


def test_edge_counts_in_lower_bin() -> None:
    top = np.arange(1, 11) / 10
    rows = reliability(np.stack([top, np.zeros(10)], axis=1), np.zeros(10, dtype=int))
    assert [row["n_clips"] for row in rows] == [1] * 10


def test_rounding_may_exceed_one() -> None:
    rows = reliability(np.array([[1 + 1e-9, 0.0]]), np.array([0]))
    assert rows[-1]["n_clips"] == 1


def test_certain_predictions() -> None:
    certain = np.eye(3)
    assert calibration_error(certain, np.arange(3)) == 0
    assert calibration_error(certain, np.array([1, 2, 0])) == 1


@pytest.mark.slow
@settings(deadline=None)
@given(draw_predictions())
def test_top_2_includes_top_1(predictions: tuple[np.ndarray, np.ndarray]) -> None:
    probabilities, actual = predictions
    # Of equal probabilities, scikit-learn and argmax take different ones.
    probabilities += 1e-6 * np.random.default_rng(0).random(probabilities.shape)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    assert (probabilities.argmax(axis=1) == actual).mean() <= top_2_accuracy(probabilities, actual) <= 1


def test_top_2_by_hand() -> None:
    assert top_2_accuracy(np.array([[0.5, 0.3, 0.2]] * 3), np.array([0, 1, 2])) == pytest.approx(2 / 3)


@pytest.mark.slow
@settings(deadline=None)
@given(draw_predictions())
def test_cross_entropy_is_mean_log(predictions: tuple[np.ndarray, np.ndarray]) -> None:
    probabilities, actual = predictions
    of_label = probabilities[np.arange(len(actual)), actual]
    assert cross_entropy(probabilities, actual) == pytest.approx(-np.log(of_label).mean())


def test_f1_skips_absent_labels() -> None:
    assert mean_f1(np.array(["a", "a", "b"]), np.array(["a", "c", "b"])) == pytest.approx((2 / 3 + 1) / 2)


def test_absent_label_has_zeros() -> None:
    rows = per_label(np.array([0, 0]), np.array([0, 0]), ["x", "y"])
    assert rows[1] == {"label": "y", "precision": 0.0, "recall": 0.0, "f1": 0.0, "n_clips": 0}


@pytest.mark.parametrize(
    ("accuracy", "low", "outcome"),
    [
        (0.8, 0.7, "yes"),
        (0.8, 0.5001, "yes"),
        (0.8, 0.5, "not significantly"),  # the lower end is the better baseline
        (0.8, 0.4, "not significantly"),
        (0.5001, 0.4, "not significantly"),
        (0.5, 0.4, "no"),  # as good as the better baseline
        (0.4, 0.3, "no"),
        (0.2, 0.1, "no"),
    ],
)
@pytest.mark.parametrize("baselines", [BASELINES, {"majority": 0.5, "spectrum": 0.25}])
def test_comparison_with_baselines(accuracy: float, low: float, outcome: str, baselines: dict[str, float]) -> None:
    assert compare_with_baselines(accuracy, low, baselines) == outcome


def test_measure_by_hand() -> None:
    metrics = measure(PREDICTIONS, np.arange(4), BASELINES, "test", 0.6)
    assert list(METRIC_FUNCTIONS) == ["accuracy", "macro_f1", "log_loss", "top_2_accuracy", "calibration_error"]
    assert metrics["accuracy"] == 0.75
    assert metrics["macro_f1"] == pytest.approx((4 / 5 + 2 / 3) / 2)
    assert metrics["log_loss"] == pytest.approx(-np.log([0.8, 0.6, 0.3, 0.9]).mean())
    assert metrics["top_2_accuracy"] == 1.0
    # Bins: 0.6; 0.7, wrong; 0.8; 0.9.
    assert metrics["calibration_error"] == pytest.approx((0.4 + 0.7 + 0.2 + 0.1) / 4)
    assert metrics["selected_on"] == "test"
    assert metrics["n_clips"] == 4
    assert metrics["interval_of"] == "clips"
    interval = accuracy_interval(np.array([1, 1, 0, 1], dtype=bool), None)
    assert (metrics["accuracy_low"], metrics["accuracy_high"]) == interval
    assert list(metrics)[:4] == ["selection_accuracy", "accuracy", "accuracy_low", "accuracy_high"]
    assert metrics["selection_accuracy"] == 0.6
    assert metrics["n_groups"] == 4
    assert metrics["baselines"] == BASELINES
    assert metrics["beats_baselines"] == "not significantly"
    assert metrics["per_label"][1] == {
        "label": "y",
        "precision": 1.0,
        "recall": 0.5,
        "f1": pytest.approx(2 / 3),
        "n_clips": 2,
    }
    assert metrics["reliability"] == reliability(PREDICTIONS.probabilities, PREDICTIONS.actual)
    assert "window_accuracy" not in metrics


def test_measure_with_groups() -> None:
    independent = measure(PREDICTIONS, np.arange(4), BASELINES, "test", 0.6)
    grouped = measure(PREDICTIONS, np.array(["1", "1", "2", "3"]), BASELINES, "test", 0.6)
    assert grouped["interval_of"] == "groups"
    assert grouped["n_groups"] == 3
    assert grouped["accuracy_low"] < independent["accuracy_low"]


@pytest.mark.parametrize(
    ("best", "outcome"), [(0.30, "yes"), (0.31, "not significantly"), (0.74, "not significantly"), (0.75, "no")]
)
def test_measure_compares_with_baselines(best: float, outcome: str) -> None:
    """The 95% interval of 3 of 4 starts at 0.301."""
    metrics = measure(PREDICTIONS, np.arange(4), {"majority": 0.1, "spectrum": best}, "validation", 0.6)
    assert metrics["accuracy_low"] == pytest.approx(0.301, abs=5e-4)
    assert metrics["beats_baselines"] == outcome


def test_window_accuracy_is_optional() -> None:
    metrics = measure(PREDICTIONS._replace(window_accuracy=0.5), np.arange(4), BASELINES, "validation", 0.6)
    assert metrics["window_accuracy"] == 0.5


def test_listed_metric_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        METRIC_FUNCTIONS,
        "error_rate",
        lambda probabilities, actual: 1 - METRIC_FUNCTIONS["accuracy"](probabilities, actual),
    )
    assert measure(PREDICTIONS, np.arange(4), BASELINES, "validation", 0.6)["error_rate"] == 0.25


def test_floats_are_rounded() -> None:
    content = {"a": [1 / 3, {"b": 2 / 3}], "n": 12_345_678, "none": None, "text": "1.23456789"}
    assert round_floats(content) == {
        "a": [0.333333, {"b": 0.666667}],
        "n": 12_345_678,
        "none": None,
        "text": "1.23456789",
    }
