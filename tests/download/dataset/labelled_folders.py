"""Folders of empty clips with tables of labels, for the tests of labelling."""

from pathlib import Path
from typing import Any

import pandas as pd
from helpers import user_error

from stages.common.errors import UserError
from stages.download.dataset.folder_clips import FolderClips
from stages.download.dataset.folders import list_files
from stages.download.dataset.label_tables import Columns
from stages.download.dataset.labelling import Labelling, find_labels

ANY = Columns(None, None, None)
KINDS = ["metadata.csv", "metadata.jsonl", "metadata.parquet"]


def write(root: Path, files: str, **tables: str) -> None:
    """Make empty files, and tables: <folder>_<name> -> text; `__` stands for a slash."""
    for name in files.split():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    for name, text in tables.items():
        file = root / f"{name.replace('__', '/')}.csv"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


def write_rows(root: Path, name: str, rows: list[dict[str, Any]]) -> None:
    """Write a table of any kind, and the empty files that it names."""
    write(root, " ".join(row["file_name"] for row in rows))
    table, file = pd.DataFrame(rows), root / name
    if file.suffix == ".csv":
        table.to_csv(file, index=False)
    elif file.suffix == ".jsonl":
        table.to_json(file, orient="records", lines=True)
    else:
        table.to_parquet(file)


def fetch(root: Path, **params: Any) -> UserError:
    """Return the error of the source for a folder."""
    source = FolderClips(source="folder", path=str(root), **params)
    return user_error(lambda: source.fetch(root.parent / "out"))


def find(root: Path, table: str | None = None, columns: Columns = ANY) -> Labelling:
    return find_labels(root, list_files(root).files, table, columns)
