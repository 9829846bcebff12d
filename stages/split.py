"""Assign every clip to train, validation or test, and count what the splits share.

Reads   params.yaml: split; data/raw/clips.csv, rejected.csv; data/tables/ (or wherever the params point)
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

CLIPS = Path("data/raw/clips.csv")
REJECTED = Path("data/raw/rejected.csv")
SPLITS = Path("data/splits.csv")
REPORT = Path("metrics/split.json")
SPLIT_NAMES = ("train", "validation", "test")
FINEST_FOLD = 20  # a share is made of whole folds: 0.1 is one fold of ten, 0.15 three of twenty


class Params(Section):
    method: Literal["random", "stratified", "grouped", "published"]
    seed: int = Field(ge=0)
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


def read_table(key: str, path: str, columns: list[str]) -> pd.DataFrame:
    """Read two columns of a CSV as text.

    Raises:
        StageError: the file or a column is missing.
    """
    try:
        return pd.read_csv(path, dtype=str)[columns]
    except FileNotFoundError:
        raise StageError(f"params.yaml: split.{key}: no file {path}") from None
    except (KeyError, pd.errors.ParserError, pd.errors.EmptyDataError):
        raise StageError(f"params.yaml: split.{key}: {path} needs the columns {' and '.join(columns)}") from None


def read_groups(groups: dict[str, str], clips: pd.Series) -> pd.DataFrame:
    """One text column per kind of group, one row per clip; NaN where a clip's group is not known."""
    table = pd.DataFrame(index=pd.Index(clips))
    for kind, path in groups.items():
        known = read_table(f"groups.{kind}", path, ["clip", kind]).set_index("clip")[kind]
        if not known.index.is_unique:
            raise StageError(f"{path}: clip {known.index[known.index.duplicated()][0]} is listed twice; keep one line")
        table[kind] = known.reindex(table.index)
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
    try:
        return train_test_split(rows, test_size=share, random_state=seed, stratify=labels[rows])[1]
    except ValueError as error:
        raise StageError(f"split: {error}; change split.test or split.validation, or add clips") from None


def take_grouped(rows: np.ndarray, share: float, seed: int, labels: np.ndarray, groups: np.ndarray) -> np.ndarray:
    from sklearn.model_selection import StratifiedGroupKFold

    folds = Fraction(share).limit_denominator(FINEST_FOLD)
    if not 0 < folds < 1 or len(set(groups[rows])) < folds.denominator:
        raise StageError(f"split: {len(set(groups[rows]))} groups are too few for a share of {share}; make it larger")
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
    split[take(rows, params.test, params.seed)] = "test"
    if params.validation:
        rest = rows[split == "train"]
        split[take(rest, params.validation / (1 - params.test), params.seed)] = "validation"
    return split


def look_up(clips: pd.DataFrame, rejected: set[str], path: str) -> np.ndarray:
    """Split names of a published list, shape (clips,), dtype object; None for a clip that it leaves out.

    Raises:
        StageError: the list names a clip that the data set does not have, unless download rejected its file.
    """
    table = read_table("published", path, ["clip", "split"]).set_index("clip")["split"]
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


def check_labels(splits: pd.DataFrame) -> None:
    """Raises StageError where a label has clips, but none to learn from."""
    lost = sorted(set(splits["label"]) - set(splits.loc[splits["split"] == "train", "label"]))
    if lost:
        raise StageError(f"label {lost[0]} has no clip in train; add clips, change split.seed or split.method")


def main() -> None:
    params = load_params("split", Params)
    need(CLIPS, REJECTED)
    clips = pd.read_csv(CLIPS, dtype=str)
    rejected = {Path(file).stem for file in pd.read_csv(REJECTED, dtype=str)["file"]}
    groups = read_groups(params.groups, clips["clip"])
    clips["group"] = connect(groups)
    if params.method == "published":
        clips["split"] = look_up(clips, rejected, params.published)
    else:
        clips["split"] = assign(clips, clips["group"].to_numpy(), params)
    listed = clips["split"].notna().to_numpy()
    splits = clips.loc[listed, ["clip", "label", "split", "group"]]
    check_labels(splits)
    report = {"method": params.method} | count(splits, groups[listed], left_out=int((~listed).sum()))
    with whole(SPLITS) as file:
        splits.to_csv(file, index=False, lineterminator="\n")
    with whole(REPORT) as file:
        file.write_text(json.dumps(report, indent=2) + "\n")
    print(f"{SPLITS}: " + ", ".join(f"{total} {name}" for name, total in report["total"].items()))
    for kind, leak in report["leakage"].items():
        print(f"{leak['shared']} of {leak['test_clips']} test clips share their {kind} with train or validation")


if __name__ == "__main__":
    run(main)
