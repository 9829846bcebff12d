"""The background: clips that have none of the labels. They are a label of the data set, or come from a folder."""

import difflib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from tqdm import tqdm

from stages.common.errors import UserError
from stages.common.extensions import UNDECODABLE
from stages.common.spelling import fold
from stages.common.user_paths import expand_path
from stages.download.dataset.folders import copy_clip, has_clips, list_files, measure_clips
from stages.download.dataset.names import Place, name_files
from stages.download.dataset.selection import HIDDEN, MAX_NAME, NOT_AUDIO, find_fault, is_audio, is_hidden, show_path

if TYPE_CHECKING:
    from stages.download.dataset.clip_source import Fetched

KEY = "download.dataset.background"
LABEL = "none_of_these"  # of the clips of a folder
MAX_LISTED = 20  # labels that a message names


def is_folder(background: str) -> bool:
    """Return whether it is the path of a folder. A label has no slash, because labels are names of folders."""
    return "/" in background or os.sep in background


def find_folder(background: str) -> Path:
    """Return the folder; raise UserError if it does not exist."""
    folder = expand_path(background, KEY)
    if not folder.is_dir():
        raise UserError(f"no folder {background}; a value without a slash is the name of a label", key=KEY)
    return folder


def find_obstacles(background: str | None, clips: str | None) -> Iterator[UserError]:
    """Check that a folder exists and has audio, and that it is apart from the folder of the clips.

    Args:
        clips: this folder, if there is one.
    """
    if background is None or (background.strip() and not is_folder(background)):
        return
    try:
        folder = find_folder(background).resolve()
    except UserError as error:
        yield error
        return
    root = Path(clips).expanduser().resolve() if clips else None
    if root and (folder == root or root in folder.parents):
        message = f"{background} is inside the folder of the clips, which are read as labels; write {folder.name}"
        yield UserError(message if folder != root else f"{background} is the folder of the clips", key=KEY)
    elif root and folder in root.parents:
        yield UserError(f"{background} contains the folder of the clips; choose a folder beside it", key=KEY)
    elif not has_clips(folder):
        yield UserError(f"no audio in {background}", key=KEY)


def measure(background: str | None) -> int:
    """Return the size of the clips of the folder, in bytes; 0 if there is no folder."""
    folder = Path(background).expanduser() if background and is_folder(background) else None
    return measure_clips(folder) if folder and folder.is_dir() else 0


def add_folder(background: str, fetched: "Fetched", target: Path) -> "Fetched":
    """Copy all clips below a folder to <target>/none_of_these/, and add them to those of the data set.

    Raises:
        UserError: there is no such folder, no audio in it, or the data set has such a label or clip.
    """
    root = find_folder(background)
    if any(file.parent.name == LABEL for file in fetched.files):
        raise UserError(f"the clips have a label {LABEL}; rename it, or write {LABEL} for the background", key=KEY)
    listing = list_files(root, KEY)
    ignored, rejected = list(listing.ignored), list(listing.rejected)
    places: dict[str, Place] = {}
    for path in listing.files:
        parts = PurePosixPath(path).parts
        if any(map(is_hidden, parts)):
            ignored.append((show_path(path), HIDDEN))
        elif not is_audio(path) and PurePosixPath(path).suffix.lower() not in UNDECODABLE:
            ignored.append((show_path(path), NOT_AUDIO))
        elif fault := find_fault(path):
            rejected.append((show_path(path), fault))
        else:
            *folders, name = parts
            places[path] = Place(folders[-1] if folders else root.resolve().name, (*folders[:-1], name))
    if not places and not rejected:
        raise UserError(f"no audio in {background}", key=KEY)
    files, taken = dict(fetched.files), {file.stem for file in fetched.files}
    for path, name in tqdm(list(zip(places, name_files(list(places.values())))), "copy background", unit="clip"):
        copy = target / LABEL / f"{LABEL}.{name}"  # with the label, so that it differs from the names of other clips
        if copy.stem in taken:
            raise UserError(f"{background}/{path}: the clips have one with the name {copy.stem}; rename it", key=KEY)
        size = len(copy.name.encode())
        reason = copy_clip(root / path, copy) if size <= MAX_NAME else f"name too long: {size} bytes; shorten it"
        if reason:
            rejected.append((path, reason))
        else:
            files[copy] = f"{LABEL}/{path}"
    added = [[(f"{LABEL}/{path}", reason) for path, reason in rows] for rows in (ignored, rejected)]
    return fetched._replace(files=files, ignored=fetched.ignored + added[0], rejected=fetched.rejected + added[1])


def find_label(background: str, labels: Iterable[str]) -> str:
    """Return the label of the background.

    Args:
        labels: of all clips.

    Raises:
        UserError: no clip has this label.
    """
    label, known = LABEL if is_folder(background) else background, sorted(set(labels))
    if label in known:
        return label
    if is_folder(background):
        raise UserError(f"no clip of {background} can be used; data/raw/rejected.csv would list them all", key=KEY)
    same = [name for name in known if fold(name) == fold(label)]
    near = same or difflib.get_close_matches(label, known, n=1)
    listed = ", ".join(known[:MAX_LISTED]) + (", ..." if len(known) > MAX_LISTED else "")
    fix = f"write {near[0]}" if near else f"write ./{label} if it is a folder"
    raise UserError(f"no clip has the label {label}; {fix}. Labels: {listed}", key=KEY)
