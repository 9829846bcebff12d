"""Find which label each file of a folder has, and in which split it is: by its folders, or by a table."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from stages.common.errors import UserError
from stages.download.dataset.label_cells import describe_several, is_mapping, list_labels
from stages.download.dataset.label_tables import KEY, Columns, Files, Row, Table, read_label_table, select_columns
from stages.download.dataset.published import LISTS, name_split, read_lists, split_by_folders, top_split
from stages.download.dataset.selection import is_clip, show_path
from stages.download.dataset.table_files import find_inside, find_metadata, open_table

TABLES = (".csv", ".tsv", ".jsonl", ".parquet")
MISPLACED = "not at <split>/<label>/<file>"


class Labelling(NamedTuple):
    """What is known of the files of a folder besides their folders.

    labels: path -> label; None if the folder of a file is its label. splits: path -> split. lost: path, or cell of a
    table -> label, of what was left out. ignored, rejected: (path or cell, reason). used: paths of the files in the
    folder that have these labels or splits. unused: path -> what is wrong with a table that was found, if this was not
    printed.
    """

    labels: dict[str, str] | None
    splits: dict[str, str]
    lost: dict[str, str]
    ignored: list[tuple[str, str]]
    rejected: list[tuple[str, str]]
    used: Sequence[str] = ()
    unused: Mapping[str, UserError] = {}


def find_labels(root: Path, paths: list[str], table: str | None, columns: Columns) -> Labelling:
    """Find the labels and splits of the files.

    Args:
        paths: of all files inside the folder, with forward slashes.
        table: path of the table of labels; None: metadata.csv and the like, where it has files and labels. If the
            folders have labels, such a file must be as audiofolder wants it, without a fault, or the folders are used.
        columns: if one is named, there must be a table, and it is used.

    Raises:
        UserError: the table is missing or has no such columns, or a clip has several labels.
    """
    named = [key for key, name in columns._asdict().items() if name is not None]
    files = Files(root, [path for path in paths if is_clip(path)])
    listed, unused = [], {}
    for path, folder in [(table, "")] if table is not None else find_metadata(paths):
        try:
            one = read_label_table(root / path, path, folder) if table is None else open_table(root, path)
            listed.append((one, select_columns(one, files, columns)))
        except UserError as error:
            if table is not None or named:
                raise
            unused[path] = error
    has_labels, placed = _has_folder_labels(paths), _label_by_splits(paths)
    if listed and unused and not has_labels:  # the clips of the other tables alone would be a part of the data set
        raise next(iter(unused.values()))
    if listed or has_labels or placed:
        unused = _report_unused(unused)
    used = find_inside(root, table, paths) if table is not None else [one.path for one, _ in listed]
    if listed and (table is not None or named or not has_labels):
        return _label_by_tables(listed, files, paths)._replace(used=used)
    if named:
        raise UserError("no table was found; set table", key=f"{KEY}.{named[0]}_column")
    if listed and (found := _try_tables(listed, files, paths)):
        return found._replace(used=used)
    lists = [path for path in paths if path in LISTS]
    return placed or Labelling(None, read_lists(root, paths), {}, [], [], lists, unused)


def _report_unused(unused: Mapping[str, UserError]) -> dict[str, UserError]:
    """Print why tables are not used. Return what is left to print."""
    for path, error in unused.items():
        print(f"{path} is not used for the labels: {error.message}")
    return {}


def _has_folder_labels(paths: list[str]) -> bool:
    """Return whether the folders give at least two labels. Names of splits do not count."""
    if placed := _label_by_splits(paths):
        return len(set((placed.labels or {}).values())) > 1
    parts = [PurePosixPath(path).parts for path in paths if is_clip(path)]
    return len({one[0] for one in parts if len(one) == 2 and not name_split(one[0])}) > 1


def _try_tables(listed: list[tuple[Table, list[Row]]], files: Files, paths: list[str]) -> Labelling | None:
    """Label by tables that were found by themselves. None, with a line, if they are not made for this or have a fault.

    Many data sets come with a table that describes clips whose labels are the folders.
    """
    fault, found = "", None
    for table, _ in listed:
        if "file_name" not in table.header or {"label", "labels"}.isdisjoint(table.header):
            fault = fault or f"{table.path} lacks the columns file_name and label"
    if not fault:
        try:
            found = _label_by_tables(listed, files, paths)
            fault = next((f"{file}: {reason}" for file, reason in found.ignored + found.rejected), "")
        except UserError as error:
            fault = error.message
    if not fault:
        return found
    names, first = " and ".join(table.path for table, _ in listed), listed[0][0].path
    print(f"{names}: not used, the folders are the labels ({fault}); download.dataset.table: {first} uses it")
    return None


def _label_by_tables(listed: list[tuple[Table, list[Row]]], files: Files, paths: list[str]) -> Labelling:
    known: dict[str, Row] = {}
    lost: dict[str, str] = {}
    rejected: list[tuple[str, str]] = []
    repeated = 0
    for table, rows in listed:
        for row in rows:
            found = files.find(row.file, table.folder)
            path = found[0] if len(found) == 1 else ""
            if path in known:
                _require_same(table.path, path, known[path], row)
                repeated += 1
            elif path:
                known[path] = row
            else:
                fault = f"it means {found[0]} or {found[1]}; write its folder" if found else "but not in the folder"
                rejected.append((show_path(row.file) or "(no file)", f"in {table.path}, {fault}"))
                lost[show_path(row.file)] = row.label
    names = " and ".join(table.path for table, _ in listed)
    _refuse_several(names, known)
    if repeated:
        print(f"{names}: {repeated} rows repeat another")
    labels = {path: row.label for path, row in known.items() if row.label}
    _refuse_same_folder(set(labels.values()))
    rejected += [(show_path(path), f"no label in {names}") for path, row in known.items() if not row.label]
    ignored = [(show_path(path), f"not in {names}") for path in paths if is_clip(path) and path not in known]
    splits = {path: _check_split(names, row) for path, row in known.items() if row.split}
    return Labelling(labels, splits or split_by_folders(list(known)), lost, ignored, rejected)


def _refuse_same_folder(labels: set[str]) -> None:
    folders: dict[str, str] = {}
    for label in sorted(labels):
        first = folders.setdefault(label.replace("/", "-"), label)
        if first != label:
            message = f"the labels {first} and {label} would have one folder; rename one"
            raise UserError(message, key=f"{KEY}.label_column")


def _require_same(table: str, path: str, first: Row, other: Row) -> None:
    if first.label != other.label:
        labels = dict.fromkeys(list_labels(first.label) + list_labels(other.label))
        raise UserError(describe_several(path, list(labels)), file=table)
    if first.split != other.split:
        message = f"{path} is in the split {first.split!r} and in {other.split!r}; keep one row"
        raise UserError(message, file=table)


def _refuse_several(table: str, known: dict[str, Row]) -> None:
    """Raise UserError if a cell has several labels: a list, or labels of which one is also a label by itself."""
    labels = {row.label for row in known.values()}
    for path, row in known.items():
        if is_mapping(row.label):
            message = f"{path} has a mapping, not a label: {row.label:.60}; name another column in label_column"
            raise UserError(message, file=table)
        several = list_labels(row.label)
        for separator in "|,;" if len(several) == 1 else "":
            parts = [part.strip() for part in row.label.split(separator)]
            if len(parts) > 1 and (separator == "|" or not labels.isdisjoint(parts)):
                several = parts
        if len(several) > 1:
            raise UserError(describe_several(path, several), file=table)


def _check_split(table: str, row: Row) -> str:
    if split := name_split(row.split):
        return split
    raise UserError(
        f"{row.split!r} of {row.file} in {table} is not train, validation or test; for folds, see docs/own-clips.md",
        key=f"{KEY}.split_column",
    )


def _label_by_splits(paths: list[str]) -> Labelling | None:
    """Label the files at <split>/<label>/<file>. None if there is no train folder with folders of clips in it."""
    placed = {path: PurePosixPath(path).parts for path in paths if is_clip(path)}
    deep = {path: parts for path, parts in placed.items() if len(parts) == 3 and top_split(path)}
    flat = any(len(parts) == 2 and top_split(path) for path, parts in placed.items())
    splits = {path: str(top_split(path)) for path in deep}
    if flat or "train" not in splits.values() or len(set(splits.values())) < 2:
        return None
    labels = {path: parts[1] for path, parts in deep.items()}
    rejected = [(show_path(path), MISPLACED) for path in placed if path not in deep]
    lost = {show_path(path): parts[1] for path, parts in placed.items() if path not in deep and len(parts) > 2}
    return Labelling(labels, splits, lost, [], rejected)


def require_labels(labels: Iterable[str], paths: list[str], unused: Mapping[str, UserError]) -> None:
    """Raise UserError if the folders of the clips seem to be no labels.

    Args:
        labels: of all clips, by their folders. paths: of all files. unused: as `Labelling` has it.
    """
    names = sorted(set(labels))
    are_splits = len(names) > 1 and all(map(name_split, names))
    if unused and are_splits:
        raise next(iter(unused.values()))
    if len(names) > 1 and "train" in map(name_split, names) and all(map(name_split, names)):
        raise UserError(
            f"the folders {' and '.join(names)} look like splits, not labels; put the clips at "
            f"{names[0]}/<label>/<file>, or name a table of labels",
            key=f"{KEY}.table",
        )
    tables = [path for path in paths if PurePosixPath(path).suffix.lower() in TABLES and not path.startswith(".")]
    others = [path for path in tables if path not in unused]
    if len(names) < 2 and unused and not others:
        raise next(iter(unused.values()))
    _report_unused(unused)
    if len(names) < 2 and others:
        raise UserError(
            f"the folders give fewer than two labels; if {others[0]} lists the labels, write table: {others[0]}",
            key=f"{KEY}.table",
        )
