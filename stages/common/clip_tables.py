"""Read the tables that users bring, such as groups or MD5s of clips, whatever program wrote them."""

import codecs
import csv
import io
import re
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import NamedTuple

import pandas as pd

from stages.common.errors import UserError
from stages.common.extensions import EXTENSIONS
from stages.common.lfs import POINTER, is_pointer
from stages.common.spelling import fold
from stages.common.tables import unquote_formula
from stages.common.user_paths import expand_path

SEPARATORS = ",;\t"


class Matched(NamedTuple):
    """A table's cells for the clips of the data set.

    cells: strings, one for each clip, indexed by it; NaN if the table lacks the clip or its cell is empty.
    others: names in the table that are no clip of the data set.
    """

    cells: pd.Series
    others: list[str]


def read_clip_table(key: str, path: str, columns: list[str]) -> pd.Series:
    """Read the second column of a user's CSV file, indexed by the first, which is clip.

    The file may be UTF-8, or UTF-16 with a byte order mark, and separated by commas, semicolons or tabs.
    Case and spaces around the names of columns do not matter, nor do spaces around cells, nor the apostrophe that
    `write_table` puts before a formula.

    Args:
        key: of params.yaml, dotted.

    Returns:
        Strings; NaN for an empty cell.

    Raises:
        UserError: the file or a column is missing, the file is no CSV file, or a clip is listed twice.
    """
    text = read_text(key, path)
    headers = read_headers(text)
    found = {separator: [_find_column(header, column) for column in columns] for separator, header in headers.items()}
    separator = next((separator for separator, places in found.items() if None not in places), None)
    if separator is None:
        raise UserError(f"{path} needs the columns {' and '.join(columns)}", key=key)
    places = found[separator]
    rows = read_rows(text, separator, key, path)
    cells = [[row[i] if i is not None and i < len(row) else "" for i in places] for row in rows]
    listed = pd.DataFrame([row for row in cells if row[0]], columns=columns, dtype=object)
    column = listed.set_index("clip")[columns[1]].replace("", float("nan"))
    if not column.index.is_unique:
        raise UserError(f"clip {column.index[column.index.duplicated()][0]} is listed twice; keep one line", file=path)
    return column


def read_rows(text: str, separator: str, key: str, path: str) -> list[list[str]]:
    """Return the rows of a user's CSV file below the header, without empty lines.

    Args:
        text: as `read_text` returns it. key: of params.yaml, dotted. path: of the file, for messages.

    Raises:
        UserError: the text is no CSV.
    """
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        _, *rows = [[unquote_formula(cell.strip()) for cell in row] for row in lines if row]
    except (csv.Error, ValueError) as error:
        raise UserError(f"{path}, line {lines.line_num}: {error}; correct it", key=key) from None
    return rows


def read_headers(text: str) -> dict[str, list[str]]:
    """Return the names of the columns of a CSV file, for each separator that it could have."""
    return {separator: _read_header(text, separator) for separator in SEPARATORS}


def _read_header(text: str, separator: str) -> list[str]:
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    try:
        return [unquote_formula(cell.strip()) for cell in next((row for row in lines if row), [])]
    except csv.Error:
        return []


def read_text(key: str, path: str) -> str:
    """Return the text of a user's CSV file, without the first line of programs that put one before the header.

    Args:
        key: of params.yaml, dotted.

    Raises:
        UserError: the file is missing, not UTF-8 or UTF-16, a workbook or a pointer of Git LFS.
    """
    file = expand_path(path, key)
    try:
        content = file.read_bytes()
    except OSError as error:
        problem = f"no file {path}" if isinstance(error, FileNotFoundError) else f"{path}: {error.strerror}"
        raise UserError(problem, key=key) from None
    if is_pointer(file):
        raise UserError(f"{path} is {POINTER}", key=key)
    if content.startswith(b"PK\3\4"):
        raise UserError(f"{path} is a workbook, not a CSV file; save it as CSV", key=key)
    utf_16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = content.decode("utf-16" if utf_16 else "utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8; save it as UTF-8", key=key) from None
    first, _, rest = text.partition("\n")
    return rest if re.fullmatch(r'"?sep=."?|#TYPE .*', first.strip()) else text  # for Excel, or from PowerShell


def _find_column(header: list[str], column: str) -> int | None:
    if column in header:
        return header.index(column)
    names = [fold(name) for name in header]
    return names.index(fold(column)) if fold(column) in names else None


def match_table(table: pd.Series, labels: Mapping[str, str], path: str) -> Matched:
    """Find the clips of the data set in a table, and print how many it lacks.

    Args:
        table: as `read_clip_table` returns it.
        labels: clip -> label, of all clips of the data set.

    Raises:
        UserError: two lines of the table name one clip.
    """
    matches = match_names(list(table.index), labels)
    lines: dict[str, str] = {}
    for name, clip in matches.items():
        if lines.setdefault(clip, name) != name:
            raise UserError(f"clip {clip} is listed twice, as {lines[clip]} and {name}; keep one line", file=path)
    cells = pd.Series([table[lines[clip]] if clip in lines else None for clip in labels], list(labels), dtype=object)
    missing = [clip for clip, known in cells.notna().items() if not known]
    if missing and len(missing) < len(cells):
        print(f"{path}: no {table.name} for {len(missing)} of {len(cells)} clips (first: {missing[0]})")
    return Matched(cells, [name for name in table.index if name not in matches])


def match_names(names: list[str], labels: Mapping[str, str]) -> dict[str, str]:
    """Return name -> clip for the names in a table that belong to a clip, whatever their spelling.

    A name may have an extension, folders, another case or Unicode form, md5sum's `*`, or lack the zeros before a
    number. A name that fits several clips belongs to none of them, and an exact match comes first.
    """
    exact = {name: name for name in names if name in labels}
    folded: dict[str, list[str]] = {}
    for clip in labels:
        folded.setdefault(_key(clip), []).append(clip)
    known = {fold(label) for label in labels.values()}
    matches = {}
    for name in names:
        found = [folded[form] for form in map(_key, list_forms(name)) if form in folded]
        if name in exact:
            matches[name] = name
        elif found and len(found[0]) == 1 and found[0][0] not in exact:
            # The clip x of label a is not b/x.wav.
            folders = {fold(folder) for folder in _split(name)[-2:-1]} & known
            if folders <= {fold(labels[found[0][0]])}:
                matches[name] = found[0][0]
    return matches


def list_forms(name: str) -> Iterator[str]:
    """Yield the names that a clip listed as `name` can have, the longest first, e.g. a.1 and 1 for a/1.wav."""
    parts = _split(name)
    for start in range(len(parts)):
        joined = ".".join(parts[start:])
        yield joined
        suffix = PurePosixPath(joined).suffix
        if suffix.lower() in EXTENSIONS:
            yield joined.removesuffix(suffix)


def _key(name: str) -> str:
    """Return what all spellings of a clip's name share. Spreadsheets drop the zeros before a number."""
    folded = fold(name)
    return folded.lstrip("0") or "0" if folded.isdecimal() else folded


def _split(name: str) -> tuple[str, ...]:
    return PurePosixPath(name.lstrip("*").replace("\\", "/")).parts
