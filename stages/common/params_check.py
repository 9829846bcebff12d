"""Find all that is wrong with params.yaml before any stage does any work.

This decides only whether the file is accepted. No output depends on it, so dvc.yaml does not list this module.
"""

import copy
import difflib
import reprlib
from collections.abc import Iterator
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Annotated, Any, get_args

from pydantic import BaseModel, TypeAdapter, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from stages.common.errors import InvalidParamsError, UserError
from stages.common.model_types import is_known, read_config
from stages.common.params import SECTIONS, find_schema, models_of, read_file, validate_section
from stages.common.paths import BASE, PARAMS

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
SHORT = reprlib.Repr()  # of values in messages
SHORT.maxstring = SHORT.maxother = SHORT.maxlong = 100


def check_params(stage: str, target: str | None = None) -> None:
    """Check all of params.yaml before a stage starts.

    Args:
        stage: the one that starts. What an earlier stage would need from this machine is not checked: its outputs may
            come from a DVC remote. Nor is, for `check`, what a section needs that a stage has already run with.
        target: of a stage that has several, e.g. the `dataset` of `download`.

    Raises:
        InvalidParamsError: with all problems that were found.
    """
    content = read_file()
    problems, sections = find_contradictions(content)
    lock = _read_lock() if stage in ("check", "download") else None
    for name in SECTIONS[SECTIONS.index(stage) :] if stage in SECTIONS else SECTIONS:
        try:
            if name == "download":
                problems += _find_download_obstacles(content.get(name), target, lock)
            elif name in sections and (stage in SECTIONS or content[name] != _recorded_params(lock, name).get(name)):
                problems += sections[name].find_obstacles()
        except OSError as error:
            problems.append(UserError(f"a file or folder of it cannot be read: {error.strerror}", key=name))
    if problems:
        raise InvalidParamsError(problems)


def find_contradictions(content: dict[str, Any]) -> tuple[list[UserError], dict[str, Any]]:
    """Find all that is wrong with the content of params.yaml on any machine, as far as the base model is known.

    Args:
        content: sections by name. Misspelled keys in it are corrected.

    Returns:
        An error for each problem, and the valid sections by name.
    """
    problems = []
    for name in [name for name in content if name not in SECTIONS]:
        near = difflib.get_close_matches(str(name), set(SECTIONS) - set(content), n=1)
        advice = f", did you mean {near[0]}?" if near else f"; remove it, the sections are {', '.join(SECTIONS)}"
        problems.append(UserError(f"unknown section{advice}", key=str(name)))
        if near:
            content[near[0]] = content.pop(name)
    sections: dict[str, Any] = {}
    for name in SECTIONS:
        try:
            sections[name] = validate_section(name, content, find_schema(name))
        except InvalidParamsError as error:
            problems += error.problems
            content[name] = _correct_keys(name, content.get(name), find_schema(name))
            if section := _validate(content[name], find_schema(name)):
                sections[name] = section
    for section in sections.values():
        problems += section.find_conflicts(sections)
    known = {problem.key for problem in problems}
    problems += [problem for problem in _find_unsupported(content, sections) if problem.key not in known]
    return problems, sections


def _find_unsupported(content: dict[str, Any], sections: dict[str, Any]) -> Iterator[UserError]:
    """Check the valid sections against the base model, if its config is known: from its source, or downloaded."""
    node = content.get("download")
    node = node.get("model") if isinstance(node, dict) else None
    source = _validate_half("model", node)
    config = source.read_config() if source else {}
    if source and not config and node == _recorded_params(_read_lock(), "download@model").get("download.model"):
        config = read_config(BASE / "config.json")
    if is_known(config):
        for section in sections.values():
            yield from section.find_unsupported(config)


def _find_download_obstacles(node: Any, target: str | None, lock: Any) -> Iterator[UserError]:
    """Check the two halves of the section separately: one may be valid, or finished, without the other."""
    for half in find_schema("download").model_fields:
        source = node.get(half) if isinstance(node, dict) else None
        valid = _validate_half(half, source)
        # The half that does not start may be finished, and its source gone since.
        if valid and (half == target or source != _recorded_params(lock, f"download@{half}").get(f"download.{half}")):
            yield from valid.find_obstacles()


def _validate_half(half: str, node: Any) -> Any:
    field = find_schema("download").model_fields[half]
    return _validate(node, Annotated[field.annotation, field])


