"""Read params.yaml.

The section `train` is described by `TrainParams` in stages/train/params.py, and so on. These modules import neither
torch nor pandas, so that `check_params` takes only a second.
"""

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
    return validate_section(section, read_file(), schema)


def read_file() -> dict[str, Any]:
    """Read params.yaml as a mapping."""
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


def validate_section(section: str, content: Any, schema: Any) -> Any:
    """Validate one section of the content of params.yaml. section: dotted."""
    node = content
    for name in section.split("."):
        if not isinstance(node, dict) or name not in node:
            raise InvalidParamsError([UserError("section is missing; see presets/ for complete files", key=section)])
        node = node[name]
    try:
        return TypeAdapter(schema).validate_python(node)
    except ValidationError as error:
        from stages.common.params_check import explain_errors

        raise InvalidParamsError(explain_errors(section, node, schema, error)) from None


def models_of(annotation: Any) -> list[type[BaseModel]]:
    """Return the classes of a type annotation that describe mappings: one, several of a union, or none."""
    if get_args(annotation):
        parts = get_args(annotation)[:1] if get_origin(annotation) is Annotated else get_args(annotation)
        return [model for part in parts for model in models_of(part)]
    return [annotation] if isinstance(annotation, type) and issubclass(annotation, BaseModel) else []
