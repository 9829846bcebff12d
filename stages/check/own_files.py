"""Find files of the user where the stages write."""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stages.common.errors import UserError
from stages.common.paths import BASE, BASE_SOURCE, CLIPS, ENCODED, FINETUNED, PUBLISHED, RAW, SPLITS, TRAINING

OUTPUTS = (RAW, BASE, SPLITS, ENCODED, FINETUNED, PUBLISHED)
# A file that the stage writes into each of its folders.
MARKERS = {
    BASE: BASE_SOURCE,
    FINETUNED: TRAINING,
    ENCODED: ENCODED / "encoding.json",
    PUBLISHED: PUBLISHED / "README.md",
}
SPLITS_HEADER = "clip,label,split,group"
MOVE = "DVC deletes it before the stage that writes there starts; move your files to another folder"


def find_own_files(params: dict[str, Any]) -> Iterator[UserError]:
    """Yield an error for each path of params.yaml in an output, and for each output with files that no stage wrote.

    Args:
        params: the content of params.yaml.
    """
    named = set()
    for key, path in _find_paths("", params):
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


def _find_paths(key: str, node: Any) -> Iterator[tuple[str, Path]]:
    """Yield the dotted key and the path of each value that could be a path: those of download and split."""
    if isinstance(node, dict):
        for name, value in node.items():
            if key or name in ("download", "split"):
                yield from _find_paths(f"{key}.{name}" if key else str(name), value)
    elif isinstance(node, str) and node and not key.endswith((".source", ".id", ".title", ".licence", ".method")):
        yield key, Path(node).expanduser()


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
