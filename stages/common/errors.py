"""Errors that users can fix."""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stages.common.paths import IN_GIT, PUBLISHED

MAX_LENGTH = 1200  # characters of a message
MAX_REASON = 300  # characters of what a library reports
# User and password of a URL, also if the password has a slash, and keys in its query.
CREDENTIALS = re.compile(r"(?<=://)(?:[^\s/?#@]+:[^\s'\"<>]*|[^\s/?#'\"<>]*)@")
SECRETS = re.compile(r"([?&][\w.-]*(?:token|key|password|secret|signature|sig)=)[^&\s'\"<>]+", re.IGNORECASE)
UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
# The fault of the machine, not of the file that was read.
MACHINE = (errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.EDQUOT, errno.EROFS)


def hide_credentials(text: str) -> str:
    """Replace users and passwords of URLs, and keys and tokens in their queries, by ***."""
    return SECRETS.sub(r"\1***", CREDENTIALS.sub("***@", text))


def printable(text: str, length: int = MAX_LENGTH) -> str:
    """Return a text as one line for the terminal: without credentials, control characters escaped, its middle cut."""
    line = UNPRINTABLE.sub(lambda found: ascii(found[0])[1:-1], hide_credentials(text))
    return line if len(line) <= length else f"{line[: length * 2 // 3]} ... {line[-length // 3 :]}"


class UserError(Exception):
    """Invalid input that the user can fix. The message is one line: where, what is wrong, how to fix it.

    It has no password of a URL, and long values are cut.

    Attributes:
        message: what is wrong, without the place.
        key: of params.yaml, dotted, e.g. `train.epochs`; the message starts with it.
        file: the file or folder that is invalid; the message starts with it.
    """

    def __init__(self, message: str, *, key: str | None = None, file: Path | str | None = None) -> None:
        where = f"params.yaml: {key}: " if key else f"{file}: " if file else ""
        super().__init__(printable(where + message))
        self.message, self.key, self.file = message, key, None if file is None else str(file)


class InvalidParamsError(UserError):
    """All that is wrong with params.yaml, a line each.

    Attributes:
        problems: one error for each line.
    """

    def __init__(self, problems: list[UserError]) -> None:
        super().__init__("")
        self.args = ("\nerror: ".join(map(str, problems)),)
        self.problems = problems


def damaged(file: Path, reason: object) -> UserError:
    """Return the error for an output of an earlier stage that is not as the stage wrote it."""
    line = printable(" ".join(str(reason).split()), MAX_REASON)
    return UserError(f"damaged: {line}; {_advise(file)}", file=file)


@contextmanager
def reading(file: Path) -> Iterator[None]:
    """Turn what libraries raise in the block, which only reads an output of an earlier stage, into one error.

    Raises:
        UserError: the output is missing or damaged.
    """
    if file.exists() and not (file.is_file() or file.is_dir()):
        raise damaged(file, "it is a pipe or a device")  # opening a pipe blocks
    try:
        yield
    except (UserError, MemoryError, ImportError, NameError, NotImplementedError):
        raise
    except OSError as error:
        if error.errno in MACHINE:
            raise
        if isinstance(error, FileNotFoundError) and error.filename:
            raise UserError(f"missing; {_advise(file)}", file=os.path.relpath(error.filename)) from None
        raise damaged(file, error.strerror or error) from None
    except ValueError as error:
        raise damaged(file, error) from None
    except Exception as error:  # libraries raise anything if a file has another shape
        if "memory" in str(error):  # torch raises RuntimeError
            raise
        raise damaged(file, f"{type(error).__name__}: {error}") from error


def _advise(file: Path) -> str:
    if file.is_relative_to(PUBLISHED):  # a copy of models/finetuned
        return "train again: dvc repro --force train"
    # Without --force, DVC keeps a file that differs. It does not restore what git keeps.
    checkout = "" if any(file.is_relative_to(output) for output in IN_GIT) else f"dvc checkout --force {file}, or "
    # Linked files are damaged in the cache, too.
    return f"run {checkout}dvc repro; if that does not help, python -m tools.verify --repair"
