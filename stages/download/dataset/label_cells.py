"""Read the labels of a cell of a table, which may be a list."""

import json
import re
from typing import Any

LIST = re.compile(r"\[.*\]|\{.*\}|\(['\"].*\)", re.DOTALL)  # a list, as Python or JSON writes it
ITEM = re.compile(r"'([^']*)'|\"([^\"]*)\"|([^\s,;]+)")
MAX_LISTED = 10  # names in a message


def as_text(value: Any) -> str:
    """Return a value of JSON or Parquet as the text of a cell; a list is written as JSON."""
    if isinstance(value, list):
        return json.dumps([as_text(item) for item in value], ensure_ascii=False)
    return "" if value is None or value != value else str(value)


def list_labels(cell: str) -> list[str]:
    """Return the different labels of a cell: those of a list, as JSON, Python or NumPy writes it, or the cell."""
    if not LIST.fullmatch(cell):
        return [cell]
    try:
        items = json.loads(cell)
    except ValueError:
        items = None
    if not isinstance(items, list):
        items = ["".join(found) for found in ITEM.findall(cell[1:-1])]
    labels = [label for item in items for label in list_labels(as_text(item))]
    return list(dict.fromkeys(filter(None, labels)))


def read_label(cell: str) -> str:
    """Return the label of a cell: of a list with one label, this label; of an empty list, "". Others stay lists."""
    labels = list_labels(cell)
    return cell if len(labels) > 1 else "".join(labels)


def list_names(names: list[str]) -> str:
    """Return names for a message, at most MAX_LISTED."""
    return ", ".join(name or "''" for name in names[:MAX_LISTED]) + (", ..." if len(names) > MAX_LISTED else "")


def describe_several(clip: str, labels: list[str]) -> str:
    """Return the message for a clip with several labels."""
    return f"{clip} has {len(labels)} labels ({list_names(labels)}); the pipeline supports one label a clip"
