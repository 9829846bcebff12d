"""Select the clips among the files of a data set by their paths."""

import shutil
import unicodedata
from collections.abc import Iterable, Mapping
from errno import EILSEQ, EINVAL, ENAMETOOLONG
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from stages.common.extensions import EXTENSIONS, UNDECODABLE
from stages.download.dataset.labels import Spellings, unite_labels
from stages.download.dataset.names import Place, name_files

HIDDEN = "hidden file"  # the reason for ignoring one
NOT_AUDIO = "not an audio file"
MISPLACED = "not at <label>/<file>"
MAX_NAME = 255  # bytes, of most file systems


class Candidate(NamedTuple):
    """A file of a data set that could be a clip.

    position: among all files. path: inside the data set. name: of the file that becomes the clip.
    """

    position: int
    path: str
    label: str
    name: str


class Selection(NamedTuple):
    """The files of a data set: clips, files that are no clips, and files that should be; the last two with reasons."""

    candidates: list[Candidate]
    ignored: list[tuple[str, str]]
    rejected: list[tuple[str, str]]


def is_audio(name: str) -> bool:
    """Return whether a file has the extension of an audio file that libsndfile decodes."""
    return PurePosixPath(name).suffix.lower() in EXTENSIONS


def is_hidden(name: str) -> bool:
    """Return whether a file or folder is hidden; a title may begin with an ellipsis."""
    return name.startswith(".") and not name.startswith("...")


def is_clip(path: str) -> bool:
    """Return whether a file inside a data set should be a clip, by its path."""
    suffix = PurePosixPath(path).suffix.lower()
    return suffix in EXTENSIONS | UNDECODABLE and not any(map(is_hidden, PurePosixPath(path).parts))


def find_label_fault(label: str) -> str | None:
    """Return why a label of a table cannot be the name of a folder, or None."""
    if label in (".", "..") or is_hidden(label):
        return "its label begins with a dot, which would hide the file; rename it"
    return "its label has a control character, or is not UTF-8; rename it" if _find_unwritable(label) else None


def find_fault(path: str) -> str | None:
    """Return why a file with this path and the extension of audio cannot be a clip, or None."""
    suffix = PurePosixPath(path).suffix
    if "Cs" in _find_unwritable(path):
        return "its name is not UTF-8; rename it"
    if "Cc" in _find_unwritable(path):
        return "its name has a control character, such as a line break; rename it"
    if suffix.lower() in UNDECODABLE:
        return f"soundfile cannot decode it, or not notice a cut; convert it, e.g. ffmpeg -i x{suffix} x.flac"
    return None


def select_clips(
    paths: Iterable[str],
    depth: int | None = None,
    spellings: Spellings = "refuse",
    labels: Mapping[str, str] | None = None,
) -> Selection:
    """Select the clips among files by their paths. The folder of a clip is its label, unless labels are given.

    Args:
        paths: with forward slashes, inside the data set, in its order.
        depth: number of parts of a clip's path; None allows two or more.
        spellings: see `unite_labels`.
        labels: path -> label; files that it lacks are left out.
    """
    places: dict[int, tuple[str, Place]] = {}
    ignored, rejected = [], []
    first: dict[str, int] = {}
    for position, path in enumerate(paths):
        parts = PurePosixPath(path).parts
        if any(map(is_hidden, parts)):
            ignored.append((show_path(path), HIDDEN))
        elif PurePosixPath(path).suffix.lower() not in EXTENSIONS | UNDECODABLE:
            ignored.append((show_path(path), NOT_AUDIO))
        elif labels is not None and path not in labels:
            continue
        elif labels is None and (len(parts) < 2 or len(parts) != (depth or len(parts))):
            rejected.append((show_path(path), MISPLACED))
        elif fault := find_fault(path) or (find_label_fault(labels[path]) if labels else None):
            rejected.append((show_path(path), fault))
        elif first.setdefault(path, position) != position:
            rejected.append((path, "another file with this path comes first"))
        else:
            label, folders = (parts[-2] if labels is None else labels[path]), parts[:-1]
            if folders[-1:] == (label,):  # counted once in the names of clips
                folders = folders[:-1]
            places[position] = path, Place(label.replace("/", "-"), (*folders, parts[-1]))
    candidates, unnamed = name_candidates(places, spellings)
    return Selection(candidates, ignored, rejected + unnamed)


def name_candidates(
    places: dict[int, tuple[str, Place]], spellings: Spellings
) -> tuple[list[Candidate], list[tuple[str, str]]]:
    """Give each clip its label and its name.

    Args:
        places: position of a file -> its path inside the data set, and its place.

    Returns:
        The clips, and (path, reason) of those whose names are too long for a file system.
    """
    labels = unite_labels((place.label for _, place in places.values()), spellings)
    named = [(path, place._replace(label=labels[place.label])) for path, place in places.values()]
    names = name_files([place for _, place in named])
    candidates, rejected = [], []
    for position, (path, place), name in zip(places, named, names):
        longest = max(len(part.encode()) for part in (place.label, name))
        if longest > MAX_NAME:
            reason = f"name too long: {longest} bytes with what tells it apart from others; shorten it to {MAX_NAME}"
            rejected.append((path, reason))
        else:
            candidates.append(Candidate(position, path, place.label, name))
    return candidates, rejected


def show_path(path: str) -> str:
    """Return a path as rejected.csv has it: with escapes if it is not UTF-8 or has control characters."""
    return ascii(path) if _find_unwritable(path) else path


def _find_unwritable(path: str) -> set[str]:
    """Return the Unicode categories of a path that a table cannot hold: surrogates (Cs) and control characters (Cc)."""
    return set() if path.isprintable() else {"Cs", "Cc"} & set(map(unicodedata.category, path))


def save_clip(content: IO[bytes], target: Path) -> str | None:
    """Write a clip; return None, or why the file system cannot hold its name."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        file = target.open("xb")
    except FileExistsError:
        return "another clip has the same name on this file system, which ignores case; rename it"
    except OSError as error:
        if error.errno not in (EILSEQ, EINVAL, ENAMETOOLONG):
            raise
        return f"this file system cannot hold its name: {error.strerror}; rename it"
    with file:
        shutil.copyfileobj(content, file, 1 << 20)
    return None
