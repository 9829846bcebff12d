"""Describe errors of the operating system in one line: what is wrong with which file, and what helps."""

import errno
import os
import shutil
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from stages.common.errors import UserError

ALMOST_FULL = 1 << 20  # bytes that are free
FREE_SOME = "free some space, then run dvc repro again"
FULL = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "your disk quota is used up",
}
OTHERS = {
    errno.EFBIG: "the file is larger than allowed; raise the limit: ulimit -f unlimited",
    errno.EROFS: "the file system is read-only; use a folder on another one",
    errno.EACCES: "permission denied; change the permissions, or run as its owner",
    errno.EPERM: "not permitted; change the permissions, or run as its owner",
    errno.EMFILE: "too many open files; raise the limit, e.g. ulimit -n 4096",
    errno.ENFILE: "too many open files on this machine; end other programs",
    errno.ENAMETOOLONG: "the name is too long; shorten it",
    errno.EBUSY: "it is in use, or a disk is mounted there; mount the disk at the folder above",
    errno.EEXIST: "a file, or a link that leads nowhere, is where a folder should be; move it",
    errno.ENOTDIR: "a file is where a folder should be; move it",
    errno.EIO: "the disk reports an input/output error; check the disk",
    errno.ELOOP: "the link leads back to itself; remove it",
    errno.ENOMEM: "not enough memory; end other programs, or use a machine with more",
}


def describe_system_error(error: BaseException) -> UserError | None:
    """Return an error of one line if an error, or what caused it, comes from the operating system. None otherwise."""
    for cause in _causes(error):
        if isinstance(cause, MemoryError):
            return UserError("not enough memory; end other programs, or use a machine with more")
        if isinstance(cause, BrokenProcessPool):
            return UserError("a worker process was killed, maybe because memory ran out; run dvc repro again")
        for code, problem in {**FULL, **OTHERS}.items():
            if _has_code(cause, code):
                file = getattr(cause, "filename", None) or Path.cwd()
                return UserError(problem + (f"; {FREE_SOME}" if code in FULL else ""), file=os.fsdecode(file))
    return None


def describe_full_disk(error: BaseException, partials: list[Path]) -> str | None:
    """Return what is wrong, needed and free if the disk or the quota is full; None for other errors.

    Args:
        partials: the files and folders that were being written.
    """
    problems = [FULL[code] for cause in _causes(error) for code in FULL if _has_code(cause, code)]
    free = _free(partials[0])
    # NumPy, torch and libsndfile do not report why they cannot write.
    if not problems and (free > ALMOST_FULL or isinstance(error, UserError)):
        return None
    files = [file for partial in partials for file in (partial, *partial.rglob("*")) if file.is_file()]
    needed = sum(file.stat().st_size for file in files)
    problem = problems[0] if problems else FULL[errno.ENOSPC]
    return f"{problem}: it needs more than {_in_units(needed)}, {_in_units(free)} are free; {FREE_SOME}"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _has_code(error: BaseException, code: int) -> bool:
    """Return whether an error has the code. Libraries in C++ and Rust have it only in their messages."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno == code
    return any(form in str(error) for form in (f"os error {code})", f"[Errno {code}]", f"errno: {code},"))


def _free(path: Path) -> int:
    """Return the free bytes of the disk that a path is on, or would be on."""
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free


def _in_units(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
