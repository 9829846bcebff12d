"""Describe the keys of params.yaml: for --help, and for the presets and docs that are written from the same models."""

import json
from collections.abc import Iterator
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from stages.common.params import find_schema, models_of


def describe_params(section: str) -> str:
    """List the keys of a section, with type, default and comment, for the terminal."""
    return "\n".join(_describe_model(section, find_schema(section)))


def _describe_model(name: str, model: type[BaseModel]) -> Iterator[str]:
    nested = [(key, inner) for key, field in model.model_fields.items() for inner in models_of(field.annotation)]
    yield f"keys of {name}:"
    for key, field in model.model_fields.items():
        default = "" if field.is_required() else f" = {format_default(field.get_default())}"
        yield f"  {key}: {name_type(field.annotation)}{default}"
        if field.description:
            yield f"      {field.description}"
    for key, inner in nested:
        tag = inner.model_fields.get("source")
        source = f" (source: {get_args(tag.annotation)[0]})" if tag else ""
        yield ""
        yield from _describe_model(f"{name}.{key}{source}", inner)


def format_default(value: Any) -> str:
    """Format a default as in params.yaml: as JSON, which YAML reads."""
    return json.dumps(value.model_dump() if isinstance(value, BaseModel) else value)


def name_type(annotation: Any) -> str:
    """Name a type as a user of params.yaml would, e.g. `int or null`."""
    if annotation is type(None):
        return "null"
    if parts := get_args(annotation):
        if get_origin(annotation) is Annotated:
            return name_type(parts[0])
        if get_origin(annotation) in (Union, UnionType):
            return " or ".join(dict.fromkeys(map(name_type, parts)))
        if get_origin(annotation) is Literal:
            return " or ".join(map(str, parts))
    if (get_origin(annotation) or annotation) is dict or models_of(annotation):
        return "mapping"
    return getattr(annotation, "__name__", "any")
