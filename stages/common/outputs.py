"""Write the outputs of a stage so that each is complete or as it was, however the stage ends.

An output is written beside its target, as .<name>.partial. At the end, the old outputs are renamed to .<name>.replaced,
the new ones to their targets, and the old ones deleted. A note lists the targets while they are renamed.
"""

import json
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

from stages.common import interrupts
from stages.common.errors import UserError
from stages.common.inputs import list_outputs
from stages.common.system_errors import describe_full_disk

LOCKS = Path(".dvc/tmp/outputs")  # DVC's folder for such files; git ignores it
NOTE = ".swap"  # extension


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
            if target.is_mount():
                raise UserError("a disk is mounted there; mount it at the folder above", file=target)
            target.parent.mkdir(parents=True, exist_ok=True)
            locks.enter_context(_locked(target))
        _recover(targets, _note(targets))
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
    """Undo incomplete renames, and remove what killed stages left, unless another process writes there."""
    for note in LOCKS.glob(f"*{NOTE}"):
        try:
            targets = [Path(target) for target in json.loads(note.read_text(encoding="utf-8"))]
        except ValueError:  # the process was killed before it renamed anything
            targets = []
        _clean(targets, note)
    for target in list_outputs():
        if any(os.path.lexists(name(target)) for name in (_partial, _old)):
            _clean([target], None)


def _clean(targets: list[Path], note: Path | None) -> None:
    with ExitStack() as locks:
        try:
            for target in targets:
                locks.enter_context(_locked(target))
        except UserError:
            return
        _recover(targets, note)


def _partial(target: Path) -> Path:
    return target.with_name(f".{target.name}.partial")


def _old(target: Path) -> Path:
    return target.with_name(f".{target.name}.replaced")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def _locked(target: Path) -> Iterator[None]:
    LOCKS.mkdir(parents=True, exist_ok=True)
    import filelock  # takes a tenth of a second

    file = LOCKS / _file_name(target)
    lock = filelock.FileLock(file)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        owner = file.read_text(encoding="utf-8")
        raise UserError(f"another process writes it: {owner}; wait until it ends, or end it", file=target) from None
    try:
        file.write_text(f"since {time.strftime('%H:%M:%S')}, process {os.getpid()}", encoding="utf-8")
        yield
    finally:
        lock.release()


def _make_durable(partials: list[Path]) -> None:
    """Write the files to the disk itself: after a power failure, a renamed file could be empty."""
    paths = [path for partial in partials for path in (partial, *partial.rglob("*"))]
    with ThreadPoolExecutor(16) as pool:  # the disk combines writes that wait at the same time
        for start in range(0, len(paths), 1000):
            list(pool.map(sync_file, paths[start : start + 1000]))


def sync_file(path: Path) -> None:
    """Write a file or folder to the disk itself, readable for other users."""
    # Some libraries leave files unreadable for other users.
    path.chmod(path.stat().st_mode | 0o044)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _swap(targets: tuple[Path, ...]) -> None:
    old, note = [_old(target) for target in targets], _note(targets)
    with interrupts.hold_signals():
        note.write_text(json.dumps([str(target) for target in targets]), encoding="utf-8")
        sync_file(note)
        try:
            for target in targets:
                if os.path.lexists(target):
                    target.rename(_old(target))
            for target in targets:
                _partial(target).rename(target)
        except OSError:
            _recover(targets, note)
            raise
        note.unlink()
        interrupts.unfinished.extend(old)
    for path in old:
        _remove(path)
        interrupts.unfinished.remove(path)


def _recover(targets: Sequence[Path], note: Path | None) -> None:
    """Undo an incomplete swap, if there is a note of one. Remove old and partial outputs.

    It can be interrupted and repeated: new outputs move back before old ones return.
    """
    if note and note.exists():
        for target in targets:
            if os.path.lexists(target) and not os.path.lexists(_partial(target)):
                target.rename(_partial(target))
        for target in targets:
            if os.path.lexists(_old(target)) and not os.path.lexists(target):  # it may be restored, by dvc checkout
                _old(target).rename(target)
        note.unlink()
    for target in targets:
        _remove(_old(target))
        _remove(_partial(target))


def _note(targets: Sequence[Path]) -> Path:
    return LOCKS / f"{_file_name(targets[0])}{NOTE}"


def _file_name(target: Path) -> str:
    return "-".join(target.relative_to(target.anchor).parts)
