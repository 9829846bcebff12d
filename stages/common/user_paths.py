"""Paths that users write in params.yaml."""

from pathlib import Path

from stages.common.errors import UserError

MAX_SHOWN = 120  # characters of a path in a message


def expand_path(text: str, key: str) -> Path:
    """Return a path with `~` expanded. It may not exist.

    Args:
        key: of params.yaml, dotted.

    Raises:
        UserError: the path is empty or too long, its user is unknown, or a folder on the way may not be entered.
    """
    shown = text if text.isprintable() else ascii(text)
    shown = shown if len(shown) <= MAX_SHOWN else f"{shown[:MAX_SHOWN]}..."
    if not text.strip():
        raise UserError("is empty; write the path of a file or folder", key=key)
    try:
        path = Path(text).expanduser()
        path.stat()
    except RuntimeError:
        raise UserError(f"{shown}: no home folder of that user; write the complete path", key=key) from None
    except (FileNotFoundError, NotADirectoryError):
        return path
    except ValueError:
        raise UserError(f"{shown} has a character that no path can have", key=key) from None
    except OSError as error:
        raise UserError(f"{shown}: {error.strerror}", key=key) from None
    return path
