"""Find labels that are spelled in several ways."""

from collections import Counter
from collections.abc import Iterable
from typing import Literal
from unicodedata import is_normalized

from stages.common.errors import UserError
from stages.common.spelling import fold, show

Spellings = Literal["refuse", "join", "keep"]


def unite_labels(labels: Iterable[str], spellings: Spellings) -> dict[str, str]:
    """Return the name that each label gets.

    Args:
        labels: of all clips, so that a spelling occurs once for each of its clips.
        spellings: of one label: join gives all of them the name of the most frequent one (of two equally frequent
            ones, that in Unicode form NFC), keep changes nothing.

    Raises:
        UserError: a label has two spellings, and they are neither joined nor kept.
    """
    numbers = Counter(labels)
    by_form: dict[str, list[str]] = {}
    for label in sorted(numbers, key=lambda label: (-numbers[label], not is_normalized("NFC", label), label)):
        by_form.setdefault(fold(label), []).append(label)
    united = {label: label for label in numbers}
    for first, *others in by_form.values():
        if not others:
            continue
        listed = " and ".join(f"{show(label)} with {numbers[label]} clips" for label in (first, *others))
        if spellings == "refuse":
            raise UserError(
                f"one label seems to be spelled in {1 + len(others)} ways: {listed}; rename them, or set join for one "
                "label or keep for several",
                key="download.dataset.label_spellings",
            )
        result = f"joined as {show(first)}" if spellings == "join" else "kept as different labels"
        print(f"warning: a label is spelled in {1 + len(others)} ways: {listed}; {result}")
        united |= {label: first for label in others if spellings == "join"}
    return united
