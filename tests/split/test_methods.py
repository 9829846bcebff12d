import re

import numpy as np
import pandas as pd
import pytest
from helpers import user_error
from hypothesis import given, settings
from hypothesis import strategies as st
from split.examples import repeat_labels, split_params

from stages.common.errors import UserError
from stages.split.methods import METHODS, assign_splits, cut_folds


def assignment_error(labels: np.ndarray, groups: np.ndarray | None = None, **values: object) -> UserError:
    """Return the error of a split that is impossible. groups: by default, every clip is its group."""
    groups = np.arange(len(labels)) if groups is None else groups
    return user_error(lambda: assign_splits(labels, groups, split_params(**values)))


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(
    sizes=st.lists(st.integers(10, 40), min_size=2, max_size=5),
    method=st.sampled_from(["random", "stratified", "grouped"]),
    validation_size=st.sampled_from([0.0, 0.1, 0.2]),
    seed=st.integers(0, 1000),
)
def test_splits_have_their_shares(sizes: list[int], method: str, validation_size: float, seed: int) -> None:
    labels = repeat_labels({f"label{i}": size for i, size in enumerate(sizes)})
    groups = np.arange(len(labels)) // 2 if method == "grouped" else np.arange(len(labels))
    params = split_params(method=method, seed=seed, validation_size=validation_size, groups={"artist": "x.csv"})
    split = assign_splits(labels, groups, params)
    assert set(split) == {"train", "test"} | ({"validation"} if validation_size else set())
    assert (split == "test").mean() == pytest.approx(0.2, abs=0.1)
    assert (split == "validation").mean() == pytest.approx(validation_size, abs=0.1)
    assert pd.Series(split).groupby(groups).nunique().max() == 1
    assert (assign_splits(labels, groups, params) == split).all()


@pytest.mark.parametrize(
    "values",
    [
        {"method": "random", "test_size": 0.5},
        {"method": "stratified", "test_size": 0.5},
        {"method": "grouped", "test_size": 0.5},
        {"method": "stratified", "folds": 2},
        {"method": "grouped", "folds": 2},
    ],
)
def test_validation_is_share_of_all(values: dict[str, object]) -> None:
    """10 of 100 clips are a fifth of the 50 clips that are left."""
    labels = repeat_labels({"a": 50, "b": 50})
    split = assign_splits(labels, np.arange(100), split_params(validation_size=0.1, **values))
    counts = {name: int((split == name).sum()) for name in ("train", "validation", "test")}
    assert counts == {"train": 40, "validation": 10, "test": 50}


def test_stratified_keeps_proportions() -> None:
    labels = repeat_labels({"a": 50, "b": 20})
    table = pd.crosstab(labels, assign_splits(labels, np.arange(70), split_params()))
    assert table.loc["a", "test"] == 10
    assert table.loc["b", "test"] == 4


def test_seed_changes_split() -> None:
    labels = repeat_labels({"a": 50, "b": 50})
    first, second = (assign_splits(labels, np.arange(100), split_params(seed=seed)) for seed in (1, 2))
    assert (first != second).any()


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(
    sizes=st.lists(st.integers(12, 30), min_size=2, max_size=4),
    group_size=st.integers(1, 4),
    method=st.sampled_from(["stratified", "grouped"]),
    folds=st.integers(2, 5),
    validation_size=st.sampled_from([0.0, 0.1]),
    seed=st.integers(0, 1000),
)
def test_folds_partition_clips(
    sizes: list[int], group_size: int, method: str, folds: int, validation_size: float, seed: int
) -> None:
    labels = repeat_labels({f"label{i}": size for i, size in enumerate(sizes)})
    groups = np.arange(len(labels)) // group_size
    values = {"method": method, "seed": seed, "validation_size": validation_size, "folds": folds}
    splits = [assign_splits(labels, groups, split_params(**values, fold=fold)) for fold in range(folds)]
    in_test = np.array([split == "test" for split in splits])
    assert (in_test.sum(axis=0) == 1).all()
    assert in_test.mean(axis=1) == pytest.approx(1 / folds, abs=0.15)
    for split in splits:
        assert ("validation" in split) == (validation_size > 0)
        if method == "grouped":
            assert pd.Series(split).groupby(groups).nunique().max() == 1
        else:
            test = pd.Series(labels[split == "test"]).value_counts()
            assert all(abs(test[f"label{i}"] - size / folds) < 2 for i, size in enumerate(sizes))


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(
    sizes=st.lists(st.integers(20, 40), min_size=2, max_size=4),
    group_size=st.integers(1, 4),
    method=st.sampled_from(["stratified", "grouped"]),
    folds=st.integers(2, 4),
    seed=st.integers(0, 1000),
)
def test_validation_folds_partition_what_is_not_in_test(
    sizes: list[int], group_size: int, method: str, folds: int, seed: int
) -> None:
    labels = repeat_labels({f"label{i}": size for i, size in enumerate(sizes)})
    groups = np.arange(len(labels)) // group_size
    values = {"method": method, "seed": seed, "test_size": 0.2, "validation_folds": folds}
    splits = [assign_splits(labels, groups, split_params(**values, validation_fold=fold)) for fold in range(folds)]
    without = assign_splits(labels, groups, split_params(method=method, seed=seed, test_size=0.2))
    assert all(((split == "test") == (without == "test")).all() for split in splits)
    in_validation = np.array([split == "validation" for split in splits]).sum(axis=0)
    assert (in_validation == (without != "test")).all()
    if method == "grouped":
        assert all(pd.Series(split).groupby(groups).nunique().max() == 1 for split in splits)


def test_stratified_needs_two_clips() -> None:
    error = assignment_error(repeat_labels({"a": 20, "rare": 1}))
    assert error.key == "split.method"
    assert "label rare has too few clips" in str(error)
    assert "random" in str(error)


