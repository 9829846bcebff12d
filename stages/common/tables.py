"""Read and write the pipeline's tables and JSON files."""

import csv
import json
import re
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TextIO

import pandas as pd

SPLIT_NAMES = ("train", "validation", "test")
# What a spreadsheet runs as a formula, also if the CSV file quotes it.
FORMULA = re.compile(r"'*[=+\-@\t\r]")
READ_BY_LIBRARIES = {"metadata.csv"}  # 🤗 Datasets reads its names as they are


class Clip(NamedTuple):
    """A row of data/raw/clips.csv. path: relative to data/raw; sampling_rate: Hz."""

    clip: str
    label: str
    path: str
    sha256: str
    sampling_rate: int
    channels: int
    seconds: float


def quote_formula(text: str) -> str:
    """Put an apostrophe before a text that a spreadsheet would run as a formula."""
    return f"'{text}" if FORMULA.match(text) else text


def unquote_formula(text: str) -> str:
    """Remove the apostrophe of `quote_formula`."""
    return text[1:] if text.startswith("'") and FORMULA.match(text) else text


def read_table(file: Path | TextIO | BinaryIO) -> pd.DataFrame:
    """Read a CSV file as strings, so that 001 and NA keep their spelling. Empty cells are empty strings.

    The apostrophes that `write_table` puts before formulas are removed.
    """
    table = pd.read_csv(file, dtype=str, keep_default_na=False)
    return table.rename(columns=unquote_formula).map(unquote_formula)


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
    """Read a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


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
    """
    files = sorted(folder.glob("plots/metrics/*.tsv"))
    return pd.concat([pd.read_csv(file, sep="\t", index_col="step") for file in files], axis=1).rename_axis("epoch")
