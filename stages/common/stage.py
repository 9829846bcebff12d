"""What every stage script needs: its section of params.yaml, one-line errors, outputs that are whole or absent."""

import argparse
import difflib
import errno
import json
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

PARAMS = Path("params.yaml")
T = TypeVar("T")


class StageError(Exception):
    """Input that a person can mend. The message is one line: the file, key or clip, what is wrong, the mend."""


class Section(BaseModel):
    """A section of params.yaml. Unknown keys and wrong types are refused, never guessed at."""

    model_config = ConfigDict(extra="forbid", strict=True)


def _read_exponent(value: Any) -> Any:
    # YAML 1.1, and so PyYAML, takes 5e-5 for text; YAML 1.2, and so DVC, for a number.
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


Number = Annotated[float, BeforeValidator(_read_exponent), Field(allow_inf_nan=False)]


def load_params(section: str, schema: type[T]) -> T:
    """Read and check one section of params.yaml, e.g. `train` or `download.dataset`.

    Raises:
        StageError: params.yaml or the section is missing, or a key is unknown, mistyped or out of range.
    """
    try:
        node = yaml.safe_load(PARAMS.read_text())
    except FileNotFoundError:
        raise StageError(f"{PARAMS} not found in {Path.cwd().name}/; run from the project's top folder") from None
    except yaml.YAMLError as error:
        raise StageError(f"{PARAMS} is not valid YAML: {' '.join(str(error).split())}") from None
    for key in section.split("."):
        if not isinstance(node, dict) or key not in node:
            raise StageError(f"{PARAMS}: section {section} is missing; see presets/ for whole examples")
        node = node[key]
    try:
        return TypeAdapter(schema).validate_python(node)
    except ValidationError as error:
        told = error.errors()
        mistyped = {_near(schema, e) for e in told} - {None}
        told = [e for e in told if e["type"] != "missing" or e["loc"][-1] not in mistyped]
        raise StageError("; ".join(_explain(section, node, schema, e) for e in told)) from None


def _near(schema: Any, error: Any) -> str | None:
    """The key that a person meant by one that the schema does not have."""
    if error["type"] != "extra_forbidden" or len(error["loc"]) != 1:
        return None
    near = difflib.get_close_matches(error["loc"][0], getattr(schema, "model_fields", {}), n=1)
    return near[0] if near else None


def _explain(section: str, node: Any, schema: Any, error: Any) -> str:
    # pydantic puts the tag of a discriminated union, e.g. "folder", into the location: no key of the file has it.
    source = node.get("source") if isinstance(node, dict) else None
    where = [str(part) for part in error["loc"] if part != source]
    line = f"{PARAMS}: {'.'.join([section, *where])}: "
    if error["type"] == "extra_forbidden":
        near = _near(schema, error)
        return line + "unknown key" + (f", did you mean {near}?" if near else "; remove it")
    if error["type"] == "missing":
        return line + "missing; add it"
    if error["type"] == "model_type":
        return line + f"needs keys of its own, not {error['input']!r}; see presets/ for whole examples"
    if error["type"] == "value_error":
        return line + str(error["ctx"]["error"])
    return line + f"{error['msg'][0].lower()}{error['msg'][1:]}, not {error['input']!r}"


def need(*paths: Path) -> None:
    """Raises StageError where something that an earlier stage writes is missing."""
    for path in paths:
        if not path.exists():
            raise StageError(f"{path} is missing; run dvc repro, or first the stage that writes it (see dvc.yaml)")


@contextmanager
def whole(target: Path) -> Iterator[Path]:
    """Yield a path to write to; it takes the target's place only when the block ends without an error.

    So an interrupted stage leaves nothing that a later run would take for whole.
    """
    partial = target.with_name(target.name + ".partial")
    _remove(partial)
    partial.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield partial
        for file in [partial, *partial.rglob("*")]:
            # Libraries that write by way of a private temporary file leave it private.
            file.chmod(file.stat().st_mode | 0o044)
        _remove(target)
        partial.rename(target)
    finally:
        _remove(partial)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def run(main: Callable[..., None], sections: dict[str, Any] | None = None, targets: Sequence[str] = ()) -> None:
    """Run a stage: an error that users can fix becomes one line on stderr and exit status 1, Ctrl-C one line and 130.

    Args:
        sections: of params.yaml that the stage reads, e.g. `train` -> its schema. If given, the command line is read:
            `--help` describes the stage, and unknown arguments end with status 2.
        targets: what the command line must choose one of; `main` gets it.
    """
    arguments = _read_command_line(main, sections, targets) if sections else []
    try:
        main(*arguments)
    except KeyboardInterrupt:
        print("interrupted: nothing half-written is left; dvc repro starts this stage again", file=sys.stderr)
        sys.exit(130)
    except StageError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        sys.exit(f"error: {error.filename or Path.cwd()}: the disk is full; free some space, then run dvc repro again")


def _read_command_line(main: Callable[..., None], sections: dict[str, Any], targets: Sequence[str]) -> list[str]:
    module = sys.modules[main.__module__]
    keys = "\n\n".join(_describe(section, schema) for section, schema in sections.items())
    parser = argparse.ArgumentParser(
        prog=f"python -m {module.__spec__.name}",
        description=f"{module.__doc__}\n{keys}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    if targets:
        parser.add_argument("target", choices=targets)
    return list(vars(parser.parse_args()).values())


def _describe(section: str, schema: Any) -> str:
    """List the keys of a section; of a union, those of each of its classes."""
    union = get_args(schema)[0] if get_origin(schema) is Annotated else schema
    lines = []
    for model in get_args(union) or [union]:
        lines.append(f"keys of {section}" + (f" ({model.__name__.lower()})" if get_args(union) else ""))
        for key, field in model.model_fields.items():
            # As JSON, which YAML reads: true, null.
            default = "" if field.is_required() else f" = {json.dumps(field.default)}"
            kind = _name(field.annotation)
            lines.append(f"  {key}: {kind}{default}")
    return "\n".join(lines)


def _name(annotation: Any) -> str:
    """Name a type as a user of params.yaml would."""
    if annotation is type(None):
        return "null"
    if parts := get_args(annotation):
        if get_origin(annotation) is Annotated:
            return _name(parts[0])
        if get_origin(annotation) in (Union, UnionType):
            return " or ".join(map(_name, parts))
        if get_origin(annotation) is Literal:
            return " or ".join(map(str, parts))
    return "mapping" if (get_origin(annotation) or annotation) is dict else getattr(annotation, "__name__", "any")
