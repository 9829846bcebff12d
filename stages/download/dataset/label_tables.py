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
from stages.download.dataset.label_cells import as_text, is_binary, list_names, read_label
from stages.download.dataset.parquet import UNREADABLE
from stages.download.dataset.published import name_split

KEY = "download.dataset"
# Columns of labels, the likeliest first: if there are names and numbers, the names.
LABEL_COLUMNS = (
    *("label", "labels", "class", "category", "genre", "class_name", "label_name", "emotion", "species", "language"),
    *("keyword", "word", "target", "tag", "tags"),
)
SPLIT_COLUMNS = ("split", "subset", "partition", "set")
SAMPLE = 1000  # rows in which the column of files is looked for
YES = {"1", "1.0", "true", "yes"}  # cells of a column for one label
NO = {"0", "0.0", "false", "no", "nan", "none", ""}
MAX_PATH = 4096  # characters of a cell that can be a path


class Columns(NamedTuple):
    """Names of the columns; None: find it."""

    file: str | None
    label: str | None
    split: str | None


class Table(NamedTuple):
    """A table of labels.

    path: as messages name it. folder: where it is in the data set; "" for the top, or if it is elsewhere. binary: the
    columns with bytes, whose cells are left empty.
    """

    path: str
    folder: str
    header: list[str]
    rows: list[list[str]]
    binary: frozenset[str] = frozenset()


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
        self.tops = {_fold_parts(top.as_posix().strip("/")) for top in (root.resolve(), root.absolute())}
        # Parts of a path, with and without its extension -> paths: all parts, or the last ones. A search among the
        # files of one name would be slow, because all clips may have the same name, in different folders.
        self.complete: dict[tuple[str, ...], list[str]] = {}
        self.ends: dict[tuple[str, ...], list[str]] = {}
        for path in paths:
            name = PurePosixPath(path)
            if name.suffix.lower() in EXTENSIONS | UNDECODABLE:
                *folders, file = _fold_parts(path)
                for last in {file, fold(name.stem)}:
                    parts = (*folders, last)
                    self.complete.setdefault(parts, []).append(path)
                    for start in range(len(parts)):
                        self.ends.setdefault(parts[start:], []).append(path)

    def find(self, cell: str, folder: str) -> list[str]:
        """Return the paths of the files that a cell can mean. folder: of its table."""
        text = cell.replace("\\", "/")
        if len(text) > MAX_PATH or text.rpartition("/")[2] in ("", ".", ".."):
            return []
        wanted = _fold_parts(posixpath.normpath(text).strip("/"))
        if text.startswith("/") or re.match("[A-Za-z]:/", text):
            return self._find_below(wanted, {len(top) for top in self.tops if wanted[: len(top)] == top})
        beside = posixpath.normpath(posixpath.join(folder, text))
        # Of x.wav and a/x.wav, the cell x.wav means the file beside the table.
        if near := self.complete.get(_fold_parts(beside)):
            return [path for path in near if beside in (path, str(PurePosixPath(path).with_suffix("")))] or near
        if wanted[0] == "..":  # it may still be inside: ../audio/x.wav of a table in meta/
            wanted = _fold_parts(beside)
        ends = self.ends.get(wanted, [])
        tops = {n for top in self.tops for n in range(1, len(top) + 1) if wanted[:n] == top[-n:]}
        below = self._find_below(wanted, tops)
        return ends + below if below else ends

    def _find_below(self, wanted: tuple[str, ...], tops: set[int]) -> list[str]:
        """Return the files of a cell that begins with folders above the data set. tops: their possible numbers."""
        return [path for n in sorted(tops) for path in self.complete.get(wanted[n:], [])]


def _fold_parts(path: str) -> tuple[str, ...]:
    return tuple(map(fold, path.split("/")))


def read_label_table(file: Path, path: str, folder: str = "") -> Table:
    """Read a table. path: as messages name it. folder: where it is in the data set, if it is there.

    Raises:
        UserError: the file is missing or is no such table.
    """
    binary: frozenset[str] = frozenset()
    if file.suffix.lower() in (".jsonl", ".json", ".parquet"):
        header, rows, binary = _read_records(file, path)
    else:
        text = read_text(f"{KEY}.table", str(file))
        headers = read_headers(text)
        separator = max(headers, key=lambda separator: len(headers[separator]))
        header = headers[separator]
        rows = read_rows(text, separator, f"{KEY}.table", path) if header else []
    if len(header) < 2 or not rows:
        raise UserError(f"{path} has no rows with a file and a label", key=f"{KEY}.table")
    return Table(path, folder, header, [row + [""] * (len(header) - len(row)) for row in rows], binary)


def _read_records(file: Path, path: str) -> tuple[list[str], list[list[str]], frozenset[str]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        if file.suffix.lower() == ".parquet":
            records: Any = pq.ParquetFile(file).read().to_pylist()
        else:
            lines = file.read_text(encoding="utf-8-sig").split("\n")
            records = [json.loads(line) for line in lines if line.strip()]
        header = list(dict.fromkeys(str(name) for record in records for name in record))
        rows = [[as_text(record.get(name)) for name in header] for record in records]
        binary = frozenset(name for record in records for name, value in record.items() if is_binary(value))
    except (pa.lib.ArrowException, RecursionError, *UNREADABLE) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"{path} has no rows of names and values: {reason}", key=f"{KEY}.table") from None
    return header, rows, binary


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
    if table.header[label] in table.binary:
        message = f"column {table.header[label]} of {table.path} is binary; a label is text or a number"
        raise UserError(message, key=f"{KEY}.label_column")
    split = _find_splits(table, file, label) if found["split"] is None else found["split"]
    rows = [Row(row[file], read_label(row[label]), "" if split is None else row[split]) for row in table.rows]
    used = [table.header[i] for i in (file, label, split) if i is not None]
    parts = [f"{what} from the column {name}" for what, name in zip(("files", "labels", "splits"), used)]
    print(f"{table.path}: " + ", ".join(parts))
    return [row for row in rows if any(row)]


def _no_labels(table: Table, file: int) -> UserError:
    """Return the error for a table without a column that is known to have labels. file: its column of files."""
    taken = (file, _find_splits(table, file))
    cells = [{row[i].lower() for row in table.rows} for i in range(len(table.header))]
    others = [i for i, name in enumerate(table.header) if name and i not in taken and cells[i] != {""}]
    if not others:
        return UserError("it has no column of labels; add one, such as label", file=table.path)
    flags = [i for i in others if cells[i] <= YES | NO and cells[i] & YES]
    one_each = all(sum(row[i].lower() in YES for i in flags) == 1 for row in table.rows)
    only_flags = all(cells[i] <= YES | NO for i in others)
    choose = f"set {KEY}.label_column to one of: "
    if len(flags) > 1 and (one_each or only_flags):
        names = list_names([table.header[i] for i in flags])
        message = f"it has a column for each label ({names}); replace them by one column, label, with the label's name"
        rest = [table.header[i] for i in others if i not in flags]
        return UserError(message + (f", or {choose}{list_names(rest)}" if rest else ""), file=table.path)
    names = list_names([table.header[i] for i in others])
    return UserError(f"no column of {table.path} is known to have labels; {choose}{names}", key=f"{KEY}.label_column")


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
