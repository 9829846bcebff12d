"""Write the outputs of a stage so that each is complete or as it was, however the stage ends.

An output is written beside its target, as <target>.partial. At the end, the old outputs are renamed to <target>.old,
the new ones to their targets, and the old ones deleted.
"""

import os
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import filelock

from stages.common import interrupts
from stages.common.errors import UserError
from stages.common.inputs import list_outputs
from stages.common.system_errors import describe_full_disk

LOCKS = Path(".dvc/tmp/outputs")  # DVC's folder for such files; git ignores it


def require_files(*paths: Path) -> None:
    """Raise UserError if an output of an earlier stage is missing."""
    for path in paths:
        if not path.exists():
            raise UserError("missing; run dvc repro, or run the stage that writes it (see dvc.yaml)", file=path)


@contextmanager
def atomic_outputs(*targets: Path) -> Iterator[list[Path]]:
    """Yield a temporary path for each target, and rename all of them to their targets if the block succeeds.

    If the block fails or is interrupted, all targets stay as they were and no partial output remains. If the process is
    killed while it renames, the next stage that starts completes or undoes it (see `clean_up`).

    Raises:
        UserError: another process writes one of the targets, or the disk is full.
    """
    partials = [_partial(target) for target in targets]
    with ExitStack() as locks:
        for target in targets:
            target.parent.mkdir(parents=True, exist_ok=True)
            locks.enter_context(_locked(target))
        _recover(targets)
        interrupts.unfinished.extend(partials)
        try:
            yield partials
            _make_durable(partials)
            _swap(targets)
        except Exception as error:
            if problem := describe_full_disk(error, partials):
                raise UserError(problem, file=targets[0]) from error
            raise
        finally:
            for partial in partials:
                _remove(partial)
                interrupts.unfinished.remove(partial)


def clean_up() -> None:
    """Remove what killed stages left beside the outputs of dvc.yaml, unless another process writes there."""
    for targets in list_outputs():
        if any(os.path.lexists(name(target)) for target in targets for name in (_partial, _old)):
            with ExitStack() as locks:
                try:
                    for target in targets:
                        locks.enter_context(_locked(target))
                except UserError:
                    continue
                _recover(targets)


def _partial(target: Path) -> Path:
    return target.with_name(target.name + ".partial")


def _old(target: Path) -> Path:
    return target.with_name(target.name + ".old")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def _locked(target: Path) -> Iterator[None]:
    LOCKS.mkdir(parents=True, exist_ok=True)
    file = LOCKS / "-".join(target.parts)
    lock = filelock.FileLock(file)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        owner = file.read_text(encoding="utf-8") or "another process"
        raise UserError(f"{owner} is writing it; wait until it ends, or end it", file=target) from None
    try:
        file.write_text(f"process {os.getpid()}, started at {time.strftime('%H:%M:%S')},", encoding="utf-8")
        yield
    finally:
        lock.release()


def _make_durable(partials: list[Path]) -> None:
    """Write the files to the disk itself: after a power failure, a renamed file could be empty."""
    paths = [path for partial in partials for path in (partial, *partial.rglob("*"))]
    with ThreadPoolExecutor(16) as pool:  # the disk combines writes that wait at the same time
        list(pool.map(_sync, paths))


def _sync(path: Path) -> None:
    # Some libraries leave files unreadable for other users.
    path.chmod(path.stat().st_mode | 0o044)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _swap(targets: tuple[Path, ...]) -> None:
    with interrupts.hold_signals():
        try:
            for target in targets:
                if os.path.lexists(target):
                    target.rename(_old(target))
            for target in targets:
                _partial(target).rename(target)
        except OSError:
            _recover(targets)
            raise
    for target in targets:
        _remove(_old(target))


def _recover(targets: tuple[Path, ...] | list[Path]) -> None:
    """Undo an incomplete swap, complete one that only lacks the deletion of old outputs, and remove partial outputs."""
    if any(os.path.lexists(_old(target)) for target in targets):
        if any(os.path.lexists(_partial(target)) for target in targets):
            for target in targets:
                if not os.path.lexists(_partial(target)):
                    _remove(target)  # a new one
                if os.path.lexists(_old(target)):
                    _old(target).rename(target)
        for target in targets:
            _remove(_old(target))
    for target in targets:
        _remove(_partial(target))
