"""Apply a table of corrections: labels that a person changed, and clips that a person dropped."""

import difflib
from pathlib import Path
from typing import NamedTuple

from stages.common.clip_tables import list_forms, match_names, read_headers, read_rows, read_text
from stages.common.errors import UserError
from stages.common.spelling import fold
from stages.common.tables import Clip
from stages.download.dataset.labels import Spellings
from stages.download.dataset.selection import find_label_fault

KEY = "download.dataset.corrections"
ACTIONS = ("keep", "change", "new", "drop")
REQUIRED = ("clip", "action", "label")


class Correction(NamedTuple):
    """A line of the table.

    action: keep the label, change it to that of other clips, give it a new one, or drop the clip.
    label: of change and new. sha256: of the recording that the person heard; "" if not known. note: of the person.
    """

    clip: str
    action: str
    label: str
    sha256: str
    note: str = ""


class Corrected(NamedTuple):
    """The clips after the corrections, and (file, reason) of the dropped ones."""

    clips: list[Clip]
    dropped: list[tuple[str, str]]


def read_corrections(path: str) -> list[Correction]:
    """Read the table. The columns sha256 and note may be missing, and others are ignored.

    Raises:
        UserError: the file or a column is missing, or an action is unknown or lacks its label.
    """
    text = read_text(KEY, path)
    headers = {mark: list(map(fold, header)) for mark, header in read_headers(text).items()}
    separator = next((mark for mark, header in headers.items() if {*REQUIRED} <= {*header}), None)
    if separator is None:
        raise UserError(f"{path} needs the columns {', '.join(REQUIRED)}", key=KEY)
    header, corrections = headers[separator], []
    for cells in read_rows(text, separator, KEY, path):
        row = dict(zip(header, cells)) | dict.fromkeys(header[len(cells) :], "")
        if row["clip"]:
            others = row.get("sha256", "").lower(), row.get("note", "")
            corrections.append(Correction(row["clip"], row["action"].lower(), row["label"], *others))
    for one in corrections:
        if one.action not in ACTIONS:
            message = f"the action of {one.clip} is {one.action!r}; it must be one of {', '.join(ACTIONS)}"
            raise UserError(message, file=path)
        if one.action in ("change", "new") and not one.label:
            raise UserError(f"clip {one.clip} has no label to change to", file=path)
    return corrections


def apply_corrections(
    raw: Path, clips: list[Clip], path: str, left_out: list[tuple[str, str]], spellings: Spellings = "refuse"
) -> Corrected:
    """Change the labels of clips and drop clips, as the table says. A name of a clip does not change.

    Args:
        raw: the folder to which the paths of the clips refer; their files are moved or deleted.
        clips: as the data set has them. left_out: (file, reason) of its other files.
        spellings: keep allows a new label that differs from another only in its spelling.

    Raises:
        UserError: the table names an unknown clip or label, or a clip twice, or a recording has changed.
    """
    known = {clip.clip: clip for clip in clips}
    corrections = _match(read_corrections(path), known, path, left_out)
    labels = {clip.label for clip in clips}
    new = {one.label for one in corrections.values() if one.action == "new"}
    for one in corrections.values():
        _check_label(one, labels | new, path)
        if one.action == "new" and one.label not in labels and spellings != "keep":
            _refuse_spelling(one, labels | new, path)
    corrected, dropped, changed = [], [], 0
    for clip in clips:
        correction = corrections.get(clip.clip)
        if correction and correction.action == "drop":
            (raw / clip.path).unlink()
            dropped.append((f"{clip.label}/{Path(clip.path).name}", f"dropped by {Path(path).name}"))
        elif correction and correction.action != "keep" and correction.label != clip.label:
            moved = clip._replace(label=correction.label, path=f"audio/{correction.label}/{Path(clip.path).name}")
            (raw / moved.path).parent.mkdir(exist_ok=True)
            (raw / clip.path).rename(raw / moved.path)
            corrected.append(moved)
            changed += 1
        else:
            corrected.append(clip)
    print(f"{path}: labels changed: {changed}, clips dropped: {len(dropped)}")
    return Corrected(corrected, dropped)


def _match(
    corrections: list[Correction], known: dict[str, Clip], path: str, left_out: list[tuple[str, str]]
) -> dict[str, Correction]:
    """Return clip -> correction."""
    names = match_names([one.clip for one in corrections], {clip: row.label for clip, row in known.items()})
    gone = {fold(form) for file, _ in left_out for form in list_forms(file)}
    matched: dict[str, Correction] = {}
    unknown, changed = [], []
    for one in corrections:
        clip = names.get(one.clip)
        if clip is None:
            # A broken file cannot be used anyway.
            unknown += [one.clip] if gone.isdisjoint(map(fold, list_forms(one.clip))) else []
            continue
        if clip in matched:
            raise UserError(f"clip {clip} is listed twice; keep one line", file=path)
        if one.sha256 and one.sha256 != known[clip].sha256:
            changed.append(clip)
        matched[clip] = one
    if unknown:
        message = f"{len(unknown)} of its clips are not in the data set (first: {unknown[0]}); remove their lines"
        raise UserError(message, file=path)
    if changed:
        raise UserError(
            f"the recordings of {len(changed)} of its clips have changed since (first: {changed[0]}); listen again, "
            "and empty their cells in the column sha256, or remove their lines",
            file=path,
        )
    return matched


def _check_label(correction: Correction, labels: set[str], path: str) -> None:
    label, clip = correction.label, correction.clip
    if correction.action == "change" and label not in labels:
        same = [known for known in labels if fold(known) == fold(label)]
        near = same or difflib.get_close_matches(label, sorted(labels), n=1)
        meant = f"did you mean {near[0]}? " if near else ""
        message = f"clip {clip}: no clip has the label {label}; {meant}The action new allows a new label"
        raise UserError(message, file=path)
    if correction.action == "new" and ("/" in label or (fault := find_label_fault(label))):
        raise UserError(f"clip {clip}: {'its label has a slash; rename it' if '/' in label else fault}", file=path)


def _refuse_spelling(correction: Correction, labels: set[str], path: str) -> None:
    """Raise UserError if a new label is another spelling of a label, as `unite_labels` judges."""
    label = correction.label
    if same := sorted(known for known in labels - {label} if fold(known) == fold(label)):
        message = f"clip {correction.clip}: the label {label} is not new; did you mean {same[0]}? Write change"
        raise UserError(message, file=path)
