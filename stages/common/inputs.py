"""Notice inputs of a stage that change while it runs.

DVC hashes params, code and data when a stage ends, and would record what was edited meanwhile as what the stage ran
with. This decides only whether the run is recorded. No output depends on it, so dvc.yaml does not list this module.
"""

import hashlib
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pathspec
import yaml

from stages.common.errors import UserError
from stages.common.params import read_file
from stages.common.paths import PARAMS, UNRECORDED

HASHED_SIZE = 1 << 20  # bytes; larger files are compared by size and time, because hashing gigabytes takes minutes
# The outputs of these stages also depend on files and servers outside the project.
NEVER_RESTORED = ("download", "publish")
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # with libyaml, ten times as fast


@contextmanager
def unchanged_inputs() -> Iterator[Callable[[], bool]]:
    """Check that the inputs of the stage that DVC runs are the same before and after the block.

    If they are not, the outputs move to unrecorded/.

    Yields:
        A function that moves the outputs back if a run with the same inputs was not recorded, and returns whether.

    Raises:
        UserError: at the end of the block, with what changed. DVC then records nothing.
    """
    stage = os.environ.get("DVC_STAGE", "").rpartition(":")[2]
    entry, kept = find_entry(stage), UNRECORDED / stage
    restorable = not stage.startswith(NEVER_RESTORED)
    before = read_inputs(entry)
    yield lambda: restorable and _restore_outputs(entry, before, kept)
    after = read_inputs(entry)
    if changed := sorted({name for name, _ in _items(before) ^ _items(after)}):
        try:
            _keep_outputs(entry, before, kept)
        except OSError as error:
            restorable = False
            print(f"warning: {kept}: {error.strerror}, so outputs stay where they are", file=sys.stderr)
        raise _explain(changed, before, after, kept, restorable)


def find_entry(stage: str) -> dict[str, Any]:
    """Return the entry of a stage in dvc.yaml, e.g. `download@model`. It is empty if there is none."""
    return _read_entries().get(stage, {})


def list_outputs(stage: str | None = None) -> list[Path]:
    """Return the paths of the outputs of all stages in dvc.yaml, or of one."""
    return [output for name, entry in _read_entries().items() if stage in (None, name) for output in _outputs(entry)]


def _read_entries() -> dict[str, Any]:
    """Return the entries of dvc.yaml by name, with the values of a foreach filled in. Empty if it is not valid."""
    try:
        stages = yaml.load(Path("dvc.yaml").read_text(encoding="utf-8"), LOADER)["stages"]
        entries = {}
        for name, entry in stages.items():
            if "foreach" not in entry:
                entries[name] = entry
                continue
            each = entry["foreach"]
            for key, item in each.items() if isinstance(each, dict) else zip(each, each):
                fields = item.items() if isinstance(item, dict) else ()
                values = {"key": key, "item": item} | {f"item.{field}": value for field, value in fields}
                filled = re.sub(r"\$\{([\w.]+)\}", lambda found: str(values[found[1]]), json.dumps(entry["do"]))  # noqa: B023
                entries[f"{name}@{key}"] = json.loads(filled)
    except (OSError, LookupError, TypeError, ValueError, AttributeError, yaml.YAMLError):
        return {}
    return entries


def read_inputs(entry: dict[str, Any], largest: int | None = HASHED_SIZE) -> dict[str, Any]:
    """Return the state of all files that a stage depends on, by path, and the values of its params, by dotted key.

    Args:
        largest: bytes of the largest file whose content counts; None for all files.
    """
    ignore = Path(".dvcignore")
    patterns = ignore.read_text(encoding="utf-8").splitlines() if ignore.is_file() else []
    ignored = pathspec.GitIgnoreSpec.from_lines(patterns)
    paths = [Path(path) for path in entry.get("deps", [])]
    found = [file for path in paths for file in (path.rglob("*") if path.is_dir() else [path])]
    files = [file for file in found if not file.is_dir() and not ignored.match_file(file)]
    with ThreadPoolExecutor() as pool:  # hashing runs in parallel
        states: dict[str, Any] = dict(
            zip(map(Path.as_posix, files), pool.map(lambda file: _state(file, largest), files))
        )
    if entry.get("params"):
        params: Any
        try:
            params = read_file()
        except UserError as error:
            params = str(error)
        for section in entry["params"]:
            states |= _flatten(f"{PARAMS}: {section}", _find(params, section))
    return states


def _state(file: Path, largest: int | None) -> str | None:
    try:
        status = file.stat()
        if largest is not None and status.st_size > largest:
            return f"{status.st_size} bytes, {status.st_mtime_ns} ns"
        with file.open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest()
    except OSError:
        return None


def _items(inputs: dict[str, Any]) -> set[tuple[str, str]]:
    return {(name, repr(value)) for name, value in inputs.items()}  # as texts, 1 and true differ


def _find(node: Any, keys: str) -> Any:
    for key in keys.split("."):
        node = node.get(key) if isinstance(node, dict) else None
    return node


def _flatten(key: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict) or not value:
        return {key: value}
    return {name: leaf for part in value for name, leaf in _flatten(f"{key}.{part}", value[part]).items()}


def _outputs(entry: dict[str, Any]) -> list[Path]:
    """Return the paths of all outputs; dvc.yaml has each as a string, or as a mapping from it to options."""
    outputs = [output for kind in ("outs", "metrics", "plots") for output in entry.get(kind, [])]
    return [Path(*output) if isinstance(output, dict) else Path(output) for output in outputs]


def _as_text(inputs: dict[str, Any]) -> str:
    return json.dumps(inputs, default=str, sort_keys=True)


def _keep_outputs(entry: dict[str, Any], inputs: dict[str, Any], kept: Path) -> None:
    shutil.rmtree(kept, ignore_errors=True)
    for output in _outputs(entry):
        (kept / output).parent.mkdir(parents=True, exist_ok=True)
        if output.exists():
            shutil.move(output, kept / output)
    (kept / "inputs.json").write_text(_as_text(inputs), encoding="utf-8")


def _restore_outputs(entry: dict[str, Any], inputs: dict[str, Any], kept: Path) -> bool:
    """Move the outputs of an unrecorded run back if it had the same inputs; whether it had."""
    try:
        same = (kept / "inputs.json").read_text(encoding="utf-8") == _as_text(inputs)
    except (OSError, ValueError):
        return False
    outputs = _outputs(entry)
    if not same or not all((kept / output).exists() for output in outputs):
        return False
    for output in outputs:
        shutil.rmtree(output) if output.is_dir() else output.unlink(missing_ok=True)
        output.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(kept / output, output)
        print(f"{output}: taken from {kept}/, the outputs of a run with the same inputs")
    shutil.rmtree(kept)
    return True


def _explain(
    changed: list[str], before: dict[str, Any], after: dict[str, Any], kept: Path, restorable: bool
) -> UserError:
    name, *others = changed
    listed = f" (also changed: {', '.join(others[:3] + ['...'] * (len(others) > 3))})" if others else ""
    advice = f" while the stage ran{listed}, so DVC does not record the run. "
    if restorable:
        advice += f"If you undo the change, dvc repro takes its outputs from {kept}/. Otherwise it runs the stage again"
    else:
        advice += "Run dvc repro to run the stage again"
    key = name.removeprefix(f"{PARAMS}: ")
    if key != name:
        return UserError(f"changed from {before.get(name)} to {after.get(name)}{advice}", key=key)
    return UserError(f"changed{advice}", file=name)
