"""Split methods. To add one, write a function and list it in METHODS."""

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
            f"label {names[counts.argmin()]} has too few clips to be in each split, so it cannot be stratified; add "
            "clips, remove the label, or set random",
            key="split.method",
        )
    return train_test_split(rows, test_size=share, random_state=seed, stratify=labels[rows])[1]


def select_grouped(rows: np.ndarray, share: float, seed: int, labels: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Keep each group in one split, and the proportions of the labels as far as the groups allow."""
    # With few clips, the folds are coarser.
    finest = min(FINEST_FOLD, len(set(groups[rows])), int(np.unique(labels[rows], return_counts=True)[1].max()))
    folds = Fraction(share).limit_denominator(finest)
    if finest < 2:
        raise ValueError(f"{len(rows)} clips are in one group, or of labels with one clip each, and cannot be cut")
    if not 0 < folds < 1:
        low, high = len(rows) / finest, len(rows) * (finest - 1) / finest
        wanted = f"{share * len(rows):.0f} of {len(rows)} clips cannot be selected"
        raise ValueError(f"{wanted}, only about {low:.0f} to {high:.0f} of them")
    parts = cut_folds(rows, folds.denominator, seed, labels, groups)
    # Large groups make uneven folds; those with the most even labels come first.
    parts.sort(key=lambda part: _imbalance(labels[part], labels[rows], folds.denominator))
    return np.concatenate(parts[: folds.numerator])


# Each gets rows (int64, of all clips or of those not yet selected), the share of them to select, a seed, and the labels
# and groups of all clips. It returns the selected rows, and raises ValueError if the clips do not allow the share.
METHODS: dict[str, Callable[[np.ndarray, float, int, np.ndarray, np.ndarray], np.ndarray]] = {
    "random": select_random,
    "stratified": select_stratified,
    "grouped": select_grouped,
}


def cut_folds(rows: np.ndarray, folds: int, seed: int, labels: np.ndarray, groups: np.ndarray) -> list[np.ndarray]:
    """Cut rows into stratified folds; no group spans two folds."""
    from sklearn.model_selection import StratifiedGroupKFold

    number, largest = len(set(groups[rows])), int(np.unique(labels[rows], return_counts=True)[1].max())
    if number < folds:
        kind = "clips" if number == len(rows) else "groups"
        raise ValueError(f"{number} {kind} cannot be cut into {folds} folds")
    if largest < folds:
        raise ValueError(f"{folds} folds, but no label has more than {largest} clips")
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
    rows = np.arange(len(labels))
    together = groups if params.method == "grouped" else rows
    split = np.full(len(labels), "train", dtype=object)
    with _refusing("split.folds" if params.folds else "split.test_size", params.method):
        if params.folds:
            split[cut_folds(rows, params.folds, params.seed, labels, together)[params.fold]] = "test"
        else:
            split[_select(rows, params.test_size, 1, labels, groups, params)] = "test"
    rest = rows[split == "train"]
    with _refusing("split.validation_folds" if params.validation_folds else "split.validation_size", params.method):
        if params.validation_folds:
            parts = cut_folds(rest, params.validation_folds, params.seed, labels, together)
            split[parts[params.validation_fold]] = "validation"
        elif params.validation_size:
            split[_select(rest, params.validation_size, 1 - params.test_share, labels, groups, params)] = "validation"
    return split


def _select(
    rows: np.ndarray, share: float, whole: float, labels: np.ndarray, groups: np.ndarray, params: "SplitParams"
) -> np.ndarray:
    """Select a share of all clips. rows: to select from. whole: their share of all clips."""
    if params.method == "stratified" and (problem := explain_few(share, whole, len(rows), len(set(labels[rows])))):
        raise ValueError(problem)
    return METHODS[params.method](rows, share / whole, params.seed, labels, groups)


def explain_few(share: float, whole: float, clips: int, labels: int, most: float = 1.0) -> str | None:
    """Return why so few clips cannot be stratified, or None if they can: each label needs a clip on both sides.

    Args:
        share: of all clips, to be selected. whole: share of all clips that are there to select from.
        clips: number of these. labels: number of their labels. most: advise no larger share.
    """
    shares = [n / 1000 for n in range(1, 1000) if n / 1000 < most]
    possible = [one for one in shares if labels <= _count(one, whole, clips) <= clips - labels]
    selected = _count(share, whole, clips)
    if labels <= selected <= clips - labels:
        return None
    if selected < labels:
        fix, problem = "set at least {:g}", f"selects {selected}"
    else:
        fix, problem = "set at most {:g}", f"leaves {clips - selected}"
    advice = fix.format(min(possible) if selected < labels else max(possible)) if possible else "set 0"
    advice = f"{advice}, or add clips" if possible or whole < 1 else "add clips"
    return f"{share:g} {problem} of {clips} clips, fewer than the {labels} labels; {advice}"


def _count(share: float, whole: float, clips: int) -> int:
    """Return how many clips scikit-learn selects. Arguments: as for `explain_few`."""
    return math.ceil(share / whole * clips)


def add_validation(split: np.ndarray, labels: np.ndarray, groups: np.ndarray, params: "SplitParams") -> np.ndarray:
    """Move clips from train to validation, if a published list has no validation clips.

    No group is in both, and each label keeps a train clip.

    Args:
        split: names, shape (clips,), dtype object; None for a clip that the list leaves out. labels, groups: as for
            `assign_splits`.

    Raises:
        UserError: there are too few clips for this share.
    """
    train, listed = np.flatnonzero(split == "train"), sum(name is not None for name in split)
    if "validation" in split or not params.validation_size or not len(train):
        return split
    reason = "each label keeps a train clip"
    try:
        chosen = select_grouped(train, params.validation_size * listed / len(train), params.seed, labels, groups)
    except ValueError as error:
        chosen, reason = train[:0], str(error)
    for label in np.unique(labels[train]):
        rows = train[labels[train] == label]
        if np.isin(rows, chosen).all():
            chosen = chosen[groups[chosen] != groups[rows[0]]]
    if not len(chosen):
        raise UserError(
            f"{params.validation_size:g} of {listed} clips cannot be cut from the {len(train)} train clips of the "
            f"published split ({reason}); set 0 to train on all of them, or another share",
            key="split.validation_size",
        )
    print(
        f"the published split has no validation clips: {len(chosen)} of its {len(train)} train clips select the best "
        "epoch; set split.validation_size: 0 to train on all of them"
    )
    return np.where(np.isin(np.arange(len(split)), chosen), "validation", split)


@contextmanager
def _refusing(key: str, method: str) -> Iterator[None]:
    """Turn a ValueError about too few clips into a UserError with the key to change."""
    try:
        yield
    except ValueError as error:
        message = " ".join(str(error).split()).rstrip(".")
        fix = "" if "add clips" in message else "; set it lower, or add clips" if "folds" in key else "; or add clips"
        raise UserError(f"{method}: {message}{fix}", key=key) from None
