"""Read params.yaml, and find all that is wrong with it before any stage does any work.

The section `train` is described by `TrainParams` in stages/train/params.py, and so on. These modules import neither
torch nor pandas, so that a mistake shows within a second or two.
"""

import difflib
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args, get_origin, overload

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

from stages.common.errors import InvalidParamsError, UserError
from stages.common.paths import PARAMS

SECTIONS = ("download", "split", "resample_encode", "train", "evaluate", "publish")
# Keys and values of earlier versions, and what they are called now.
RENAMED_KEYS = {
    "split.test": "split.test_size",
    "split.validation": "split.validation_size",
    "resample_encode.representation": "resample_encode.cache",
    "train.accumulation": "train.gradient_accumulation_steps",
    "train.warmup": "train.warmup_ratio",
    "train.frozen": "train.freeze",
}
RENAMED_SOURCES = {"procedural": "synthetic", "scratch": "random_weights"}
T = TypeVar("T")


class Section(BaseModel):
    """A section of params.yaml. It rejects unknown keys and does not coerce types."""

    model_config = ConfigDict(extra="forbid", strict=True)

    def find_conflicts(self, sections: dict[str, Any]) -> Iterator[UserError]:
        """Yield an error for each contradiction with another section. sections: the valid ones, by name."""
        yield from ()

    def find_obstacles(self) -> Iterator[UserError]:
        """Yield an error for each thing that the section needs and this machine does not have."""
        yield from ()


def _read_exponent(value: Any) -> Any:
    # YAML 1.1, and so PyYAML, parses 5e-5 as a string; YAML 1.2, and so DVC, as a number.
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


Number = Annotated[float, BeforeValidator(_read_exponent), Field(allow_inf_nan=False)]


@cache
def find_schema(section: str) -> type[Section]:
    """Import the class that describes a section of params.yaml."""
    name = "".join(word.capitalize() for word in section.split("_"))
    return getattr(import_module(f"stages.{section}.params"), f"{name}Params")


def check_params(stage: str, target: str | None = None) -> None:
    """Check the whole of params.yaml before a stage starts.

    Args:
        stage: the one that starts. What an earlier stage would need from this machine is not checked: its outputs may
            come from a DVC remote.
        target: of a stage that has several, e.g. the `dataset` of `download`.

    Raises:
        InvalidParamsError: with all problems that were found.
    """
    content = _read_file()
    problems = [
        UserError(f"unknown section{_suggest(str(name), SECTIONS)}", key=str(name))
        for name in content
        if name not in SECTIONS
    ]
    sections: dict[str, Any] = {}
    for name in SECTIONS:
        try:
            sections[name] = _validate(name, content, find_schema(name))
        except InvalidParamsError as error:
            problems += error.problems
    for section in sections.values():
        problems += section.find_conflicts(sections)
    for name in SECTIONS[SECTIONS.index(stage) :]:
        if name in sections:
            problems += _find_obstacles(name, sections[name], content, target)
    if problems:
        raise InvalidParamsError(problems)


def _find_obstacles(name: str, section: Section, content: dict[str, Any], target: str | None) -> Iterator[UserError]:
    if name != "download":
        yield from section.find_obstacles()
        return
    for half in ("dataset", "model"):
        # The half that does not start may be finished, and its source gone since.
        if half == target or content[name][half] != _recorded_params(f"download@{half}").get(f"download.{half}"):
            yield from getattr(section, half).find_obstacles()


def _recorded_params(stage: str) -> dict[str, Any]:
    """Return the params that a stage last ran with, by dotted key, from dvc.lock."""
    try:
        return yaml.safe_load(Path("dvc.lock").read_text(encoding="utf-8"))["stages"][stage]["params"][PARAMS.name]
    except (OSError, KeyError, TypeError, yaml.YAMLError):
        return {}


@overload
def load_params(section: str, schema: type[T]) -> T: ...
@overload
def load_params(section: str, schema: Any) -> Any: ...
def load_params(section: str, schema: Any) -> Any:
    """Read and check one section of params.yaml, e.g. `train` or `download.dataset`.

    Raises:
        InvalidParamsError: the section is missing, or a key is unknown, mistyped or out of range.
        UserError: params.yaml is missing or not valid YAML.
    """
    return _validate(section, _read_file(), schema)


