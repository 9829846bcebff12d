"""Write the presets, their JSON schema and docs/params.md from the models in stages/*/params.py.

Also copy the pins of constraints.txt into pyproject.toml, for uv.

A preset is a complete file, so that it shows all that runs. Defaults and comments come from the models;
preset_table.py has what differs. params.yaml is written too if it is an unchanged copy of presets/demo.yaml.

Run     python -m tools.presets, or make presets
"""

import json
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, create_model

from stages.common.params import SECTIONS, find_schema, models_of
from stages.common.params_help import format_default, name_type
from stages.common.paths import PARAMS
from stages.common.stage import command_parser
from tools.preset_table import PRESETS

ROOT = Path(__file__).parents[1]
LINE_LENGTH = 120
SCHEMA = "presets/params.schema.json"
# Read by editors with yaml-language-server. The path is right for a preset that was copied to params.yaml.
MODELINE = f"# yaml-language-server: $schema={SCHEMA}"


def write_preset(name: str) -> str:
    """Return the text of a preset."""
    header, sections = PRESETS[name]
    lines = [MODELINE, *(f"# {line}" for line in header.splitlines())]
    for section in SECTIONS:
        params = find_schema(section).model_validate(sections.get(section, {}))
        lines += [f"{section}:", *_write_model(params, 2)]
    return "\n".join(lines) + "\n"


def _write_model(params: BaseModel, indent: int) -> Iterator[str]:
    fields = type(params).model_fields
    for key in sorted(fields, key=lambda key: key != "source"):  # the source first, then in order
        field, value = fields[key], getattr(params, key)
        comment = f" # {field.description}" if field.description else ""
        if isinstance(value, BaseModel):
            yield f"{' ' * indent}{key}:{comment}"
            yield from _write_model(value, indent + 2)
            continue
        line = f"{' ' * indent}{key}: {_dump(value)}"
        if len(line) > LINE_LENGTH - 20:
            yield f"{' ' * indent}{key}:{comment}"
            yield from (f"{' ' * (indent + 2)}{name}: {_dump(item)}" for name, item in value.items())
        elif len(line + comment) > LINE_LENGTH:
            yield f"{' ' * indent}{comment.strip()}"
            yield line
        else:
            yield line + comment


def _dump(value: Any) -> str:
    if isinstance(value, float) and value.is_integer() and value >= 1:
        value = int(value)
    return yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10_000).removesuffix("...\n").strip()


def write_schema() -> str:
    """Return the JSON schema of params.yaml."""
    fields: Any = {section: (find_schema(section), ...) for section in SECTIONS}
    schema = create_model("params.yaml", **fields).model_json_schema()
    return json.dumps(schema | {"additionalProperties": False}, indent=2) + "\n"


def write_docs() -> str:
    """Return docs/params.md: a table of keys for each section."""
    lines = [
        "# Keys of params.yaml",
        "",
        "Written by `make presets` from `stages/*/params.py`. `python -m stages.train --help` prints those of a stage.",
    ]
    for section in SECTIONS:
        lines += _document(section, find_schema(section))
    return "\n".join(lines) + "\n"


def _document(name: str, model: type[BaseModel]) -> Iterator[str]:
    nested = [(key, inner) for key, field in model.model_fields.items() for inner in models_of(field.annotation)]
    yield from ("", f"## {name}", "", _escape((model.__doc__ or "").strip()))
    if len(nested) < len(model.model_fields):
        yield from ("", "| key | type | default | |", "|---|---|---|---|")
    for key, field in model.model_fields.items():
        if key != "source" and not (models_of(field.annotation) and field.is_required()):
            default = "required" if field.is_required() else f"`{format_default(field.get_default())}`"
            comment = _escape(field.description or "")
            yield f"| `{key}` | {name_type(field.annotation)} | {default} | {comment} |"
    for key, inner in nested:
        tag = inner.model_fields.get("source")
        source = f", source: {get_args(tag.annotation)[0]}" if tag else ""
        yield from _document(f"{name}.{key}{source}", inner)


def write_pyproject() -> str:
    """Return pyproject.toml with the pins of constraints.txt at its end: `uv sync` reads no constraints file."""
    text, start, _ = (ROOT / "pyproject.toml").read_text().partition("constraint-dependencies = [\n")
    pins = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    listed = textwrap.fill(", ".join(f'"{pin}"' for pin in pins), LINE_LENGTH - 2, break_on_hyphens=False)
    return f"{text}{start}{textwrap.indent(listed, '  ')},\n]\n"


def _escape(text: str) -> str:
    return text.replace("<", "\\<")  # or Markdown reads it as HTML


def main() -> None:
    """Write all files."""
    command_parser("tools.presets", __doc__).parse_args()
    copied = (ROOT / PARAMS).read_text() == (ROOT / "presets/demo.yaml").read_text()
    texts = {f"presets/{name}.yaml": write_preset(name) for name in PRESETS}
    texts |= {SCHEMA: write_schema(), "docs/params.md": write_docs(), "pyproject.toml": write_pyproject()}
    if copied:
        texts[str(PARAMS)] = texts["presets/demo.yaml"]
    for path, text in texts.items():
        (ROOT / path).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
