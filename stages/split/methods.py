"""Split methods. To add one, write a function and list it in METHODS."""

import warnings
from collections.abc import Callable
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from stages.common.errors import UserError

if TYPE_CHECKING:
    from stages.split.params import SplitParams

FINEST_FOLD = 20  # shares are rounded to multiples of 1/n, n <= 20: 0.1 is one fold of ten, 0.15 three of twenty


def select_random(rows: np.ndarray, share: float, seed: int, labels: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Call `train_test_split` exactly as the course does; on GTZAN sorted by name it gives the same 100 test clips."""
    from datasets import Dataset

    parts = Dataset.from_dict({"row": rows}).train_test_split(seed=seed, shuffle=True, test_size=share)
    return np.array(parts["test"]["row"])


def select_stratified(rows: np.ndarray, share: float, seed: int, labels: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Keep the proportions of the labels."""
    from sklearn.model_selection import train_test_split

    names, counts = np.unique(labels[rows], return_counts=True)
    if counts.min() < 2:
        raise UserError(
            f"label {names[counts.argmin()]} has only one clip, so it cannot be stratified; add clips, remove "
            "the label, or set random",
            key="split.method",
        )
    return train_test_split(rows, test_size=share, random_state=seed, stratify=labels[rows])[1]


def select_grouped(rows: np.ndarray, share: float, seed: int, labels: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Keep each group in one split, and the proportions of the labels as far as the groups allow."""
    # With few clips, the folds are coarser.
    finest = min(FINEST_FOLD, len(set(groups[rows])), int(np.unique(labels[rows], return_counts=True)[1].max()))
    folds = Fraction(share).limit_denominator(finest)
    if not 0 < folds < 1:
        raise UserError(f"split: a grouped share must lie between 1/{finest} and {finest - 1}/{finest}; or add clips")
    parts = cut_folds(rows, folds.denominator, seed, labels, groups)
    # Large groups make uneven folds; those with the most even labels come first.
    parts.sort(key=lambda part: _imbalance(labels[part], labels[rows], folds.denominator))
    return np.concatenate(parts[: folds.numerator])


# Each gets rows (int64, of all clips or of those not yet selected), the share of them to select, a seed, and the labels
# and groups of all clips. It returns the selected rows, and raises UserError if the clips do not allow the share.
METHODS: dict[str, Callable[[np.ndarray, float, int, np.ndarray, np.ndarray], np.ndarray]] = {
    "random": select_random,
    "stratified": select_stratified,
    "grouped": select_grouped,
}


def cut_folds(rows: np.ndarray, folds: int, seed: int, labels: np.ndarray, groups: np.ndarray) -> list[np.ndarray]:
    """Cut rows into stratified folds; no group spans two folds."""
    from sklearn.model_selection import StratifiedGroupKFold

    number = len(set(groups[rows]))
    if number < folds:
        raise UserError(f"split: {number} groups cannot be cut into {folds} folds; set fewer, or add clips")
    folding = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # Some folds may have no clip of a rare label; metrics/split.json has the counts.
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        return [rows[test] for _, test in folding.split(rows, labels[rows], groups[rows])]


def _imbalance(part: np.ndarray, everything: np.ndarray, folds: int) -> float:
    return sum(abs((part == label).sum() - (everything == label).sum() / folds) for label in np.unique(everything))


def assign_splits(labels: np.ndarray, groups: np.ndarray, params: "SplitParams") -> np.ndarray:
    """Select the test clips, then the validation clips among the rest.

    Args:
        labels, groups: a label and a group's id for each clip, shape (clips,).

    Returns:
        Split names, shape (clips,), dtype object.

    Raises:
        UserError: there are too few clips for these shares.
    """
    select, rows = METHODS[params.method], np.arange(len(labels))
    together = groups if params.method == "grouped" else rows
    split = np.full(len(labels), "train", dtype=object)
    try:
        if params.folds:
            split[cut_folds(rows, params.folds, params.seed, labels, together)[params.fold]] = "test"
        else:
            split[select(rows, params.test_size, params.seed, labels, groups)] = "test"
        rest = rows[split == "train"]
        if params.validation_folds:
            parts = cut_folds(rest, params.validation_folds, params.seed, labels, together)
            split[parts[params.validation_fold]] = "validation"
        elif params.validation_size:
            share = params.validation_size / (1 - params.test_share)
            split[select(rest, share, params.seed, labels, groups)] = "validation"
    except ValueError as error:
        message = " ".join(str(error).split()).rstrip(".")
        keys = [f"split.{key}" for key in ("folds", "validation_folds") if getattr(params, key)]
        fix = f"set {' or '.join(keys)} lower" if keys else "change the shares"
        raise UserError(f"{params.method}: {message}; {fix}, or add clips", key="split.method") from None
    return split
