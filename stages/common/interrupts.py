"""End a stage on Ctrl-C, SIGTERM and SIGHUP: one line, no child process, no partial output.

Imported first by the stage scripts, so that it also holds while they import. The handler ends the process itself: an
exception may be raised anywhere, and libraries catch it or leave a traceback. It does nothing in other programs.
"""

import multiprocessing
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType
from typing import NoReturn

POLL_SECONDS, SECONDS_TO_ASK = 0.5, 2.0

# What to remove: outputs that are being written.
unfinished: list[Path] = []

_signals = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
_process = os.getpid()
_held = False
_waiting: list[int] = []
_deferring = False
_forward: Callable[[], None] | None = None
_requests: list[int] = []


def _end(number: int, frame: FrameType | None = None) -> None:
    if os.getpid() != _process:  # a child that was forked, and has not set its own handlers yet
        os._exit(128 + number)
    if _held:
        _waiting.append(number)
        return
    if _deferring and not _requests:
        _requests.append(number)
        _write("\nsaving a checkpoint after this step; press Ctrl-C again to end at once")
        if _forward:
            _forward()
        return
    end(number, "no partial output was left. Run dvc repro to start the stage again")


def end(number: int, message: str) -> NoReturn:
    """End the process and its children after a signal: one line, no partial output."""
    for other in _signals:
        signal.signal(other, signal.SIG_IGN)
    for child in multiprocessing.active_children():
        child.kill()
    for path in unfinished:
        with suppress(OSError):
            _remove(path)
    name = "interrupted" if number == signal.SIGINT else f"ended by {signal.Signals(number).name}"
    _write(f"\n{name}; {message}")
    os._exit(128 + number)


def _write(line: str) -> None:
    with suppress(OSError):  # after SIGHUP there may be no terminal
        os.write(2, f"{line}\n".encode())


def _remove(path: Path) -> None:
    # Threads may still write into it.
    for _ in range(5):
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
        if not os.path.lexists(path):
            return
        time.sleep(0.05)


@contextmanager
def hold_signals() -> Iterator[None]:
    """Let signals wait until the block is left. It should take milliseconds."""
    global _held
    _held = True
    try:
        yield
    finally:
        _held = False
        if _waiting:
            _end(_waiting[0])


@contextmanager
def defer_signals(forward: Callable[[], None] | None = None) -> Iterator[None]:
    """Only note the first signal inside the block, for `find_request`. A second one ends the process.

    Args:
        forward: what to call when a signal is noted.
    """
    global _deferring, _forward
    _deferring, _forward = True, forward
    try:
        yield
    finally:
        _deferring = False


def find_request() -> int:
    """Return the signal that asks to end, or 0."""
    return _requests[0] if _requests else 0


def request(number: int) -> None:
    """Ask this process to save a checkpoint and end, as a signal would inside `defer_signals`."""
    _requests.append(number)


def prepare_rank(stop: Path) -> None:
    """Prepare one of several training processes: it ends with its parent, which gets the signals.

    Args:
        stop: a file that the parent makes to ask for a checkpoint.
    """
    for number in _signals:
        signal.signal(number, _end_soon if number == signal.SIGTERM else signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None
    for target, argument in ((_end_with, parent), (await_stop, stop)):
        threading.Thread(target=target, args=[argument], daemon=True).start()


def _end_soon(number: int, frame: FrameType | None = None) -> None:
    """End a training process because another one ended, unless it is asked for a checkpoint: both send SIGTERM."""

    def end_unless_asked() -> None:
        if not _requests:
            os._exit(1)

    threading.Timer(SECONDS_TO_ASK, end_unless_asked).start()


def await_stop(stop: Path) -> None:
    """Wait for the file that asks for a checkpoint, and note it as a signal."""
    while not stop.exists():
        time.sleep(POLL_SECONDS)
    request(signal.SIGTERM)


def prepare_worker() -> None:
    """Prepare a worker process: its parent decides when it ends, and it ends with its parent."""
    for number in _signals:
        signal.signal(number, signal.SIG_IGN if number == signal.SIGINT else signal.SIG_DFL)
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_end_with, args=[parent], daemon=True).start()


def _end_with(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)


def _end_with_dvc(dvc: int) -> None:
    while os.getppid() == dvc:
        time.sleep(0.5)
    if not _requests:  # a cluster ends both; the stage then already saves a checkpoint
        os.kill(os.getpid(), signal.SIGTERM)


def _is_stage(module: object) -> bool:
    spec = getattr(module, "__spec__", None)
    return spec is not None and spec.name.startswith("stages.")


if _is_stage(sys.modules["__main__"]):
    for _number in _signals:
        if signal.getsignal(_number) != signal.SIG_IGN:  # nohup ignores SIGHUP, a shell SIGINT in the background
            signal.signal(_number, _end)
    if "DVC_STAGE" in os.environ:
        # DVC cannot record what a stage writes after DVC was killed.
        threading.Thread(target=_end_with_dvc, args=[os.getppid()], daemon=True).start()
