"""Read and write the pipeline's tables and JSON files."""

import csv
import hashlib
import json
import os
import re
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any, BinaryIO, NamedTuple, TextIO

import pandas as pd
from pydantic import Field, TypeAdapter, ValidationError

from stages.common.contents import (
    Assignment,
    Baselines,
    Counts,
    Encoding,
    ExtractorConfig,
    Metrics,
    ModelConfig,
    Prediction,
    PublishedSplit,
    Rejected,
    Repetition,
    Source,
    Text,
    Training,
)
from stages.common.errors import UserError, damaged, reading
from stages.common.paths import (
    BASE_SOURCE,
    BASELINES,
    CLIPS,
    DATASET_SOURCE,
    ENCODED,
    FINETUNED,
    METRICS,
    PREDICTIONS,
    PUBLISHED_SPLIT,
    REJECTED,
    REPETITIONS,
    SPLIT_COUNTS,
    SPLITS,
    TRAINING,
)

SPLIT_NAMES = ("train", "validation", "test")
# What a spreadsheet runs as a formula, also if the CSV file quotes it.
FORMULA = re.compile(r"'*[=+\-@\t\r]")
READ_BY_LIBRARIES = {"metadata.csv"}  # 🤗 Datasets reads its names as they are
EPOCH_METRICS = ("train_loss", "eval_loss", "eval_accuracy")


class Clip(NamedTuple):
    """A row of data/raw/clips.csv. path: relative to data/raw; sampling_rate: Hz."""

    clip: Text
    label: Text
    path: Text
    sha256: Text
    sampling_rate: Annotated[int, Field(gt=0)]
    channels: Annotated[int, Field(gt=0)]
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)]


# What stages need of the outputs of others.
TABLES: dict[Path, Any] = {
    CLIPS: Clip,
    REJECTED: Rejected,
    REPETITIONS: Repetition,
    PUBLISHED_SPLIT: PublishedSplit,
    SPLITS: Assignment,
    PREDICTIONS: Prediction,
}
CONTENTS: dict[Path, Any] = {
    DATASET_SOURCE: Source,
    BASE_SOURCE: Source,
    SPLIT_COUNTS: Counts,
    BASELINES: Baselines,
    ENCODED / "encoding.json": Encoding,
    TRAINING: Training,
    METRICS: Metrics,
    FINETUNED / "config.json": ModelConfig,
    FINETUNED / "preprocessor_config.json": ExtractorConfig,
}
MAYBE_EMPTY = (REJECTED, REPETITIONS, PUBLISHED_SPLIT)


def quote_formula(text: str) -> str:
    """Put an apostrophe before a text that a spreadsheet would run as a formula."""
    return f"'{text}" if FORMULA.match(text) else text


def unquote_formula(text: str) -> str:
    """Remove the apostrophe of `quote_formula`."""
    return text[1:] if text.startswith("'") and FORMULA.match(text) else text


def read_table(file: Path | TextIO | BinaryIO) -> pd.DataFrame:
    """Read a CSV file as strings, so that 001 and NA keep their spelling. Empty cells are empty strings.

    The apostrophes that `write_table` puts before formulas are removed.

    Raises:
        UserError: the file is missing or damaged, or it is one of TABLES and has other columns or values.
    """
    with reading(file) if isinstance(file, Path) else nullcontext():
        table = pd.read_csv(file, dtype=str, keep_default_na=False)
    table = table.rename(columns=unquote_formula)
    for column in table:
        if table[column].str.startswith("'").any():
            table[column] = table[column].map(unquote_formula)
    if isinstance(file, Path) and file in TABLES:
        _check_rows(file, table, TABLES[file])
    return table


