"""Read and write the pipeline's tables and JSON files."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

SPLIT_NAMES = ("train", "validation", "test")


class Clip(NamedTuple):
    """A row of data/raw/clips.csv. path: relative to data/raw; sampling_rate: Hz."""

    clip: str
    label: str
    path: str
    sha256: str
    sampling_rate: int
    channels: int
    seconds: float


def read_table(path: Path) -> pd.DataFrame:
    """Read a CSV file as strings, so that 001 and NA keep their spelling. Empty cells are empty strings."""
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a CSV file, the same bytes on every system."""
    table.to_csv(path, index=False, lineterminator="\n")


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
