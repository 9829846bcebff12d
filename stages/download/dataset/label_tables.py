"""Read tables of labels: CSV, JSON lines or Parquet, with a column of files and a column of labels."""

import json
import posixpath
import re
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from stages.common.clip_tables import read_headers, read_rows, read_text
from stages.common.errors import UserError
from stages.common.extensions import EXTENSIONS, UNDECODABLE
from stages.common.spelling import fold
from stages.download.dataset.label_cells import as_text, list_names, read_label
from stages.download.dataset.published import name_split

KEY = "download.dataset"
# Columns of labels, the likeliest first: if there are names and numbers, the names.
LABEL_COLUMNS = (
    *("label", "labels", "class", "category", "genre", "class_name", "label_name", "emotion", "species", "language"),
    *("keyword", "word", "target", "tag", "tags"),
)
SPLIT_COLUMNS = ("split", "subset", "partition", "set")
SAMPLE = 1000  # rows in which the column of files is looked for
YES, NO = {"1", "1.0", "true"}, {"0", "0.0", "false", ""}  # cells of a column for one label


class Columns(NamedTuple):
    """Names of the columns; None: find it."""

    file: str | None
    label: str | None
    split: str | None


class Table(NamedTuple):
    """A table of labels.

    path: as messages name it. folder: where it is in the data set; "" for the top, or if it is elsewhere.
    """

    path: str
    folder: str
    header: list[str]
    rows: list[list[str]]


class Row(NamedTuple):
    """A row of a table, with "" for what it lacks. label: a list if it has several. split: as the table spells it."""

    file: str
    label: str
    split: str


class Files:
    """Find the files of a data set that the cells of a table name.

    A cell may have all folders of a file, or only the last ones, the extension or not, and backslashes.
    """

    def __init__(self, root: Path, paths: list[str]) -> None:
        self.tops = {
            tuple(map(fold, top.as_posix().strip("/").split("/"))) for top in (root.resolve(), root.absolute())
        }
        self.by_name: dict[str, list[str]] = {}
        for path in paths:
            name = PurePosixPath(path)
            if name.suffix.lower() in EXTENSIONS | UNDECODABLE:
                for key in {fold(name.name), fold(name.stem)}:
                    self.by_name.setdefault(key, []).append(path)

    def find(self, cell: str, folder: str) -> list[str]:
        """Return the paths of the files that a cell can mean. folder: of its table."""
        text = cell.replace("\\", "/")
        name = fold(text.rpartition("/")[2])
        if not name or name not in self.by_name:
            return []
        absolute = text.startswith("/") or re.match("[A-Za-z]:/", text) is not None
        beside = posixpath.normpath(text if absolute else posixpath.join(folder, text))
        wanted = tuple(map(fold, posixpath.normpath(text).strip("/").split("/")))
        if wanted[0] == "..":  # it may still be inside: ../audio/x.wav of a table in meta/
            wanted = tuple(map(fold, beside.split("/")))
        fits = [path for path in self.by_name[name] if self._ends_with(path, wanted, absolute)]
        # Of x.wav and a/x.wav, the cell x.wav means the file beside the table.
        return [path for path in fits if beside in (path, str(PurePosixPath(path).with_suffix("")))] or fits

    def _ends_with(self, path: str, wanted: tuple[str, ...], absolute: bool) -> bool:
        """Return whether the folders of a path, with those above the data set, end as a cell says."""
        folders = tuple(map(fold, path.split("/")[:-1]))
        complete = [top + folders for top in self.tops]
        above = wanted[:-1]
        return any(top == above if absolute else top[len(top) - len(above) :] == above for top in complete)


def read_label_table(file: Path, path: str, folder: str = "") -> Table:
    """Read a table. path: as messages name it. folder: where it is in the data set, if it is there.

    Raises:
        UserError: the file is missing or is no such table.
    """
    if file.suffix.lower() in (".jsonl", ".json", ".parquet"):
        header, rows = _read_records(file, path)
    else:
        text = read_text(f"{KEY}.table", str(file))
        headers = read_headers(text)
        separator = max(headers, key=lambda separator: len(headers[separator]))
        header = headers[separator]
        rows = read_rows(text, separator, f"{KEY}.table", path) if header else []
    if len(header) < 2 or not rows:
        raise UserError(f"{path} has no rows with a file and a label", key=f"{KEY}.table")
    return Table(path, folder, header, [row + [""] * (len(header) - len(row)) for row in rows])


