"""Assign every clip to train, validation or test, and count what the splits share.

Reads   params.yaml: split; data/raw/clips.csv, rejected.csv; data/tables/
Writes  data/splits.csv: clip, label, split, group
        metrics/split.json: clips per split and label, leakage
Run     python -m stages.split
"""

import json
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import networkx
import numpy as np
import pandas as pd
from pydantic import Field, model_validator

from stages.common.stage import Number, Section, StageError, load_params, need, run, whole
from stages.common.tables import read_table

CLIPS = Path("data/raw/clips.csv")
REJECTED = Path("data/raw/rejected.csv")
SPLITS = Path("data/splits.csv")
REPORT = Path("metrics/split.json")
SPLIT_NAMES = ("train", "validation", "test")
FINEST_FOLD = 20  # a share is made of whole folds: 0.1 is one fold of ten, 0.15 three of twenty


class Params(Section):
    method: Literal["random", "stratified", "grouped", "published"]
    seed: int = Field(ge=0, lt=2**32)
    test: Number = Field(gt=0, lt=1)  # share of the clips; a published split has its own
    validation: Number = Field(ge=0, lt=1)
    groups: dict[str, str] = {}  # what clips can share, such as an artist -> a CSV with the columns clip and that name
    published: str | None = None  # a CSV with the columns clip and split

    @model_validator(mode="after")
    def _fits(self) -> "Params":
        if self.test + self.validation >= 1:
            raise ValueError("test and validation leave nothing to train on")
        if self.method == "grouped" and not self.groups:
            raise ValueError("method grouped needs groups, such as artist: data/tables/gtzan_artists.csv")
        if self.method == "published" and not self.published:
            raise ValueError("method published needs published: a CSV with the columns clip and split")
        return self


def look_into(key: str, path: str, columns: list[str]) -> pd.Series:
    """The second column of a person's CSV as text, indexed by the first, which is clip; NaN for an empty cell.

    Raises:
        StageError: the file or a column is missing, or a clip is listed twice.
    """
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, na_values=[""])[columns]
    except UnicodeDecodeError:
        raise StageError(f"params.yaml: split.{key}: {path} is not UTF-8; save it as UTF-8") from None
    except OSError:
        raise StageError(f"params.yaml: split.{key}: no file {path}") from None
    except (KeyError, pd.errors.ParserError, pd.errors.EmptyDataError):
        raise StageError(f"params.yaml: split.{key}: {path} needs the columns {' and '.join(columns)}") from None
    table = table.dropna(subset="clip").set_index("clip")[columns[1]]
    if not table.index.is_unique:
        raise StageError(f"{path}: clip {table.index[table.index.duplicated()][0]} is listed twice; keep one line")
    return table


def read_groups(groups: dict[str, str], clips: pd.DataFrame) -> pd.DataFrame:
    """What clips can share: one text column per kind, one row per clip, NaN where it is not known.

    The kind `bytes` is always there: two clips of the same content are one recording under two names.

    Raises:
        StageError: tables of which none knows a clip, so that they would group nothing.
    """
    table = pd.DataFrame({"bytes": clips["sha256"].to_numpy()}, index=pd.Index(clips["clip"]))
    for kind, path in groups.items():
        table[kind] = look_into(f"groups.{kind}", path, ["clip", kind]).reindex(table.index)
    if groups and table[list(groups)].isna().all(axis=None):
        paths = ", ".join(groups.values())
        raise StageError(
            f"params.yaml: split.groups: {paths} know none of the clips, such as {table.index[0]}; "
            f"name them as {CLIPS} does"
        )
    return table


def connect(groups: pd.DataFrame) -> np.ndarray:
    """Number the groups of clips that share anything, directly or over another clip: int64, shape (clips,)."""
    graph = networkx.Graph()
    graph.add_nodes_from(groups.index)
    for kind in groups:
        graph.add_edges_from((clip, (kind, name)) for clip, name in groups[kind].dropna().items())
    number = {node: i for i, part in enumerate(networkx.connected_components(graph)) for node in part}
    return np.array([number[clip] for clip in groups.index])


def take_random(rows: np.ndarray, share: float, seed: int) -> np.ndarray:
    """The course's own call, so that the same data set in the same order gives the same test clips."""
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
    from sklearn.model_selection import StratifiedGroupKFold

    folds = Fraction(share).limit_denominator(FINEST_FOLD)
    if not 0 < folds < 1:
        raise StageError(f"split: a grouped share must lie between 1/{FINEST_FOLD} and {FINEST_FOLD - 1}/{FINEST_FOLD}")
    if len(set(groups[rows])) < folds.denominator:
        raise StageError(f"split: {len(set(groups[rows]))} groups cannot be cut into {folds.denominator}; add clips")
    cut = StratifiedGroupKFold(folds.denominator, shuffle=True, random_state=seed)
    parts = [rows[test] for _, test in cut.split(rows, labels[rows], groups[rows])]
    # Large groups make uneven folds; those that mix the labels as the whole does come first.
    parts.sort(key=lambda part: _imbalance(labels[part], labels[rows], folds.denominator))
    return np.concatenate(parts[: folds.numerator])


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
    split = np.full(len(clips), "train", dtype=object)
    try:
        split[take(rows, params.test, params.seed)] = "test"
        if params.validation:
            rest = rows[split == "train"]
            split[take(rest, params.validation / (1 - params.test), params.seed)] = "validation"
    except ValueError as error:
        told = " ".join(str(error).split()).rstrip(".")
        raise StageError(f"split.{params.method}: {told}; change the shares, or add clips") from None
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


def main() -> None:
    params = load_params("split", Params)
    need(CLIPS, REJECTED)
    clips = read_table(CLIPS)
    rejected = {Path(file).stem for file in read_table(REJECTED)["file"]}
    groups = read_groups(params.groups, clips)
    clips["group"] = connect(groups)
    if params.method == "published":
        clips["split"] = look_up(clips, rejected, params.published)
    else:
        clips["split"] = assign(clips, clips["group"].to_numpy(), params)
    listed = clips["split"].notna().to_numpy()
    splits = clips.loc[listed, ["clip", "label", "split", "group"]]
    check_labels(clips["label"], splits)
    report = {"method": params.method, "seed": params.seed} | count(
        splits, groups[listed], left_out=int((~listed).sum())
    )
    with whole(SPLITS) as file:
        splits.to_csv(file, index=False, lineterminator="\n")
    with whole(REPORT) as file:
        file.write_text(json.dumps(report, indent=2) + "\n")
    print(f"{SPLITS}: " + ", ".join(f"{total} {name}" for name, total in report["total"].items()))
    for kind, leak in report["leakage"].items():
        known = f"test clips whose {kind} is known"
        print(f"{leak['shared']} of the {leak['known']} {known} share it with train or validation")


if __name__ == "__main__":
    run(main)