def _ends_with_line_feed(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read() == b"\n"


def _check_rows(path: Path, table: pd.DataFrame, row: Any) -> None:
    columns = list(row._fields)
    if missing := [column for column in columns if column not in table]:
        raise damaged(path, f"it has no column {missing[0]}")
    if not _ends_with_line_feed(path):
        raise damaged(path, "its last line is cut off")
    if table.empty and path not in MAYBE_EMPTY:
        raise damaged(path, "it has no rows")
    rows = list(table[columns].itertuples(index=False, name=None))
    try:
        TypeAdapter(list[row]).validate_python(rows)
    except ValidationError as error:
        detail = error.errors()[0]
        number, column = (int(part) for part in detail["loc"][:2])
        reason = f"row {number + 1}, {columns[column]}: {detail['msg']}, got {detail['input']!r}"
        raise damaged(path, reason) from None
    repeated = table[columns[0]].duplicated()
    if repeated.any():
        raise damaged(path, f"{columns[0]} {table[columns[0]][repeated].iloc[0]} is listed twice")


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a CSV file, the same bytes on every system.

    In tables for people, a text that a spreadsheet would run as a formula gets an apostrophe: '=SUM(A1).
    """
    texts = table.select_dtypes(include=["object", "string"])
    if path.name not in READ_BY_LIBRARIES:
        texts = texts.map(quote_formula, na_action="ignore")
        table = table.copy()
        table[texts.columns] = texts
        table = table.rename(columns=quote_formula)
    # The csv module quotes a line feed, but not a carriage return, at which a reader would end the line.
    breaks = any("\r" in str(text) for text in [*table.columns, *texts.to_numpy().flat])
    table.to_csv(path, index=False, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC if breaks else csv.QUOTE_MINIMAL)


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        UserError: the file is missing or damaged, or it is one of CONTENTS and has other content.
    """
    with reading(path):
        content = json.loads(path.read_text(encoding="utf-8"))
    try:
        TypeAdapter(CONTENTS.get(path, Any)).validate_python(content, strict=True)
    except ValidationError as error:
        detail = error.errors()[0]
        where = ".".join(map(str, detail["loc"]))
        raise damaged(path, f"{where + ': ' if where else ''}{detail['msg']}") from None
    return content


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file."""
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def select_scores(metrics: dict[str, Any]) -> dict[str, float]:
    """Select the scores on the test clips from the content of metrics.json."""
    others = ("selection_accuracy", "accuracy_low", "accuracy_high")
    return {name: value for name, value in metrics.items() if isinstance(value, float) and name not in others}


def read_epochs(folder: Path) -> pd.DataFrame:
    """Read DVCLive's files, one for each metric, as one table.

    Returns:
        One row for each epoch, indexed by it; float64 columns, e.g. train_loss.

    Raises:
        UserError: a file is missing or damaged.
    """
    with reading(folder):
        files = sorted(folder.glob("plots/metrics/*.tsv"))
        columns = [pd.read_csv(file, sep="\t", index_col="step") for file in files]
        epochs = pd.concat(columns, axis=1).rename_axis("epoch")
    if unknown := [name for name in EPOCH_METRICS if name not in epochs or epochs[name].dtype.kind not in "if"]:
        raise damaged(folder, f"it has no numbers for {unknown[0]}")
    lengths = {len(column) for column in columns} | {len(epochs)}
    if len(lengths) > 1 or list(epochs.index) != list(range(1, len(epochs) + 1)):
        raise damaged(folder, "its files do not have the same epochs")
    return epochs


def require_same_labels(clips: pd.DataFrame, splits: pd.DataFrame) -> None:
    """Check that data/raw/clips.csv has all clips of data/splits.csv, with the same labels.

    Raises:
        UserError: a clip is missing, or has another label.
    """
    labels = dict(zip(clips["clip"], clips["label"]))
    for name, label in zip(splits["clip"], splits["label"]):
        if name not in labels:
            raise UserError(f"{SPLITS} lists clip {name}, {CLIPS} does not have it; run dvc repro")
        if labels[name] != label:
            raise UserError(f"clip {name} has the label {label} in {SPLITS}, {labels[name]} in {CLIPS}; run dvc repro")


def require_intact(file: Path, sha256: str) -> None:
    """Raise UserError if a clip is not as clips.csv lists it: DVC hands on what the disk damaged in its cache."""
    with reading(file), file.open("rb") as content:
        found = hashlib.file_digest(content, "sha256").hexdigest()
    if found != sha256:
        raise damaged(file, "its SHA-256 is not that of clips.csv")
