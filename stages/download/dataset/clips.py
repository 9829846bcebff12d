"""Check the files that a source returned: decode each, count originals, find repetitions, report what is rejected."""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd
from tqdm import tqdm

from stages.common import audio
from stages.common.clip_tables import match_table, read_clip_table
from stages.common.errors import UserError
from stages.common.lfs import POINTER, is_pointer
from stages.common.tables import Clip
from stages.common.threads import map_in_threads
from stages.download.dataset import background, repetitions
from stages.download.dataset.folders import LINK
from stages.download.dataset.kept_results import CHECK, KeptResults
from stages.download.dataset.selection import HIDDEN, MISPLACED, NOT_AUDIO

MAX_LISTED = 10  # files that are printed for each reason
# The columns of metrics/predictions.csv that are no labels.
RESERVED = {"clip", "label", "prediction"}


def inspect_clip(file: Path, kept: KeptResults) -> Clip | audio.AudioError:
    """Hash and decode one file at audio/<label>/<clip>.<ext>, and return its row of clips.csv or what is wrong."""
    if is_pointer(file):
        return audio.AudioError(f"not audio: {POINTER}")
    with file.open("rb") as content:
        sha256 = hashlib.file_digest(content, "sha256").hexdigest()
    try:
        rate, channels, seconds = kept.compute(CHECK, measure_clip, file, sha256)
    except audio.AudioError as error:  # not kept: the machine may be the reason
        return error
    return Clip(
        file.stem, file.parent.name, str(Path("audio", file.parent.name, file.name)), sha256, rate, channels, seconds
    )


def measure_clip(file: Path) -> list[Any]:
    """Decode a file, and return its sampling rate, channels and seconds, as clips.csv has them."""
    facts = audio.inspect_audio(file)
    return [facts.sampling_rate, facts.channels, round(facts.seconds, 3)]


def inspect_clips(files: dict[Path, str], kept: KeptResults) -> tuple[list[Clip], list[tuple[str, str]]]:
    """Decode all files, and remove those that cannot be used.

    Args:
        files: path on disk -> path inside the data set. kept: results of an earlier run.

    Returns:
        The clips in the order of the files, and (path inside the data set, reason) of the removed files.
    """
    clips, broken = [], []
    rows = map_in_threads(lambda file: inspect_clip(file, kept), files)
    for file, row in tqdm(zip(files, rows), "check", len(files), unit="clip"):
        if isinstance(row, Clip):
            clips.append(row)
        else:
            broken.append((files[file], str(row)))
            file.unlink()
    return clips, broken


def check_usable(clips: list[Clip], unusable: list[tuple[str, str]], max_rejected: float) -> None:
    """Check that enough clips remain.

    Raises:
        UserError: more than max_rejected (a share) of the clips are unusable, fewer than two labels remain, or a label
            is the name of a column.
    """
    total = len(clips) + len(unusable)
    if len(unusable) > max_rejected * total:
        reason = unusable[0][1].partition(";")[0]  # the complete one is printed before
        raise UserError(
            f"{len(unusable)} of {total} audio files rejected (first: {unusable[0][0]}: {reason}), more than "
            f"{max_rejected}; fix or remove them, or raise max_rejected",
            key="download.dataset.max_rejected",
        )
    require_two_labels(clips)
    labels = {clip.label for clip in clips}
    if taken := sorted(RESERVED & set(labels)):
        raise UserError(f"label {taken[0]} is the name of a column of metrics/predictions.csv; rename its folder")


def require_two_labels(clips: list[Clip], background: str | None = None) -> None:
    """Raise UserError if the clips, without those of the background, have fewer than two labels."""
    labels = sorted({clip.label for clip in clips} - {background})
    if len(labels) < 2:
        besides = f" besides the background {background}" if background else ""
        raise UserError(f"a classifier needs at least two labels{besides}, found {labels}; add a folder per label")


def count_originals(files: list[Path], path: str) -> dict[str, Any]:
    """Count the files whose MD5 matches a table of originals, and print the count.

    Args:
        files: at <label>/<clip>.<ext>.
        path: CSV file with the columns clip and md5. An MD5 may have capitals, and the backslash of md5sum.

    Returns:
        For source.json: name of the table, number of its clips found and unmodified, names of the modified ones.

    Raises:
        UserError: the table is missing, has other columns or no MD5s, or lists none of the clips.
    """
    key, name = "download.dataset.originals", Path(path).name
    table = read_clip_table(key, path, ["clip", "md5"]).fillna("").str.lstrip("\\").str.lower()
    for clip, md5 in table.items():
        if not re.fullmatch(r"[0-9a-f]{32}", md5):
            raise UserError(f"clip {clip} has the md5 {md5!r}; it should have 32 hexadecimal digits", file=path)
    known = match_table(table, {file.stem: file.parent.name for file in files}, path).cells.dropna()
    if files and known.empty:
        message = f"{path} lists none of the clips, such as {files[0].stem}; use the names of data/raw/clips.csv"
        raise UserError(message, key=key)
    differ = [file.name for file in files if file.stem in known and _md5(file) != known[file.stem]]
    original = len(known) - len(differ)
    print(f"{original} of the {len(table)} files of {name} match the originals (MD5)")
    _print_some([f"not the original: {file}" for file in differ], "source.json")
    return {"table": name, "known": len(table), "original": original, "differ": differ}


