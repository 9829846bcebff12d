"""Set up matplotlib: no screen, its own defaults, and fonts for all labels. Import it before matplotlib."""

import logging
import os
import unicodedata
from collections.abc import Iterable

os.environ["MPLBACKEND"] = "agg"  # needs no screen; a notebook sets a backend that is not installed here
logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it takes a temporary folder if HOME cannot be written

import matplotlib

matplotlib.rcdefaults()  # not a user's matplotlibrc, which changes fonts and sizes, and may ask for LaTeX
matplotlib.rcParams["text.parse_math"] = False  # a $ in a label is no formula

from matplotlib.font_manager import FontProperties, findfont, fontManager
from matplotlib.ft2font import FT2Font

from stages.common.names import code_of, show

MAX_WIDTH = 40  # of a label, in small letters; longer ones would leave no space for the figure
PREFERRED = "Noto Sans"  # families that are tried first: they look like each other
LAST_RESORT = "Last Resort"  # matplotlib's font, which has boxes for all characters


def text_width(text: str) -> float:
    """Estimate the width of a text, in small letters."""
    return sum(
        2
        if unicodedata.east_asian_width(character) in "WF"
        else 1.5
        if character.isupper() or character in "mw%@"
        else 1
        for character in text
    )


def shorten(text: str) -> str:
    """Replace the middle of a text that is wider than MAX_WIDTH by an ellipsis."""
    if text_width(text) <= MAX_WIDTH:
        return text
    start, end = text, text
    while text_width(start) > MAX_WIDTH / 2:
        start = start[:-1]
    while text_width(end) > MAX_WIDTH / 2 - 1:
        end = end[1:]
    return f"{start}…{end}"


def label_text(label: str, undrawable: Iterable[str] = ()) -> str:
    """Return what a figure shows of a label. undrawable: characters that are replaced by their codes."""
    return shorten(show(label).translate({ord(character): code_of(character) for character in undrawable}))


def find_fonts(texts: Iterable[str]) -> tuple[list[str], set[str]]:
    """Find fonts of this machine for the characters that the default font lacks.

    Returns:
        Names of font families, for matplotlib's `font.family`, and the characters that no font has.
    """
    missing = {ord(character) for text in texts for character in show(text)}
    missing -= FT2Font(findfont(FontProperties(family=["sans-serif"]))).get_charmap().keys()
    families = ["sans-serif"]
    fonts = [font for font in fontManager.ttflist if font.style == "normal" and not font.name.startswith(LAST_RESORT)]
    for font in sorted(fonts, key=lambda font: (not font.name.startswith(PREFERRED), font.weight != 400, font.name)):
        if not missing:
            break
        found = FT2Font(font.fname, face_index=font.index).get_charmap().keys() & missing
        if found:
            families.append(font.name)
            missing -= found
    return families, {chr(code) for code in missing}
