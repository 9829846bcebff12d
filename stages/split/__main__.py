"""Assign every clip to train, validation or test, and count what the splits share.

Reads   params.yaml: split; data/raw/clips.csv, rejected.csv, repetitions.csv; data/tables/
Writes  data/splits.csv: clip, label, split, group
        metrics/split.json: clips per split and label, leakage
Run     python -m stages.split
"""

import json
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from pydantic import Field, model_validator

from stages.common.groups import connect, look_into, read_groups
from stages.common.stage import Number, Section, StageError, load_params, need, run, whole
from stages.common.tables import read_table

CLIPS = Path("data/raw/clips.csv")
REJECTED = Path("data/raw/rejected.csv")
REPETITIONS = Path("data/raw/repetitions.csv")
SPLITS = Path("data/splits.csv")
REPORT = Path("metrics/split.json")
SPLIT_NAMES = ("train", "validation", "test")
FINEST_FOLD = 20  # a share is made of whole folds: 0.1 is one fold of ten, 0.15 three of twenty


class Params(Section):
    method: Literal["random", "stratified", "grouped", "published"]
    seed: int = Field(ge=0, lt=2**32)
    test: Number = Field(gt=0, lt=1)  # share of the clips; a published split has its own, and so has a fold
    validation: Number = Field(ge=0, lt=1)
    folds: int | None = Field(None, ge=2)  # cross-validation: test is one of so many folds, each clip in one of them
    fold: int = Field(0, ge=0)  # which one
    groups: dict[str, str] = {}  # what clips can share, such as an artist -> a CSV with the columns clip and that name
    published: str | None = None  # a CSV with the columns clip and split

    @model_validator(mode="after")
    def _fits(self) -> "Params":
        if self.share + self.validation >= 1:
            raise ValueError("test and validation leave nothing to train on")
        if "recording" in self.groups:
            raise ValueError("groups: recording is found in the audio; name the column of your table otherwise")
        if self.folds and self.method not in ("stratified", "grouped"):
            raise ValueError(f"folds needs method stratified or grouped, not {self.method}; set folds: null")
        if self.fold >= (self.folds or 1):
            of = f"of {self.folds}, counted from 0" if self.folds else "of none; set folds too"
            raise ValueError(f"there is no fold {self.fold} {of}")
        if self.method == "published" and not self.published:
            raise ValueError("method published needs published: a CSV with the columns clip and split")
        return self

    @property
    def share(self) -> float:
        """The test clips' share of all."""
        return 1 / self.folds if self.folds else self.test


