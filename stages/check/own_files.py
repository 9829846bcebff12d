"""Find files of the user where the stages write."""

import csv
from collections.abc import Iterator
from contextlib import suppress
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from stages.common.errors import UserError
from stages.common.paths import BASE, CLIPS, ENCODED, FINETUNED, PUBLISHED, RAW, SPACE, SPLITS
from stages.common.user_paths import expand_path

# What the stages write: patterns of files, and folders that only they write. The first pattern is one that is always
# there, and that another checkpoint or data set does not have.
WEIGHTS = ("*.json", "*.safetensors", "pytorch_model*.bin")
WRITTEN = {
    RAW: ("source.json", "clips.csv", "rejected.csv", "repetitions.csv", "published.csv", "metadata.csv"),
    BASE: ("source.json", *WEIGHTS),
    ENCODED: ("encoding.json", "*.json", "*.arrow"),
    FINETUNED: ("training.json", *WEIGHTS),
    PUBLISHED: ("training.json", *WEIGHTS, "*.csv", "*.png", "README.md", "runs/", "onnx/"),
    SPACE: ("requirements.txt", "app.py", "page.css", "page.js", "README.md"),
}
OUTPUTS = (*WRITTEN, SPLITS)
PATHS = (
    "download.dataset.path",
    "download.dataset.originals",
    "download.dataset.background",
    "download.dataset.corrections",
    "download.dataset.table",
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
    if output.is_symlink() or output.is_file():
        return [output.name]
    files = [file for file in sorted(output.rglob("*")) if file.is_file() or file.is_symlink()]
    names = [file.relative_to(output).as_posix() for file in files if not file.name.startswith(".")]
    first, *_ = patterns = WRITTEN[output]
    known = _listed_clips() if output == RAW else set()
    return [name for name in names if first not in names or not (name in known or _is_written(name, patterns))]


def _is_written(name: str, patterns: tuple[str, ...]) -> bool:
    return any(
        name.startswith(pattern) if pattern.endswith("/") else "/" not in name and fnmatch(name, pattern)
        for pattern in patterns
    )


def _listed_clips() -> set[str]:
    try:
        with CLIPS.open(encoding="utf-8", newline="") as table:
            return {row["path"] for row in csv.DictReader(table)}
    except (OSError, ValueError, LookupError, csv.Error):
        return set()


def _first_line(file: Path) -> str:
    with file.open(encoding="utf-8", errors="replace") as lines:
        return lines.readline().strip()
