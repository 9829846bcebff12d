"""Show names of clips and labels, which may contain any character."""

import re

# Control characters, line separators, direction overrides, and what neither XML nor UTF-8 can hold.
INVISIBLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")


def code_of(character: str) -> str:
    r"""Return the code of a character in ASCII, e.g. \u200e."""
    return character.encode("unicode_escape").decode("ascii")


def show(text: str) -> str:
    r"""Replace each invisible character by its code in ASCII: a line feed by \n, a direction override by \u202e."""
    return INVISIBLE.sub(lambda found: code_of(found[0]), text)


def show_with_spaces(text: str) -> str:
    """Do the same for a page, which drops spaces at the ends and all but one between words: make them no-break."""
    return re.sub("^ | $|(?<= ) ", "\N{NO-BREAK SPACE}", show(text))
