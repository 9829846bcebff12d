"""Find all that is wrong with params.yaml before any stage does any work.

This decides only whether the file is accepted. No output depends on it, so dvc.yaml does not list this module.
"""

import copy
import difflib
from collections.abc import Iterator
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Annotated, Any

from pydantic import TypeAdapter, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from stages.common.errors import InvalidParamsError, UserError
from stages.common.model_types import is_known, read_config
from stages.common.params import SECTIONS, find_schema, read_file, validate_section
from stages.common.params_errors import RENAMED_KEYS, drop_tags, find_closest_key
from stages.common.paths import BASE, PARAMS


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
    problems, missing = [], set(SECTIONS) - set(content)
    for name in [name for name in content if name not in SECTIONS]:
        near = difflib.get_close_matches(str(name), missing, n=1)
        advice = f", did you mean {near[0]}?" if near else f"; remove it, the sections are {', '.join(SECTIONS)}"
        problems.append(UserError(f"unknown section{advice}", key=str(name)))
        if near:
            content[near[0]] = content.pop(name)
            missing.remove(near[0])
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
        config = read_config(BASE)
    if encode := sections.get("resample_encode"):
        config |= {key: value for key, value in encode.feature_extractor.items() if key == "sampling_rate"}
        seconds = getattr(getattr(sections.get("download"), "dataset", None), "seconds", encode.max_seconds)
        config["max_seconds"] = min(seconds, encode.max_seconds)
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
                *parents, key = drop_tags(node, detail["loc"])
                mapping = reduce(getitem, parents, node)
                renamed = RENAMED_KEYS.get(".".join(map(str, [section, *parents, key])), "").rpartition(".")[2]
                value, known = mapping.pop(key), renamed or find_closest_key(schema, detail)
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
