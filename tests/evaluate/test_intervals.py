from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.stats import binomtest

from stages.evaluate.intervals import accuracy_interval, difference_interval

DRAWS = 1000
correct_clips = st.lists(st.booleans(), min_size=1, max_size=60).map(np.array)
pairs = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60).map(np.array)


def make_pair(both: int, gained: int, lost: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    """Return which clips the first and the second of two models classify correctly: bool (clips,) each."""
    counts = [both, gained, lost, neither]
    return np.repeat([True, False, True, False], counts), np.repeat([True, True, False, False], counts)


def draw_groups(rng: np.random.Generator, clips: int, largest: int = 10) -> np.ndarray:
    """Return the group's number of each clip, in groups of 1 to `largest` clips: int64 (clips,)."""
    return np.repeat(np.arange(clips), rng.integers(1, largest + 1, clips))[:clips]


def draw_correct(rng: np.random.Generator, groups: np.ndarray, accuracy: float, correlation: float) -> np.ndarray:
    """Draw which clips are correct; two clips of a group have this correlation: bool (DRAWS, clips)."""
    total = 1 / correlation - 1
    shares = rng.beta(accuracy * total, (1 - accuracy) * total, (DRAWS, groups.max() + 1))
    return rng.random((DRAWS, len(groups))) < shares[:, groups]


def coverage(bounds: list[tuple[float, float]], truth: float) -> float:
    """Return the share of intervals that contain the truth."""
    return float(np.mean([low <= truth <= high for low, high in bounds]))


def test_interval_of_course_accuracy() -> None:
    correct = np.arange(100) < 83
    assert [round(bound, 2) for bound in accuracy_interval(correct, None)] == [0.74, 0.89]


def test_interval_of_extreme_accuracies() -> None:
    assert accuracy_interval(np.zeros(17, dtype=bool), None)[0] == 0.0
    assert accuracy_interval(np.ones(83, dtype=bool), None)[1] == 1.0


@pytest.mark.slow
@settings(deadline=None)
@given(correct_clips)
def test_without_groups_is_wilson(correct: np.ndarray) -> None:
    wilson = binomtest(int(correct.sum()), len(correct)).proportion_ci(0.95, method="wilson")
    for groups in (None, np.arange(len(correct))):
        assert accuracy_interval(correct, groups) == pytest.approx((wilson.low, wilson.high), abs=1e-9)


@pytest.mark.slow
@settings(deadline=None)
@given(correct_clips, st.randoms(use_true_random=False))
def test_groups_only_widen(correct: np.ndarray, random: Random) -> None:
    groups = np.array([random.randrange(8) for _ in correct])
    low, high = accuracy_interval(correct, groups)
    narrow = accuracy_interval(correct, None)
    assert 0 <= low <= correct.mean() + 1e-12
    assert correct.mean() - 1e-12 <= high <= 1
    assert high - low >= narrow[1] - narrow[0] - 1e-9
    assert accuracy_interval(correct[::-1], groups[::-1]) == pytest.approx((low, high))


def test_copies_add_no_information() -> None:
    correct = np.arange(40) < 30
    once = accuracy_interval(correct, np.arange(40))
    three_times = accuracy_interval(np.repeat(correct, 3), np.repeat(np.arange(40), 3))
    assert three_times == pytest.approx(once, abs=0.01)  # t of 39 groups against the normal of 40 clips


def test_perfect_groups_count_once() -> None:
    """If all clips are correct, nothing shows how far the clips of a group depend on each other."""
    grouped = accuracy_interval(np.ones(40, dtype=bool), np.arange(40) // 2)
    assert grouped == pytest.approx(accuracy_interval(np.ones(20, dtype=bool), None), abs=0.03)


def test_single_group_is_uninformative() -> None:
    assert accuracy_interval(np.arange(40) < 30, np.zeros(40)) == (0.0, 1.0)


@pytest.mark.parametrize("clips", [100, 300])
def test_coverage_without_groups(clips: int) -> None:
    correct = np.random.default_rng(0).random((DRAWS, clips)) < 0.8
    assert 0.93 <= coverage([accuracy_interval(row, None) for row in correct], 0.8) <= 0.97


@pytest.mark.slow
@pytest.mark.parametrize("clips", [100, pytest.param(200, marks=pytest.mark.rare), 300])
@pytest.mark.parametrize("correlation", [0.1, 0.3, 0.6])
def test_coverage_with_groups(clips: int, correlation: float) -> None:
    rng = np.random.default_rng(0)
    groups = draw_groups(rng, clips)
    correct = draw_correct(rng, groups, 0.8, correlation)
    assert 0.93 <= coverage([accuracy_interval(row, groups) for row in correct], 0.8) <= 0.97
    if correlation > 0.1:  # an interval that ignores the groups is too narrow
        assert coverage([accuracy_interval(row, None) for row in correct], 0.8) < 0.85


@pytest.mark.slow
@pytest.mark.parametrize("largest", [1, 10])
def test_coverage_of_difference(largest: int) -> None:
    rng = np.random.default_rng(0)
    groups = draw_groups(rng, 200, largest)
    easy = draw_correct(rng, groups, 0.9, 0.3)  # both models may be wrong on the others
    first, second = (easy & draw_correct(rng, groups, share, 0.3) for share in (0.8, 0.9))
    bounds = [difference_interval(*row, groups) for row in zip(first, second)]
    assert 0.93 <= coverage(bounds, 0.9 * (0.9 - 0.8)) <= 0.97


def test_difference_against_numeric_likelihood() -> None:
    """At the bounds, the score test with the likelihood maximised by SciPy is 1.96; b clips gained, c lost of n."""
    b, c, n = 12, 2, 50
    for bound in difference_interval(*make_pair(36, b, c, 0), None):

        def negative_likelihood(lost: float, bound: float = bound) -> float:
            return -(b * np.log(lost + bound) + c * np.log(lost) + (n - b - c) * np.log(1 - 2 * lost - bound))

        lost = minimize_scalar(negative_likelihood, bounds=(1e-9, (1 - bound) / 2 - 1e-9), method="bounded").x
        score = ((b - c) / n - bound) / np.sqrt((2 * lost + bound - bound**2) / n)
        assert abs(score) == pytest.approx(1.96, abs=1e-3)


@pytest.mark.slow
@settings(deadline=None)
@given(pairs)
def test_difference_is_antisymmetric(pairs: np.ndarray) -> None:
    first, second = pairs.T
    low, high = difference_interval(first, second, None)
    assert -1 <= low <= second.mean() - first.mean() + 1e-9
    assert second.mean() - first.mean() - 1e-9 <= high <= 1
    assert difference_interval(second, first, None) == pytest.approx((-high, -low), abs=1e-9)


@pytest.mark.parametrize("others", [1, 2, 5])
@pytest.mark.parametrize("size", [50, 99, 240, 500])
def test_one_large_group_is_uninformative(size: int, others: int) -> None:
    groups = np.repeat(np.arange(1 + others), [size] + [1] * others)
    second = np.arange(len(groups)) % 5 > 0
    assert difference_interval(~second, second, groups) == (-1, 1)
    assert accuracy_interval(second, groups) == (0, 1)


def test_equal_predictions_have_one_interval() -> None:
    """Check that only differences count: which clips both classify correctly does not matter."""
    groups, rng = np.arange(40) // 4, np.random.default_rng(0)
    some, every = rng.random(40) < 0.5, np.ones(40, bool)
    assert difference_interval(some, some, groups) == difference_interval(every, every, groups)
