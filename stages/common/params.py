"""Read params.yaml.

The section `train` is described by `TrainParams` in stages/train/params.py, and so on. These modules import neither
torch nor pandas, so that `check_params` takes only a second.
"""

from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args, get_origin, overload

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.events import CollectionEndEvent, CollectionStartEvent

from stages.common.errors import InvalidParamsError, UserError, hide_credentials
from stages.common.paths import PARAMS

SECTIONS = ("download", "split", "resample_encode", "train", "evaluate", "publish")
MAX_VALUES, MAX_DEPTH = 100_000, 20  # aliases of aliases multiply
T = TypeVar("T")


class Section(BaseModel):
    """A section of params.yaml. It rejects unknown keys and does not coerce types."""

    model_config = ConfigDict(extra="forbid", strict=True)

    def find_conflicts(self, sections: dict[str, Any]) -> Iterator[UserError]:
        """Yield an error for each contradiction with another section. sections: the valid ones, by name."""
        yield from ()

    def find_unsupported(self, config: dict[str, Any]) -> Iterator[UserError]:
        """Yield an error for each key that the base model does not allow. config: the content of its config.json."""
        yield from ()

    def find_obstacles(self) -> Iterator[UserError]:
        """Yield an error for each thing that the section needs and this machine does not have."""
        yield from ()


Number = Annotated[float, Field(allow_inf_nan=False)]
Seconds = Annotated[float, Field(gt=0, le=1e6)]
Threads = Annotated[int, Field(ge=1, le=1024)]


def find_window_conflicts(key: str, seconds: float | None, sections: dict[str, Any]) -> Iterator[UserError]:
    """Yield an error if windows are longer than all clips. sections: the valid ones, by name."""
    limits = [("resample_encode.max_seconds", getattr(sections.get("resample_encode"), "max_seconds", None))]
    dataset = getattr(sections.get("download"), "dataset", None)
    limits.append(("download.dataset.seconds", getattr(dataset, "seconds", None)))  # of synthetic clips
    exceeded = [(name, limit) for name, limit in limits if seconds and limit and seconds > limit]
    for name, limit in exceeded[:1]:
        yield UserError(f"{seconds} s is longer than {name}: {limit}", key=key)


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
    """Read params.yaml as a mapping, with the values that DVC records: it reads YAML 1.2, PyYAML 1.1.

    Raises:
        UserError: the file is missing, not valid YAML, or too large or too deep for params.
    """
    try:
        text = PARAMS.read_text(encoding="utf-8")
        _check_depth(text)
        content = YAML(typ="safe").load(text)
    except FileNotFoundError:
        message = f"not found in {Path.cwd().name}/; run from the project's top folder"
        raise UserError(message, file=PARAMS) from None
    except YAMLError as error:
        raise UserError(f"not valid YAML: {_explain_yaml(error)}", file=PARAMS) from None
    except UnicodeDecodeError:
        raise UserError("not UTF-8; save it as UTF-8", file=PARAMS) from None
    except (OSError, ValueError, LookupError, AttributeError, TypeError, RecursionError) as error:
        # E.g. a folder, a date without a day, a number of thousands of digits, or thousands of nested lists.
        raise UserError(f"cannot be read: {' '.join(str(error).split())}", file=PARAMS) from None
    if not isinstance(content, dict):
        raise UserError("needs the sections " + ", ".join(SECTIONS) + "; see presets/", file=PARAMS)
    _measure(content, (), {})
    return content


def _check_depth(text: str) -> None:
    """Raise UserError for a text that is nested so deep that loading it would end the process."""
    depth = 0
    for event in YAML(typ="safe").parse(text):
        depth += isinstance(event, CollectionStartEvent) - isinstance(event, CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise UserError(f"nested deeper than {MAX_DEPTH} levels", file=PARAMS)


def _explain_yaml(error: YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    # ruamel.yaml adds both values to the problem of a key that is listed twice.
    problem = (getattr(error, "problem", None) or " ".join(str(error).split())).partition(" with value ")[0]
    return f"line {mark.line + 1}: {problem}" if mark else problem


def _measure(node: Any, where: tuple[Any, ...], known: dict[int, tuple[int, int]]) -> tuple[int, int]:
    """Return the number of values in a part of params.yaml, and its depth. An alias counts as what it repeats.

    Args:
        where: keys of the part. known: results by the id of the part, because aliases repeat it.

    Raises:
        UserError: too many or too deep, or a value that is no text, number, true, false or null.
    """
    key = ".".join(map(str, where)) or None
    if not isinstance(node, dict | list):
        if node is not None and not isinstance(node, str | int | float):
            raise UserError(f"a {type(node).__name__} is not supported; put it in quotes to make it a text", key=key)
        if isinstance(node, int) and abs(node) >= 2**63:
            raise UserError("the number is too large", key=key)
        if isinstance(node, str) and node != hide_credentials(node):
            raise UserError("has a password or token, which dvc.lock would record; remove it", key=key)
        return 1, 0
    if len(where) > MAX_DEPTH:  # an alias of a part that contains it has no end
        raise UserError(f"nested deeper than {MAX_DEPTH} levels", file=PARAMS)
    if id(node) not in known:
        items = node.items() if isinstance(node, dict) else enumerate(node)
        parts = [_measure(value, (*where, name), known) for name, value in items]
        known[id(node)] = 1 + sum(size for size, _ in parts), 1 + max((depth for _, depth in parts), default=0)
    size, depth = known[id(node)]
    if size > MAX_VALUES or len(where) + depth > MAX_DEPTH:
        raise UserError(f"more than {MAX_VALUES} values, or nested deeper than {MAX_DEPTH} levels", file=PARAMS)
    return size, depth


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
        from stages.common.params_errors import explain_errors

        raise InvalidParamsError(explain_errors(section, node, schema, error)) from None


def models_of(annotation: Any) -> list[type[BaseModel]]:
    """Return the classes of a type annotation that describe mappings: one, several of a union, or none."""
    if get_args(annotation):
        parts = get_args(annotation)[:1] if get_origin(annotation) is Annotated else get_args(annotation)
        return [model for part in parts for model in models_of(part)]
    return [annotation] if isinstance(annotation, type) and issubclass(annotation, BaseModel) else []
