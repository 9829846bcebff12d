"""Read the labels of a cell of a table, which may be a list."""

import json
import re
from contextlib import suppress
from typing import Any

# An apostrophe inside a word begins no quoted part.
QUOTED = re.compile(r"(?<![^\s\[({,:;])(?:'[^']*'|\"[^\"]*\")(?![^\s\])},:;])")
# A set or a mapping.
BRACES = re.compile(rf"{{\s*(?:{QUOTED.pattern})\s*(?:[,;:].*)?}}", re.DOTALL)
# What a list or tuple of Python or NumPy, or a list without quotes, has besides its quoted parts. Names may have
# brackets, too: [a] b [c].
LIST = re.compile(r"\[(?:[^\[\]]*|[\[\]\s,;]*)\]")
TUPLE = re.compile(r"\((?:[\s,]|None|nan)*\)")
MISSING = {"", "None", "nan", "NaN", "null"}
MAX_LISTED = 10  # names in a message


def as_text(value: Any) -> str:
    """Return a value of JSON or Parquet as the text of a cell: of a list, as JSON; of bytes, ""."""
    if isinstance(value, list):
        return json.dumps(value, ensure_ascii=False, default=str)
    return "" if value is None or value != value or is_binary(value) else str(value).strip()


def is_binary(value: Any) -> bool:
    """Return whether a value is bytes, or a list with bytes."""
    return isinstance(value, bytes) or (isinstance(value, list) and any(map(is_binary, value)))


def list_labels(cell: str) -> list[str]:
    """Return the different labels of a cell: those of a list, or the cell."""
    labels = None
    if cell.startswith("["):
        with suppress(ValueError, RecursionError):
            labels = _flatten(json.loads(cell))
    if labels is None and _is_list(cell):
        labels = _split(cell[1:-1])
    return [cell] if labels is None else list(dict.fromkeys(filter(None, labels)))


def _is_list(cell: str) -> bool:
    bare = QUOTED.sub("", cell)
    if cell.startswith("("):
        return bare != cell and "," in bare and TUPLE.fullmatch(bare) is not None
    return LIST.fullmatch(bare) is not None or (BRACES.fullmatch(cell) is not None and not is_mapping(cell))


def is_mapping(cell: str) -> bool:
    """Return whether a cell has names and values, such as {"low": 0.9}."""
    return BRACES.fullmatch(cell) is not None and ":" in QUOTED.sub("", cell)


def _flatten(value: Any) -> list[str]:
    return [text for item in value for text in _flatten(item)] if isinstance(value, list) else [as_text(value)]


def _split(text: str) -> list[str]:
    quoted, others = QUOTED.findall(text), QUOTED.sub(" ", text)
    if not quoted and re.fullmatch(r"[\d\s.+-]+", text):
        return text.split()  # numbers, as NumPy writes them
    bare = [part.strip("[] \t\n") for part in re.split("[,;]", others)]
    return [part[1:-1] for part in quoted] + [part for part in bare if part.strip("()") not in MISSING]


def read_label(cell: str) -> str:
    """Return the label of a cell: of a list with one label, this label; of an empty list, "". Others stay lists."""
    labels = list_labels(cell)
    return cell if len(labels) > 1 else "".join(labels)


def list_names(names: list[str]) -> str:
    """Return names for a message, at most MAX_LISTED."""
    return ", ".join(name or "''" for name in names[:MAX_LISTED]) + (", ..." if len(names) > MAX_LISTED else "")


def describe_several(clip: str, labels: list[str]) -> str:
    """Return the message for a clip with several labels."""
    found = f"{clip} has {len(labels)} labels ({list_names(labels)})"
    return f"{found}; the pipeline supports one label a clip: give it one, or name another column in label_column"
