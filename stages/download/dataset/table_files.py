"""Find the tables of labels of a folder of clips."""

from pathlib import Path, PurePosixPath

from stages.common.errors import UserError
from stages.common.user_paths import expand_path
from stages.download.dataset.label_tables import KEY, Table, read_label_table
from stages.download.dataset.published import name_split

METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")  # as the audiofolder of 🤗 Datasets names it


def find_table(root: Path, table: str) -> Path:
    """Return the file of a table, whose path may start at the project or at the folder of the clips.

    Raises:
        UserError: there is none.
    """
    file = expand_path(table, f"{KEY}.table")
    found = next((path for path in (file, root / file) if path.is_file()), None)
    if found is None:
        raise UserError(f"no file {table}, neither here nor in the folder of the clips", key=f"{KEY}.table")
    return found


def open_table(root: Path, table: str) -> Table:
    """Read a table, whose path is as `find_table` wants it."""
    file = find_table(root, table)
    inside = file.resolve().is_relative_to(root.resolve())
    folder = file.resolve().parent.relative_to(root.resolve()).as_posix() if inside else ""
    return read_label_table(file, table, "" if folder == "." else folder)


def find_inside(root: Path, table: str, paths: list[str]) -> list[str]:
    """Return the path of a table inside the folder of the clips, if it is there."""
    file, name = find_table(root, table).resolve(), PurePosixPath(table).name
    return [path for path in paths if path.rpartition("/")[2] == name and (root / path).resolve() == file]


def find_metadata(paths: list[str]) -> list[tuple[str, str]]:
    """Return path and folder of the metadata at the top and in the folders of splits, one file for each folder."""
    found: dict[str, str] = {}
    for path in paths:
        folder, _, name = path.rpartition("/")
        if name in METADATA and (not folder or name_split(folder)):
            found[folder] = min(found.get(folder, path), path, key=lambda path: METADATA.index(path.rpartition("/")[2]))
    return [(path, folder) for folder, path in found.items()]
