"""List the files of a folder of clips, and copy them."""

import os
from contextlib import suppress
from errno import EIO, EMFILE, ENFILE, ENOMEM
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from stages.common.errors import UserError
from stages.common.extensions import UNDECODABLE
from stages.download.dataset.selection import is_audio, is_hidden, save_clip, show_path

EMPTY = "empty folder"
LINK = "link to a folder that is read already"
MACHINE = (EMFILE, ENFILE, ENOMEM)  # the fault of the machine, not of a file


class Listing(NamedTuple):
    """What a folder holds.

    files: their paths inside the folder, with forward slashes, sorted.
    ignored: (path, reason) of links to folders that occur elsewhere, and of empty folders.
    rejected: (path, reason) of folders and links that cannot be read.
    """

    files: list[str]
    ignored: list[tuple[str, str]]
    rejected: list[tuple[str, str]]


def list_files(root: Path, key: str = "download.dataset.path") -> Listing:
    """List all files in a folder. Links are followed, because folders of labels are often made of them.

    Each folder is read once, those near the top first, so that a link to a parent ends.

    Args:
        key: of params.yaml that names the folder, for messages.

    Raises:
        UserError: the folder itself cannot be listed.
    """
    listing = Listing([], [], [])
    read = {_identity(root): "."}
    level = [""]
    while level:
        folders = [entry for folder in level for entry in _list_folder(root, folder, listing, key)]
        level = []
        for entry in sorted(folders, key=lambda entry: (entry.is_symlink(), entry.path)):
            path = Path(entry.path).relative_to(root).as_posix()
            first = read.setdefault(_identity(Path(entry.path)), path)
            if first == path:
                level.append(path)
            else:
                listing.ignored.append((f"{show_path(path)}/", f"{LINK}: {show_path(first)}/"))
    listing.files.sort(key=lambda path: path.split("/"))
    return listing


def _list_folder(root: Path, folder: str, listing: Listing, key: str) -> list["os.DirEntry[str]"]:
    """Add the files of a folder to the listing, and return its folders."""
    try:
        entries = list(os.scandir(root / folder))
    except OSError as error:
        if error.errno in MACHINE:
            raise
        if not folder:
            raise UserError(f"{root}: {error.strerror}", key=key) from None
        listing.rejected.append((f"{show_path(folder)}/", f"cannot be listed: {error.strerror}"))
        return []
    if not entries and folder:
        listing.ignored.append((f"{show_path(folder)}/", EMPTY))
    folders = []
    for entry in entries:
        path = f"{folder}/{entry.name}".lstrip("/")
        try:
            entry.stat()
        except OSError as error:
            if not folder and not is_audio(path) and not is_hidden(path):  # it could be a label
                listing.rejected.append((f"{show_path(path)}/", f"cannot be read: {error.strerror}"))
                continue
        if Path(entry.path).is_dir():
            folders.append(entry)
        else:
            listing.files.append(path)
    return folders


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def measure_clips(root: Path) -> int:
    """Return the size of all clips in a folder, in bytes, as far as they can be read."""
    size = 0
    for path in list_files(root).files:
        with suppress(OSError):
            size += (root / path).stat().st_size if is_audio(path) else 0
    return size


def has_clips(root: Path) -> bool:
    """Return whether a folder has a file that could be a clip, also one that has to be converted first."""
    listing = list_files(root)
    names = (PurePosixPath(path) for path in listing.files)
    return bool(listing.rejected) or any(is_audio(str(name)) or name.suffix.lower() in UNDECODABLE for name in names)


def copy_clip(source: Path, target: Path) -> str | None:
    """Copy a clip; return None, or why it cannot be read or written."""
    try:
        if not source.is_file():  # opening a pipe blocks
            return "cannot be read: a broken link, or not a file"
        with source.open("rb") as content:
            return save_clip(content, target)
    except OSError as error:
        if error.errno in MACHINE or (error.filename != str(source) and error.errno != EIO):
            raise
        target.unlink(missing_ok=True)
        return f"cannot be read: {error.strerror}"
