"""Select the clips among the files of a data set by their paths."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from stages.common.audio import EXTENSIONS

HIDDEN = "hidden file"  # the reason for rejecting one


class Candidate(NamedTuple):
    """A file of a data set that could be a clip: path inside the data set, label, and file name."""

    path: str
    label: str
    name: str


def is_audio(name: str) -> bool:
    """Return whether a file has the extension of an audio file."""
    return PurePosixPath(name).suffix.lower() in EXTENSIONS


def target_path(folder: Path, candidate: Candidate) -> Path:
    """Return where a clip is written, and create its label's folder."""
    file = folder / candidate.label / candidate.name
    file.parent.mkdir(parents=True, exist_ok=True)
    return file


def select_clips(paths: Iterable[str], depth: int | None = None) -> tuple[list[Candidate], list[tuple[str, str]]]:
    """Select the clips among files by their paths alone. The folder of a clip is its label.

    The name of a clip is that of its file, e.g. blues.00000.wav. If two labels share a name (1.wav and 1.wav), the
    label is put before the names of all clips. A second file with the same name and label is rejected.

    Args:
        paths: with forward slashes, inside the data set, in its order.
        depth: number of parts of a clip's path; None allows two or more.

    Returns:
        The clips, and (path, reason) of all other files.
    """
    found, rejected = [], []
    for path in paths:
        parts = PurePosixPath(path).parts
        if not path.isprintable():
            # E.g. a name in another encoding than UTF-8, which a CSV file cannot hold.
            rejected.append((ascii(path), "name that cannot be written; rename it"))
        elif path.startswith("/"):
            rejected.append((path, "no label"))
        elif any(part.startswith(".") for part in parts):
            rejected.append((path, HIDDEN))
        elif not is_audio(path):
            rejected.append((path, "not an audio file"))
        elif len(parts) < 2 or len(parts) != (depth or len(parts)):
            rejected.append((path, "not at <label>/<file>"))
        else:
            found.append(Candidate(path, parts[-2], parts[-1]))
    stems = Counter(stem for stem, _ in {(Path(c.name).stem, c.label) for c in found})
    if any(count > 1 for count in stems.values()):
        found = [Candidate(c.path, c.label, f"{c.label}.{c.name}") for c in found]
    selected: dict[str, Candidate] = {}
    for candidate in found:
        first = selected.setdefault(Path(candidate.name).stem, candidate)
        if first is not candidate:
            rejected.append((candidate.path, f"duplicate name: {first.path} comes first"))
    return list(selected.values()), rejected