def _md5(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def find_repetitions(raw: Path, clips: list[Clip], kept: KeptResults) -> list[tuple[str, int]]:
    """Return (clip, number of the recording) for each clip that repeats another. kept: results of an earlier run."""
    numbers = repetitions.number_recordings([raw / clip.path for clip in clips], [clip.sha256 for clip in clips], kept)
    print(f"found {len(set(numbers.values()))} recordings that occur in several clips ({len(numbers)} clips)")
    first: dict[int, Clip] = {}
    for i, number in sorted(numbers.items()):
        one, other = first.setdefault(number, clips[i]), clips[i]
        if one.label != other.label:
            print(f"the same recording is labelled {one.label} and {other.label}: {one.clip}, {other.clip}")
    return [(clips[i].clip, number) for i, number in sorted(numbers.items())]


def make_metadata(clips: list[Clip], repeated: list[tuple[str, int]]) -> pd.DataFrame:
    """Return the table metadata.csv, which the audiofolder builder of 🤗 Datasets reads.

    Args:
        repeated: as `find_repetitions` returns them.
    """
    recordings = dict(repeated)
    rows = [
        {"file_name": clip.path, "label": clip.label, "sha256": clip.sha256, "recording": recordings.get(clip.clip)}
        for clip in clips
    ]
    return pd.DataFrame(rows).astype({"recording": "Int64"})


def report_rejected(ignored: list[tuple[str, str]], rejected: list[tuple[str, str]]) -> None:
    """Print up to MAX_LISTED files for each reason. ignored, rejected: (file, reason)."""
    hidden = [name for name, reason in ignored if reason == HIDDEN]
    if hidden:
        # macOS puts one beside each clip of an archive; they are not clips.
        print(f"hidden files ignored: {len(hidden)} (first: {hidden[0]})")
    others = [(name, reason) for name, reason in ignored if reason != HIDDEN]
    for verb, files in (("ignored", others), ("rejected", rejected)):
        by_reason: dict[str, list[str]] = {}
        for name, reason in files:
            by_reason.setdefault(reason.split(":")[0], []).append(f"{verb} {name}: {reason}")
        for lines in by_reason.values():
            _print_some(lines, "rejected.csv")


def report_lost_labels(
    clips: list[Clip], left_out: list[tuple[str, str]], labels: Mapping[str, str] | None = None
) -> None:
    """Print a warning for each label without a clip.

    Args:
        left_out: (file at <label>/<file> or <label>/, reason).
        labels: path -> label, if the folders are no labels.
    """
    found = {clip.label for clip in clips}
    lost: dict[str, list[str]] = {}
    for path, reason in left_out:
        inside = labels and not path.startswith(f"{background.LABEL}/")  # the background has folders of its own
        label = labels.get(path, "") if labels and inside else _find_label(path, reason)
        if label and label not in found and reason != HIDDEN and not reason.startswith(LINK):
            lost.setdefault(label, []).append(f"{path}: {reason}")
    for label, lines in lost.items():
        print(f"warning: label {label} has no clip left; not used: {len(lines)} (first: {lines[0]})")


def _find_label(path: str, reason: str) -> str:
    """Return the label that a path in rejected.csv belongs to; "" if none."""
    if path.endswith("/"):
        return path.rstrip("/") if path.count("/") == 1 else ""
    path = path[1:-1] if path.endswith(("'", '"')) else path  # escaped paths have quotes
    parts = PurePosixPath(path.lstrip("/")).parts
    if parts and parts[0] == background.LABEL:  # its folders are no labels
        return background.LABEL
    return parts[0 if reason == MISPLACED else -2] if len(parts) > 1 else ""


def _print_some(lines: list[str], table: str) -> None:
    for line in lines[:MAX_LISTED]:
        print(line)
    if len(lines) > MAX_LISTED:
        print(f"{len(lines) - MAX_LISTED} more like that; data/raw/{table} lists them all")


def summarize(clips: list[Clip], ignored: list[tuple[str, str]], rejected: list[tuple[str, str]]) -> str:
    """Return the numbers of clips, labels, rejected and ignored files in one line."""
    reasons = [reason for _, reason in ignored]
    hidden = f", hidden files ignored: {reasons.count(HIDDEN)}" if HIDDEN in reasons else ""
    others = f", files that are not audio ignored: {reasons.count(NOT_AUDIO)}" if NOT_AUDIO in reasons else ""
    labels = len({clip.label for clip in clips})
    return f"{len(clips)} clips of {labels} labels, files rejected: {len(rejected)}{others}{hidden}"
