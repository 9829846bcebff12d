"""Find files of the user where the stages write."""

import csv
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from stages.common.errors import UserError
from stages.common.paths import BASE, BASE_SOURCE, CLIPS, ENCODED, FINETUNED, PUBLISHED, RAW, SPLITS, TRAINING
from stages.common.user_paths import expand_path

OUTPUTS = (RAW, BASE, SPLITS, ENCODED, FINETUNED, PUBLISHED)
# A file that the stage writes into each of its folders.
MARKERS = {
    BASE: BASE_SOURCE,
    FINETUNED: TRAINING,
    ENCODED: ENCODED / "encoding.json",
    PUBLISHED: PUBLISHED / "README.md",
}
PATHS = (
    "download.dataset.path",
    "download.dataset.originals",
    "download.model.path",
    "split.published",
    "split.groups",
)
SPLITS_HEADER = "clip,label,split,group"
MOVE = "DVC deletes it before the stage that writes there starts; move your files to another folder"


def find_own_files(params: dict[str, Any]) -> Iterator[UserError]:
    """Yield an error for each path of params.yaml in an output, and for each output with files that no stage wrote.

    Args:
        params: the content of params.yaml.
    """
    named = set()
    for key, path in _find_paths(params):
        for output in OUTPUTS:
            if path.exists() and path.resolve().is_relative_to(output.resolve()):
                named.add(output)
                yield UserError(
                    f"{path} is in {output}, an output of the pipeline: {MOVE}, and write its path here", key=key
                )
    for output in OUTPUTS:
        if output not in named and (files := _list_own_files(output)):
            others = f" and {len(files) - 1} others" if len(files) > 1 else ""
            yield UserError(f"no stage wrote {files[0]}{others}. {MOVE}", file=output)


def _find_paths(params: dict[str, Any]) -> Iterator[tuple[str, Path]]:
    """Yield the dotted key and the path of each value that names a file or folder."""
    for keys in PATHS:
        node: Any = params
        for key in keys.split("."):
            node = node.get(key) if isinstance(node, dict) else None
        for key, text in (node if isinstance(node, dict) else {"": node}).items():
            where = f"{keys}.{key}".rstrip(".")
            with suppress(UserError):  # which the check of the section reports
                if isinstance(text, str):
                    yield where, expand_path(text, where)


def _list_own_files(output: Path) -> list[str]:
    """Return the paths, inside the output, of files that no stage wrote there."""
    if output == SPLITS:
        return [SPLITS.name] if SPLITS.is_file() and _first_line(SPLITS) != SPLITS_HEADER else []
    files = [file for file in sorted(output.rglob("*")) if file.is_file() and not file.name.startswith(".")]
    if output == RAW:
        # Tables may have been added by a later version of the stage.
        known = _listed_clips()
        files = [file for file in files if file.parent != RAW or file.suffix not in (".csv", ".json") or not known]
        return [str(file.relative_to(RAW)) for file in files if str(file.relative_to(RAW)) not in known]
    return [str(file.relative_to(output)) for file in files] if not MARKERS[output].is_file() else []


def _listed_clips() -> set[str]:
    try:
        with CLIPS.open(encoding="utf-8", newline="") as table:
            return {row["path"] for row in csv.DictReader(table)}
    except (OSError, ValueError, LookupError, csv.Error):
        return set()


def _first_line(file: Path) -> str:
    with file.open(encoding="utf-8", errors="replace") as lines:
        return lines.readline().strip()
