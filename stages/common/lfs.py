"""Recognise Git LFS pointers: the small text files that stand for files which Git LFS has not fetched."""

from pathlib import Path

START = b"version https://git-lfs.github.com/spec/v1"
POINTER = "a Git LFS pointer, not the file itself; run git lfs pull where it comes from"


def is_pointer(file: Path) -> bool:
    """Return whether a file is a Git LFS pointer."""
    with file.open("rb") as content:
        return content.read(len(START)) == START
