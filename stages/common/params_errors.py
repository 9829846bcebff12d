"""Explain pydantic's errors in params.yaml.

This decides only which message is printed. No output depends on it, so dvc.yaml does not list this module.
"""

import difflib
import reprlib
from functools import reduce
from operator import getitem
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from stages.common.errors import UserError
from stages.common.params import models_of

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
FEW = 8  # keys that a message lists
SHORT = reprlib.Repr()  # of values in messages
SHORT.maxstring = SHORT.maxother = SHORT.maxlong = 100


def explain_errors(section: str, node: Any, schema: Any, error: ValidationError) -> list[UserError]:
    """Turn pydantic's errors in a section into one error for each problem."""
    details = _join_alternatives(node, error.errors())
    # A misspelled key is also missing under its correct name: report it once.
    misspelled = {find_closest_key(schema, detail) for detail in details} - {None}
    details = [d for d in details if d["type"] != "missing" or d["loc"][-1] not in misspelled]
    return [_explain(section, node, schema, detail) for detail in details]


def _join_alternatives(node: Any, details: list[Any]) -> list[Any]:
    """Return one error for a value that fits none of several types, such as `int | Literal["auto"]`.

    pydantic has an error for each type, with the type's name at the end of its location.
    """
    joined: dict[Any, Any] = {}
    for number, detail in enumerate(details):
        location = drop_tags(node, detail["loc"]) or [None]
        where, last = tuple(location[:-1]), location[-1]
        # The last part is not a type's name if it is None, for the section itself, or [key], for a key that is no text.
        is_one = last in (None, "[key]") or detail["type"] == "missing"
        if is_one or _value_at(node, where) is not detail["input"]:
            joined[number] = detail
            continue
        expected = joined.setdefault(where, {**detail, "type": "union", "loc": where, "expected": []})["expected"]
        expected.append(detail["msg"].removeprefix("Input should be "))
    return list(joined.values())


def _value_at(node: Any, where: tuple[Any, ...]) -> Any:
    try:
        return reduce(getitem, where, node)
    except (LookupError, TypeError):
        return None


def _explain(section: str, node: Any, schema: Any, detail: Any) -> UserError:
    where = ".".join([section, *(str(key).replace("\n", "\\n") for key in drop_tags(node, detail["loc"]))])
    kind, value = detail["type"], detail["input"]
    if kind == "extra_forbidden":
        if new := RENAMED_KEYS.get(where):
            return UserError(f"renamed, write {new.rpartition('.')[2]}", key=where)
        near, known = find_closest_key(schema, detail), _list_keys(schema, detail)
        others = f", the keys are {', '.join(known)}" if 0 < len(known) <= FEW else ""
        return UserError("unknown key" + (f", did you mean {near}?" if near else f"; remove it{others}"), key=where)
    if kind == "missing":
        return UserError("missing; add it", key=where)
    if kind in ("model_type", "model_attributes_type"):
        known = [name for model in _models_at(schema, detail["loc"]) for name in model.model_fields]
        keys = f" with keys such as {', '.join(known[:3])}" if 0 < len(known) <= FEW else "; see presets/"
        return UserError(f"must be a mapping{keys}, got {SHORT.repr(value)}", key=where)
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        source = value.get("source") if isinstance(value, dict) else None
        known = [get_args(model.model_fields["source"].annotation)[0] for model in _models_at(schema, detail["loc"])]
        if new := RENAMED_SOURCES.get(str(source)):
            return UserError(f"{source} is renamed, write {new}", key=f"{where}.source")
        return UserError(f"must be {' or '.join(known)}, got {SHORT.repr(source)}", key=f"{where}.source")
    if kind == "union":
        return UserError(f"must be {', or '.join(detail['expected'])}, got {SHORT.repr(value)}", key=where)
    if kind == "value_error":
        return UserError(str(detail["ctx"]["error"]), key=where)
    if kind == "bool_type" and str(value).lower() in ("yes", "no", "on", "off"):
        return UserError(f"must be true or false, got {value}: YAML 1.2, which DVC reads, has no such word", key=where)
    return UserError(f"{detail['msg'][0].lower()}{detail['msg'][1:]}, got {SHORT.repr(value)}", key=where)


def find_closest_key(schema: Any, detail: Any) -> str | None:
    """Return the closest valid key to a misspelled one, or None."""
    if detail["type"] != "extra_forbidden":
        return None
    near = difflib.get_close_matches(str(detail["loc"][-1]), _list_keys(schema, detail), n=1)
    return near[0] if near else None


def _list_keys(schema: Any, detail: Any) -> list[str]:
    """Return the valid keys of the mapping that has an unknown one."""
    return [key for model in _models_at(schema, detail["loc"][:-1]) for key in model.model_fields]


def drop_tags(node: Any, location: tuple[Any, ...]) -> list[Any]:
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