def take_random(rows: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Call `train_test_split` exactly as the course does; on GTZAN sorted by name it gives the same 100 test clips."""
    from datasets import Dataset

    parts = Dataset.from_dict({"row": rows}).train_test_split(seed=seed, shuffle=True, test_size=share)
    return np.array(parts["test"]["row"])


def take_stratified(rows: np.ndarray, share: float, seed: int, labels: np.ndarray) -> np.ndarray:
    from sklearn.model_selection import train_test_split

    lone = pd.Series(labels[rows]).value_counts()
    if lone.min() < 2:
        raise StageError(
            f"label {lone.idxmin()} has a single clip left to split and cannot be stratified; "
            "add clips, remove the label, or set split.method: random"
        )
    return train_test_split(rows, test_size=share, random_state=seed, stratify=labels[rows])[1]


def take_grouped(rows: np.ndarray, share: float, seed: int, labels: np.ndarray, groups: np.ndarray) -> np.ndarray:
    # Fewer clips make coarser folds.
    finest = min(FINEST_FOLD, len(set(groups[rows])), int(pd.Series(labels[rows]).value_counts().max()))
    folds = Fraction(share).limit_denominator(finest)
    if not 0 < folds < 1:
        raise StageError(f"split: a grouped share must lie between 1/{finest} and {finest - 1}/{finest}; or add clips")
    parts = cut(rows, folds.denominator, seed, labels, groups)
    # Large groups make uneven folds; those that mix the labels as the whole does come first.
    parts.sort(key=lambda part: _imbalance(labels[part], labels[rows], folds.denominator))
    return np.concatenate(parts[: folds.numerator])


def cut(rows: np.ndarray, folds: int, seed: int, labels: np.ndarray, groups: np.ndarray) -> list[np.ndarray]:
    """Rows in folds that mix the labels alike; no group is in two of them."""
    from sklearn.model_selection import StratifiedGroupKFold

    number = len(set(groups[rows]))
    if number < folds:
        raise StageError(f"split: {number} groups cannot be cut into {folds} folds; set fewer, or add clips")
    folding = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    return [rows[test] for _, test in folding.split(rows, labels[rows], groups[rows])]


def _imbalance(part: np.ndarray, whole: np.ndarray, folds: int) -> float:
    return sum(abs((part == label).sum() - (whole == label).sum() / folds) for label in np.unique(whole))


def assign(clips: pd.DataFrame, groups: np.ndarray, params: Params) -> np.ndarray:
    """Split names, shape (clips,), dtype object: first the test clips are taken, then validation from the rest."""
    labels = clips["label"].to_numpy()
    take = {
        "random": take_random,
        "stratified": lambda *args: take_stratified(*args, labels),
        "grouped": lambda *args: take_grouped(*args, labels, groups),
    }[params.method]
    rows = np.arange(len(clips))
    together = groups if params.method == "grouped" else rows
    split = np.full(len(clips), "train", dtype=object)
    try:
        if params.folds:
            split[cut(rows, params.folds, params.seed, labels, together)[params.fold]] = "test"
        else:
            split[take(rows, params.test, params.seed)] = "test"
        if params.validation:
            rest = rows[split == "train"]
            split[take(rest, params.validation / (1 - params.share), params.seed)] = "validation"
    except ValueError as error:
        told = " ".join(str(error).split()).rstrip(".")
        mend = "set split.folds lower" if params.folds else "change the shares"
        raise StageError(f"split.{params.method}: {told}; {mend}, or add clips") from None
    return split


def look_up(clips: pd.DataFrame, rejected: set[str], path: str) -> np.ndarray:
    """Split names of a published list, shape (clips,), dtype object; None for a clip that it leaves out.

    Raises:
        StageError: the list names a clip that the data set does not have, unless download rejected its file.
    """
    table = look_into("published", path, ["clip", "split"])
    odd = sorted(set(table.fillna("")) - set(SPLIT_NAMES))
    if odd:
        raise StageError(f"{path}: split {odd[0]!r}; it must be one of {', '.join(SPLIT_NAMES)}")
    unknown = sorted(set(table.index) - set(clips["clip"]) - rejected)
    if unknown:
        raise StageError(
            f"{path} names {len(unknown)} clips that {CLIPS} does not have (first: {unknown[0]}); "
            "use the list that belongs to this data set"
        )
    return clips["clip"].map(table).astype(object).where(lambda split: split.notna(), None).to_numpy()


def count(splits: pd.DataFrame, groups: pd.DataFrame, left_out: int) -> dict[str, Any]:
    """Clips per split and label, and per kind of group the test clips that share one with train or validation."""
    clips = splits.groupby(["split", "label"]).size()
    test = splits["split"].to_numpy() == "test"
    leakage = {}
    for kind in groups:
        names = groups[kind].to_numpy()
        known = test & pd.notna(names)
        leakage[kind] = {
            "test_clips": int(test.sum()),
            "known": int(known.sum()),
            "shared": int(np.isin(names[known], names[~test & pd.notna(names)]).sum()),
        }
    return {
        "total": {name: int((splits["split"] == name).sum()) for name in SPLIT_NAMES},
        "left_out": left_out,
        "labels": {
            label: {name: int(clips.get((name, label), 0)) for name in SPLIT_NAMES}
            for label in sorted(splits["label"].unique())
        },
        "leakage": leakage,
    }


def check_labels(labels: pd.Series, splits: pd.DataFrame) -> None:
    """Raises StageError where a label has nothing to learn from, or nothing is left to test on."""
    lost = sorted(set(labels) - set(splits.loc[splits["split"] == "train", "label"]))
    if lost:
        raise StageError(f"label {lost[0]} has no clip in train; add clips, or change split.seed or split.method")
    if not (splits["split"] == "test").any():
        raise StageError("no clip is in test; make split.test larger, or list some")


def tell_uneven(totals: dict[str, int], params: Params) -> None:
    """Say where keeping groups whole made a split half as large again as asked, or half of it."""
    clips = sum(totals.values())
    for name, share in (("test", params.share), ("validation", params.validation)):
        if share and not 0.5 < totals[name] / (share * clips) < 1.5:
            print(f"{name} holds {totals[name] / clips:.0%} of the clips, not {share:.0%}: groups are kept whole")


def main() -> None:
    params = load_params("split", Params)
    need(CLIPS, REJECTED, REPETITIONS)
    # In sorted order, a split does not depend on where the clips came from. This order is also the course's.
    clips = read_table(CLIPS).sort_values(["label", "clip"], ignore_index=True)
    rejected = {Path(file).stem for file in read_table(REJECTED)["file"]}
    groups = read_groups(params.groups, clips["clip"], read_table(REPETITIONS))
    clips["group"] = connect(groups)
    if params.method == "published":
        clips["split"] = look_up(clips, rejected, params.published)
    else:
        clips["split"] = assign(clips, clips["group"].to_numpy(), params)
    listed = clips["split"].notna().to_numpy()
    splits = clips.loc[listed, ["clip", "label", "split", "group"]]
    check_labels(clips["label"], splits)
    report = params.model_dump(include={"method", "seed"} | ({"folds", "fold"} if params.folds else set()))
    report |= count(splits, groups[listed], left_out=int((~listed).sum()))
    with whole(SPLITS) as file:
        splits.to_csv(file, index=False, lineterminator="\n")
    with whole(REPORT) as file:
        file.write_text(json.dumps(report, indent=2) + "\n")
    print(f"{SPLITS}: " + ", ".join(f"{total} {name}" for name, total in report["total"].items()))
    if params.method == "grouped":
        tell_uneven(report["total"], params)
    for kind, leak in report["leakage"].items():
        known = f"test clips whose {kind} is known"
        print(f"{leak['shared']} of the {leak['known']} {known} share it with train or validation")


if __name__ == "__main__":
    run(main, {"split": Params})