def _read_records(file: Path, path: str) -> tuple[list[str], list[list[str]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        if file.suffix.lower() == ".parquet":
            records: Any = pq.ParquetFile(file).read().to_pylist()
        else:
            lines = file.read_text(encoding="utf-8").split("\n")
            records = [json.loads(line) for line in lines if line.strip()]
        header = list(dict.fromkeys(str(name) for record in records for name in record))
        rows = [[as_text(record.get(name)) for name in header] for record in records]
    except (pa.lib.ArrowException, ValueError, AttributeError, TypeError, OSError, RecursionError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"{path} has no rows of names and values: {reason}", key=f"{KEY}.table") from None
    return header, rows


def select_columns(table: Table, files: Files, columns: Columns) -> list[Row]:
    """Return the rows of a table, with their three columns.

    Raises:
        UserError: a column that is named does not exist, or one that is not named was not found.
    """
    listed = ", ".join(name or "''" for name in table.header[:30])
    found = {}
    for key, name in columns._asdict().items():
        found[key] = _find_column(table.header, name)
        if name is not None and found[key] is None:
            raise UserError(f"no column {name} in {table.path}; its columns: {listed}", key=f"{KEY}.{key}_column")
    file = _find_files(table, files) if found["file"] is None else found["file"]
    if file is None:
        message = f"no column of {table.path} has names of the clips; its columns: {listed}"
        raise UserError(message, key=f"{KEY}.file_column")
    label = _first_column(table.header, LABEL_COLUMNS, file) if found["label"] is None else found["label"]
    if label is None:
        raise _no_labels(table, file)
    split = _find_splits(table, file, label) if found["split"] is None else found["split"]
    rows = [Row(row[file], read_label(row[label]), "" if split is None else row[split]) for row in table.rows]
    used = [table.header[i] for i in (file, label, split) if i is not None]
    print(f"{table.path}: the columns are " + ", ".join(f"{n} {c}" for n, c in zip(("file", "label", "split"), used)))
    return [row for row in rows if any(row)]


def _no_labels(table: Table, file: int) -> UserError:
    """Return the error for a table without a column that is known to have labels. file: its column of files."""
    taken = (file, _find_splits(table, file))
    others = [i for i, name in enumerate(table.header) if name and i not in taken]
    if not others:
        return UserError("it has no column of labels; add one, such as label", file=table.path)
    flags = [i for i in others if {row[i].lower() for row in table.rows} <= YES | NO]
    one_each = all(sum(row[i].lower() in YES for i in flags) == 1 for row in table.rows)
    if len(flags) > 1 and (one_each or flags == others):
        names = list_names([table.header[i] for i in flags])
        message = f"it has a column for each label ({names}); replace them by one column, label, with the label's name"
        return UserError(message, file=table.path)
    names = list_names([table.header[i] for i in others if i not in flags or flags == others])
    message = f"no column of {table.path} is known to have labels; set {KEY}.label_column to one of: {names}"
    return UserError(message, key=f"{KEY}.label_column")


def _find_column(header: list[str], name: str | None) -> int | None:
    if name is None or name in header:
        return None if name is None else header.index(name)
    names = [fold(column) for column in header]
    return names.index(fold(name)) if fold(name) in names else None


def _first_column(header: list[str], names: tuple[str, ...], *taken: int) -> int | None:
    places = [_find_column(header, name) for name in names]
    return next((place for place in places if place is not None and place not in taken), None)


def _find_files(table: Table, files: Files) -> int | None:
    """Return the column with the most names of files; of equal ones, the first."""
    rows = table.rows[:SAMPLE]
    hits = [sum(bool(files.find(row[i], table.folder)) for row in rows) for i in range(len(table.header))]
    named = _find_column(table.header, "file_name")  # the name that audiofolder wants
    if named is not None and hits[named]:
        return named
    return hits.index(max(hits)) if any(hits) else None


def _find_splits(table: Table, *taken: int) -> int | None:
    """Return a column of splits, if all its cells are names of splits or empty."""
    place = _first_column(table.header, SPLIT_COLUMNS, *taken)
    if place is None:
        return None
    cells = {row[place] for row in table.rows} - {""}
    return place if cells and all(map(name_split, cells)) else None