@pytest.mark.parametrize("labels", [{"a": 1}, {"a": 2}])
def test_random_needs_clips(labels: dict[str, int]) -> None:
    error = assignment_error(repeat_labels(labels), method="random", test_size=0.1)
    assert error.key in ("split.test_size", "split.validation_size")
    assert str(error).endswith("or add clips")


@pytest.mark.parametrize(
    ("numbers", "test_size", "finest"), [({"a": 2, "b": 1}, 0.1, 2), ({"a": 300, "b": 300}, 0.02, 20)]
)
def test_grouped_share_has_limits(numbers: dict[str, int], test_size: float, finest: int) -> None:
    error = assignment_error(repeat_labels(numbers), method="grouped", test_size=test_size)
    assert error.key == "split.test_size"
    low, high = (sum(numbers.values()) * part / finest for part in (1, finest - 1))
    assert f"only about {low:.0f} to {high:.0f} of them; or add clips" in str(error)


def test_one_group_cannot_be_cut() -> None:
    error = assignment_error(repeat_labels({"a": 10, "b": 10}), np.zeros(20, int), method="grouped")
    assert "20 clips are in one group" in str(error)


@pytest.mark.slow
def test_grouped_share_rounds_to_fold() -> None:
    """0.15 is three folds of twenty."""
    labels = repeat_labels({"a": 200, "b": 200})
    split = assign_splits(labels, np.arange(400), split_params(method="grouped", test_size=0.15, validation_size=0.0))
    assert (split == "test").sum() == 60


def test_folds_need_groups() -> None:
    groups = np.arange(40) // 2
    assert "20 groups cannot be cut into 30" in str(
        assignment_error(repeat_labels({"a": 20, "b": 20}), groups, method="grouped", folds=30)
    )
    assert "40 clips cannot be cut into 50" in str(assignment_error(repeat_labels({"a": 20, "b": 20}), folds=50))


def test_folds_need_clips_per_label() -> None:
    error = assignment_error(repeat_labels({"a": 10, "b": 10}), folds=15)
    assert error.key == "split.folds"
    assert "15 folds, but no label has more than 10 clips" in str(error)
    assert str(error).endswith("set it lower, or add clips")


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(2, 30), min_size=2, max_size=12),
    sizes_asked=st.tuples(st.floats(0.01, 0.6), st.floats(0.01, 0.39)),
)
def test_few_clips_are_explained(sizes: list[int], sizes_asked: tuple[float, float]) -> None:
    """The message names the share to change and, if there is one, a value with which the same clips can be split."""
    labels = repeat_labels({f"label{i}": size for i, size in enumerate(sizes)})
    values = dict(zip(("test_size", "validation_size"), (round(share, 3) for share in sizes_asked)))
    fixed = set()
    while True:
        try:
            assign_splits(labels, np.arange(len(labels)), split_params(**values))
            return
        except UserError as error:
            if error.key == "split.method":  # a label has one clip left
                return
            key = str(error.key).removeprefix("split.")
            advised = re.search(r"set (?:at least |at most )?([0-9.]+), or add clips", str(error))
        assert key in values
        assert key not in fixed
        if not advised:
            assert key == "test_size"
            assert len(labels) < 2 * len(sizes)
            return
        fixed.add(key)
        values[key] = float(advised[1])


def test_two_clips_can_be_stratified() -> None:
    labels = np.array(["a"] * 20 + ["b"] * 2)
    split = METHODS["stratified"](np.arange(22), 0.5, 0, labels, np.arange(22))
    assert (labels[split] == "b").sum() == 1


@pytest.mark.parametrize("share", [0.01, 0.99])
def test_grouped_share_needs_a_fold(share: float) -> None:
    labels = np.array(["a", "b"] * 40)
    with pytest.raises(ValueError, match="only about 4 to 76 of them"):
        METHODS["grouped"](np.arange(80), share, 0, labels, np.arange(80))


def test_few_groups_make_coarse_folds() -> None:
    labels, groups = np.array(["a", "b"] * 40), np.arange(80) // 20
    assert len(METHODS["grouped"](np.arange(80), 0.25, 0, labels, groups)) == 20
    with pytest.raises(ValueError, match="only about 20 to 60 of them"):
        METHODS["grouped"](np.arange(80), 0.05, 0, labels, groups)


def test_number_of_folds_may_equal_number_of_groups() -> None:
    labels, groups = np.array(["a", "b"] * 6), np.arange(12) // 4
    assert sorted(len(part) for part in cut_folds(np.arange(12), 3, 0, labels, groups)) == [4, 4, 4]
    with pytest.raises(ValueError, match="3 groups cannot be cut into 4 folds"):
        cut_folds(np.arange(12), 4, 0, labels, groups)


def test_rare_label_gives_no_warning() -> None:
    """Check that a label with fewer clips than folds is accepted; warnings are errors here."""
    labels = np.array(["a"] * 18 + ["b"] * 2)
    assert len(cut_folds(np.arange(20), 5, 0, labels, np.arange(20))) == 5


@pytest.mark.parametrize("seed", range(5))
def test_grouped_takes_the_most_even_fold(seed: int) -> None:
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(25), rng.integers(1, 12, 25))
    labels = np.array(list("abc"))[rng.integers(0, 3, len(groups))]
    rows = np.arange(len(groups))
    expected = {label: (labels == label).sum() / 5 for label in "abc"}

    def unevenness(part: np.ndarray) -> float:
        return sum(abs((labels[part] == label).sum() - number) for label, number in expected.items())

    folds = cut_folds(rows, 5, seed, labels, groups)
    selected = METHODS["grouped"](rows, 0.2, seed, labels, groups)
    assert unevenness(selected) == min(map(unevenness, folds))
