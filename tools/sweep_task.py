"""Run one experiment of a sweep or a search: on a node of a Ray cluster, or for a search also on this machine.

Ray sends the code of this module to the node, so it imports only the standard library. The node needs git, and the
packages of the project in the environment in which Ray was started there.
"""

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

SECONDS_TO_END = 10  # that a cancelled stage has to remove its partial outputs


@dataclass(frozen=True)
class Source:
    """Where nodes get the project.

    Attributes:
        url: of the git repo, or its path in a shared file system.
        commit: to check out.
        folder: of the project in the repo; empty if it is at the top.
        cache: the folder of DVC's cache in a shared file system.
        token: the name of a file in it. It shows that a node's folder of this path is the same folder.
        remote: name of the DVC remote for nodes that do not see the cache, or None.
        author: name and email of git commits, or empty.
    """

    url: str
    commit: str
    folder: str
    cache: str
    token: str
    remote: str | None
    author: tuple[str, str]


@dataclass(frozen=True)
class Part:
    """What a search runs of an experiment, and where; the default is all of it, in the folder for temporary files.

    Attributes:
        target: the last stage to run; None for all.
        without: paths in git, relative to the project, that the experiment must not have: outputs of later stages.
        folder: for the clone, on this machine.
        stop: gets the folder of the project twice a second, and returns True to end the experiment.
    """

    target: str | None = None
    without: tuple[str, ...] = ()
    folder: str | None = None
    stop: Callable[[Path], bool] | None = None


def run(source: Source, name: str, overrides: list[str], part: Part = Part()) -> Iterator[str]:
    """Run and push an experiment. A generator, so that the driver knows when a node has started it.

    Args:
        name: of the experiment. overrides: such as `train.epochs=3`, one value each.

    Yields:
        The name of the node; then all output of git and DVC, which starts with "ok" or "failed" and a line break.
    """
    yield socket.gethostname()
    with tempfile.TemporaryDirectory(prefix="sweep-", dir=part.folder, ignore_cleanup_errors=True) as folder:
        log = Path(folder, "log")
        status = "ok" if _run(source, name, overrides, part, Path(folder, "project"), log) else "failed"
        output = log.read_text(encoding="utf-8", errors="replace")
    yield f"{status}\n{output}"


def _run(source: Source, name: str, overrides: list[str], part: Part, clone: Path, log: Path) -> bool:
    """Clone the project into a folder, and run and push the experiment there; whether all commands succeeded."""
    environment = _environment(clone)
    project = clone / source.folder
    shared = Path(source.cache, source.token).exists()
    if not shared and source.remote is None:
        log.write_text(
            f"error: the node {socket.gethostname()} does not see the cache {source.cache}; share the folder, or add "
            "a DVC remote and commit .dvc/config\n"
        )
        return False
    settings = {"cache.dir": source.cache} if shared else {}
    settings |= {"core.remote": source.remote} if source.remote else {}
    who = {key: value for key, value in zip(("user.name", "user.email"), source.author) if value}
    dvc = [sys.executable, "-m", "dvc"]
    # With --pull and no remote, DVC fails if the run cache has the result.
    fetch = ["--pull", "--allow-missing"] if source.remote else []
    where = ["--no-cache"] if shared else ["--remote", source.remote or ""]
    target = [part.target] if part.target else []
    stop = partial(part.stop, project) if part.stop else None
    commands: list[tuple[list[str], Path]] = [
        (["git", "clone", "--quiet", "--no-checkout", source.url, str(clone)], clone.parent),
        *((["git", "config", key, value], clone) for key, value in who.items()),
        (["git", "checkout", "--quiet", "--detach", source.commit], clone),
        *(([*dvc, "config", "--quiet", "--local", key, value], project) for key, value in settings.items()),
        *([] if source.remote else [([*dvc, "checkout", "--quiet", "--allow-missing"], project)]),
        *([(["git", "rm", "--quiet", "--ignore-unmatch", *part.without], project)] if part.without else []),
        ([*dvc, "exp", "run", *fetch, "--name", name, *_set_params(overrides), *target], project),
        # A node that was lost after its push has left the same experiment, with another time.
        ([*dvc, "exp", "push", "--quiet", "--force", *where, "origin", name], project),
    ]
    with log.open("wb") as output:
        return all(_call(command, folder, environment, output.fileno(), stop) == 0 for command, folder in commands)


def _set_params(overrides: list[str]) -> list[str]:
    return [argument for override in overrides for argument in ("--set-param", override)]


def _environment(clone: Path) -> dict[str, str]:
    environment = dict(os.environ)
    # The stages of another folder would run.
    environment.pop("PYTHONSAFEPATH", None)
    # With it, resample_encode would wait for CPUs that this task holds.
    environment.pop("RAY_ADDRESS", None)
    # DVC keeps a folder for each project, which nothing would remove.
    environment["DVC_SITE_CACHE_DIR"] = str(clone.parent / "site")
    environment["GIT_TERMINAL_PROMPT"] = "0"
    # The stages run `python` of the environment that runs this task, also if it is not activated.
    programs = Path(sys.executable).parent
    if Path(shutil.which("dvc") or "").parent != programs:
        environment["PATH"] = f"{programs}{os.pathsep}{environment.get('PATH', '')}"
    return environment


def _call(
    command: list[str], folder: Path, environment: dict[str, str], output: int, stop: Callable[[], bool] | None
) -> int | None:
    """Run a command, and return its exit status; None if `stop` ended it.

    If this task is cancelled, or stopped, the command ends with all that it started.
    """
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=_end_with_parent(),
    )
    try:
        while True:
            try:
                # Ray cancels by an exception, which Python raises only between two instructions.
                return process.wait(timeout=0.5)
            except subprocess.TimeoutExpired:
                if stop and stop():
                    return None
    finally:
        if process.poll() is None:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process and all processes that it started. process: it leads its group."""
    deadline = time.monotonic() + SECONDS_TO_END
    with suppress(ProcessLookupError):  # none is left
        os.killpg(process.pid, signal.SIGTERM)
        while time.monotonic() < deadline:
            process.poll()
            os.killpg(process.pid, 0)
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGKILL)


def _end_with_parent() -> Callable[[], None] | None:
    """Return a function for a new process, with which it ends if Ray kills this one; None if the system has none."""
    prctl = getattr(ctypes.CDLL(None), "prctl", None) if os.name == "posix" else None
    set_signal_of_parents_death = 1
    return prctl and (lambda: prctl(set_signal_of_parents_death, signal.SIGTERM))