def _read_file() -> dict[str, Any]:
    try:
        content = yaml.safe_load(PARAMS.read_text(encoding="utf-8"))
    except FileNotFoundError:
        message = f"not found in {Path.cwd().name}/; run from the project's top folder"
        raise UserError(message, file=PARAMS) from None
    except yaml.YAMLError as error:
        raise UserError(f"not valid YAML: {' '.join(str(error).split())}", file=PARAMS) from None
    except UnicodeDecodeError:
        raise UserError("not UTF-8; save it as UTF-8", file=PARAMS) from None
    if not isinstance(content, dict):
        raise UserError("needs the sections " + ", ".join(SECTIONS) + "; see presets/", file=PARAMS)
    return content


def _validate(section: str, content: Any, schema: Any) -> Any:
    node = content
    for name in section.split("."):
        if not isinstance(node, dict) or name not in node:
            raise InvalidParamsError([UserError("section is missing; see presets/ for complete files", key=section)])
        node = node[name]
    try:
        return TypeAdapter(schema).validate_python(node)
    except ValidationError as error:
        details = error.errors()
        # A misspelled key is also missing under its right name: report it once.
        misspelled = {_closest_key(schema, detail) for detail in details} - {None}
        details = [d for d in details if d["type"] != "missing" or d["loc"][-1] not in misspelled]
        raise InvalidParamsError([_explain(section, node, schema, detail) for detail in details]) from None


def _explain(section: str, node: Any, schema: Any, detail: Any) -> UserError:
    where = ".".join([section, *_drop_tags(node, detail["loc"])])
    kind, value = detail["type"], detail["input"]
    if kind == "extra_forbidden":
        if new := RENAMED_KEYS.get(where):
            return UserError(f"renamed, write {new.rpartition('.')[2]}", key=where)
        near = _closest_key(schema, detail)
        return UserError("unknown key" + (f", did you mean {near}?" if near else "; remove it"), key=where)
    if kind == "missing":
        return UserError("missing; add it", key=where)
    if kind in ("model_type", "model_attributes_type"):
        return UserError(f"must be a mapping, got {value!r}; see presets/ for complete files", key=where)
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        source = value.get("source") if isinstance(value, dict) else None
        known = [get_args(model.model_fields["source"].annotation)[0] for model in _models_at(schema, detail["loc"])]
        if new := RENAMED_SOURCES.get(str(source)):
            return UserError(f"{source} is renamed, write {new}", key=f"{where}.source")
        return UserError(f"must be {' or '.join(known)}, got {source!r}", key=f"{where}.source")
    if kind == "value_error":
        return UserError(str(detail["ctx"]["error"]), key=where)
    return UserError(f"{detail['msg'][0].lower()}{detail['msg'][1:]}, got {value!r}", key=where)


def _suggest(name: str, known: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f", did you mean {near[0]}?" if near else f"; remove it, the sections are {', '.join(known)}"


def _closest_key(schema: Any, detail: Any) -> str | None:
    """Return the closest valid key to a misspelled one, or None."""
    if detail["type"] != "extra_forbidden":
        return None
    known = [key for model in _models_at(schema, detail["loc"][:-1]) for key in model.model_fields]
    near = difflib.get_close_matches(str(detail["loc"][-1]), known, n=1)
    return near[0] if near else None


def _drop_tags(node: Any, location: tuple[Any, ...]) -> list[str]:
    """Return a location without the tags that pydantic puts into it for unions, e.g. the source "folder"."""
    where, tagged = [], False
    for part in location:
        if isinstance(node, dict) and not tagged and part == node.get("source"):
            tagged = True
            continue
        where.append(str(part))
        node, tagged = (node.get(part) if isinstance(node, dict) else None), False
    return where


def _models_at(schema: Any, location: tuple[Any, ...]) -> list[type[BaseModel]]:
    """Return the classes that describe the mapping at a location of pydantic's error."""
    models = models_of(schema)
    for part in location:
        tagged = [m for m in models if part in get_args(getattr(m.model_fields.get("source"), "annotation", None))]
        if tagged:
            models = tagged
        else:
            fields = [model.model_fields[part] for model in models if part in model.model_fields]
            models = [inner for field in fields for inner in models_of(field.annotation)]
    return models


def models_of(annotation: Any) -> list[type[BaseModel]]:
    """Return the classes of a type annotation that describe mappings: one, several of a union, or none."""
    if get_args(annotation):
        parts = get_args(annotation)[:1] if get_origin(annotation) is Annotated else get_args(annotation)
        return [model for part in parts for model in models_of(part)]
    return [annotation] if isinstance(annotation, type) and issubclass(annotation, BaseModel) else []
