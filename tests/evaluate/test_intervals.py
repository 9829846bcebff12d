import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.stats import binomtest

from stages.common.intervals import accuracy_interval, difference_interval

DRAWS = 1000
rights = st.lists(st.booleans(), min_size=1, max_size=60).map(np.array)
pairs = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60).map(np.array)


def tables(both: int, gained: int, lost: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    """What the first and the second of two models name rightly: bool (clips,) each."""
    counts = [both, gained, lost, neither]
    return np.repeat([True, False, True, False], counts), np.repeat([True, True, False, False], counts)


def draw_groups(rng: np.random.Generator, clips: int, largest: int = 10) -> np.ndarray:
    """So many clips in groups of 1 to `largest`: the number of each clip's group."""
    return np.repeat(np.arange(clips), rng.integers(1, largest + 1, clips))[:clips]


def draw_right(rng: np.random.Generator, groups: np.ndarray, accuracy: float, alike: float) -> np.ndarray:
    """Whether each clip is named rightly; two clips of a group are correlated by `alike`: bool (DRAWS, clips)."""
    total = 1 / alike - 1
    own = rng.beta(accuracy * total, (1 - accuracy) * total, (DRAWS, groups.max() + 1))
    return rng.random((DRAWS, len(groups))) < own[:, groups]


def covers(bounds: list[tuple[float, float]], truth: float) -> float:
    return float(np.mean([low <= truth <= high for low, high in bounds]))


def test_the_course_s_083_of_100_clips_means_074_to_089() -> None:
    right = np.arange(100) < 83
    assert [round(bound, 2) for bound in accuracy_interval(right, None)] == [0.74, 0.89]
    assert accuracy_interval(right[83:], None)[0] == 0.0
    assert accuracy_interval(right[:83], None)[1] == 1.0


@settings(deadline=None)
@given(rights)
def test_without_groups_it_is_wilson_s(right: np.ndarray) -> None:
    wilson = binomtest(int(right.sum()), len(right)).proportion_ci(0.95, method="wilson")
    for groups in (None, np.arange(len(right))):
        assert accuracy_interval(right, groups) == pytest.approx((wilson.low, wilson.high), abs=1e-9)


@settings(deadline=None)
@given(rights, st.randoms(use_true_random=False))
def test_groups_only_widen_it_and_it_holds_the_accuracy(right: np.ndarray, random: object) -> None:
    groups = np.array([random.randrange(8) for _ in right])
    low, high = accuracy_interval(right, groups)
    narrow = accuracy_interval(right, None)
    assert 0 <= low <= right.mean() + 1e-12
    assert right.mean() - 1e-12 <= high <= 1
    assert high - low >= narrow[1] - narrow[0] - 1e-9
    assert accuracy_interval(right[::-1], groups[::-1]) == pytest.approx((low, high))


def test_copies_of_clips_add_nothing() -> None:
    right = np.arange(40) < 30
    once = accuracy_interval(right, np.arange(40))
    thrice = accuracy_interval(np.repeat(right, 3), np.repeat(np.arange(40), 3))
    assert thrice == pytest.approx(once, abs=0.01)  # t of 39 groups against the normal of 40 clips
    assert accuracy_interval(right, np.zeros(40)) == (0.0, 1.0)  # one group tells nothing of the others


@pytest.mark.parametrize("clips", [100, 300])
def test_95_of_100_intervals_over_clips_hold_the_accuracy(clips: int) -> None:
    right = np.random.default_rng(0).random((DRAWS, clips)) < 0.8
    assert 0.93 <= covers([accuracy_interval(row, None) for row in right], 0.8) <= 0.97


@pytest.mark.parametrize("clips", [100, 200, 300])
@pytest.mark.parametrize("alike", [0.1, 0.3, 0.6])
def test_95_of_100_intervals_over_groups_hold_the_accuracy(clips: int, alike: float) -> None:
    rng = np.random.default_rng(0)
    groups = draw_groups(rng, clips)
    right = draw_right(rng, groups, 0.8, alike)
    assert 0.93 <= covers([accuracy_interval(row, groups) for row in right], 0.8) <= 0.97
    if alike > 0.1:  # the reason for all this
        assert covers([accuracy_interval(row, None) for row in right], 0.8) < 0.85


@pytest.mark.parametrize("grouped", [False, True])
def test_95_of_100_intervals_of_a_difference_hold_it(grouped: bool) -> None:
    rng = np.random.default_rng(0)
    groups = draw_groups(rng, 200, largest=10 if grouped else 1)
    hard = draw_right(rng, groups, 0.9, 0.3)  # what both may get wrong
    first, second = (hard & draw_right(rng, groups, share, 0.3) for share in (0.8, 0.9))
    bounds = [difference_interval(*row, groups) for row in zip(first, second)]
    assert 0.93 <= covers(bounds, 0.9 * (0.9 - 0.8)) <= 0.97


def test_the_difference_s_bounds_are_where_the_score_test_turns() -> None:
    """Against the likelihood, maximised by numbers: b, c clips gained and lost of n."""
    b, c, n = 12, 2, 50
    for bound in difference_interval(*tables(36, b, c, 0), None):

        def unlikely(lost: float, bound: float = bound) -> float:
            return -(b * np.log(lost + bound) + c * np.log(lost) + (n - b - c) * np.log(1 - 2 * lost - bound))

        lost = minimize_scalar(unlikely, bounds=(1e-9, (1 - bound) / 2 - 1e-9), method="bounded").x
        score = ((b - c) / n - bound) / np.sqrt((2 * lost + bound - bound**2) / n)
        assert abs(score) == pytest.approx(1.96, abs=1e-3)


@settings(deadline=None)
@given(pairs)
def test_a_difference_s_interval_holds_it_and_turns_with_the_models(pairs: np.ndarray) -> None:
    first, second = pairs.T
    low, high = difference_interval(first, second, None)
    assert -1 <= low <= second.mean() - first.mean() + 1e-9
    assert second.mean() - first.mean() - 1e-9 <= high <= 1
    assert difference_interval(second, first, None) == pytest.approx((-high, -low), abs=1e-9)


@pytest.mark.parametrize("others", [1, 2, 5])
@pytest.mark.parametrize("size", [50, 99, 240, 500])
def test_beside_one_large_group_nothing_is_certain(size: int, others: int) -> None:
    groups = np.repeat(np.arange(1 + others), [size] + [1] * others)
    second = np.arange(len(groups)) % 5 > 0
    assert difference_interval(~second, second, groups) == (-1, 1)
    assert accuracy_interval(second, groups) == (0, 1)