def _validate(node: Any, schema: Any) -> Any:
    """Return a part of params.yaml as an instance of its class, or None if it is invalid."""
    try:
        return TypeAdapter(schema).validate_python(node)
    except ValidationError:
        return None


def _correct_keys(section: str, node: Any, schema: Any) -> Any:
    """Return a section in which unknown keys are corrected, or removed if no key is close."""
    node = copy.deepcopy(node)
    try:
        TypeAdapter(schema).validate_python(node)
    except ValidationError as error:
        for detail in error.errors():
            if detail["type"] == "extra_forbidden":
                *parents, key = _drop_tags(node, detail["loc"])
                mapping = reduce(getitem, parents, node)
                renamed = RENAMED_KEYS.get(".".join(map(str, [section, *parents, key])), "").rpartition(".")[2]
                value, known = mapping.pop(key), renamed or _closest_key(schema, detail)
                if known:
                    mapping.setdefault(known, value)
    return node


def _recorded_params(lock: Any, stage: str) -> dict[str, Any]:
    """Return the params that a stage last ran with, by dotted key. lock: the content of dvc.lock."""
    try:
        params = lock["stages"][stage]["params"][PARAMS.name]
    except (LookupError, TypeError):
        return {}
    return params if isinstance(params, dict) else {}


def _read_lock() -> Any:
    try:
        return YAML(typ="safe").load(Path("dvc.lock").read_text(encoding="utf-8"))
    except (OSError, LookupError, TypeError, ValueError, RecursionError, YAMLError):
        return None


def explain_errors(section: str, node: Any, schema: Any, error: ValidationError) -> list[UserError]:
    """Turn pydantic's errors in a section into one error for each problem."""
    details: list[Any] = error.errors()
    # A misspelled key is also missing under its correct name: report it once.
    misspelled = {_closest_key(schema, detail) for detail in details} - {None}
    details = [d for d in details if d["type"] != "missing" or d["loc"][-1] not in misspelled]
    return [_explain(section, node, schema, detail) for detail in details]


def _explain(section: str, node: Any, schema: Any, detail: Any) -> UserError:
    where = ".".join([section, *(str(key).replace("\n", "\\n") for key in _drop_tags(node, detail["loc"]))])
    kind, value = detail["type"], detail["input"]
    if kind == "extra_forbidden":
        if new := RENAMED_KEYS.get(where):
            return UserError(f"renamed, write {new.rpartition('.')[2]}", key=where)
        near = _closest_key(schema, detail)
        return UserError("unknown key" + (f", did you mean {near}?" if near else "; remove it"), key=where)
    if kind == "missing":
        return UserError("missing; add it", key=where)
    if kind in ("model_type", "model_attributes_type"):
        return UserError(f"must be a mapping, got {SHORT.repr(value)}; see presets/ for complete files", key=where)
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        source = value.get("source") if isinstance(value, dict) else None
        known = [get_args(model.model_fields["source"].annotation)[0] for model in _models_at(schema, detail["loc"])]
        if new := RENAMED_SOURCES.get(str(source)):
            return UserError(f"{source} is renamed, write {new}", key=f"{where}.source")
        return UserError(f"must be {' or '.join(known)}, got {SHORT.repr(source)}", key=f"{where}.source")
    if kind == "value_error":
        return UserError(str(detail["ctx"]["error"]), key=where)
    if kind == "bool_type" and str(value).lower() in ("yes", "no", "on", "off"):
        return UserError(f"must be true or false, got {value}: YAML 1.2, which DVC reads, has no such word", key=where)
    return UserError(f"{detail['msg'][0].lower()}{detail['msg'][1:]}, got {SHORT.repr(value)}", key=where)


def _closest_key(schema: Any, detail: Any) -> str | None:
    """Return the closest valid key to a misspelled one, or None."""
    if detail["type"] != "extra_forbidden":
        return None
    known = [key for model in _models_at(schema, detail["loc"][:-1]) for key in model.model_fields]
    near = difflib.get_close_matches(str(detail["loc"][-1]), known, n=1)
    return near[0] if near else None


def _drop_tags(node: Any, location: tuple[Any, ...]) -> list[Any]:
    """Return a location without the tags that pydantic puts into it for unions, e.g. the source "folder"."""
    where, tagged = [], False
    for number, part in enumerate(location):
        is_key = number == len(location) - 1 and isinstance(node, dict) and part in node
        if isinstance(node, dict) and not tagged and not is_key and part == node.get("source"):
            tagged = True
            continue
        where.append(part)
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
