"""Compare names that users would read as the same."""

import unicodedata


def fold(text: str) -> str:
    """Return a form that all spellings of a name share.

    Spellings differ in case, in spaces, in the Unicode form of a character, or in characters that are not shown.
    """
    shown = "".join(c for c in text if unicodedata.category(c) != "Cf" and c not in "\ufe0e\ufe0f")
    return " ".join(unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", shown).lower()).split())


def show(text: str) -> str:
    """Quote a name, with escapes if it has characters that can look the same in two spellings."""
    return repr(text) if text.isascii() else f"'{text}' ({text!a})"
