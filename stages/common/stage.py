"""Run a stage script: params checked before any work, errors in one line."""

import argparse
import atexit
import gc
import io
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from stages.common.environment_record import earlier_seconds, record_environment
from stages.common.errors import UserError
from stages.common.inputs import unchanged_inputs
from stages.common.outputs import clean_up
from stages.common.params import SECTIONS
from stages.common.params_check import check_params
from stages.common.params_help import describe_params
from stages.common.system_errors import describe_system_error


def run_stage(main: Callable[..., Callable[[], None] | None], targets: tuple[str, ...] = ()) -> None:
    """Run a stage script: read the command line, check all of params.yaml, and call `main`.

    If DVC runs the stage, also check that its inputs stay as they are.

    An error that the user can fix becomes one line on stderr and exit status 1, Ctrl-C one line and status 130. `main`
    imports torch itself, so that mistakes in params.yaml show at once.

    Args:
        main: of the stage script; its module's name and docstring are those of `--help`. It may return a function that
            runs after the check of the inputs, such as a push.
        targets: one of them must be given on the command line; `main` gets it.
    """
    module = sys.modules[main.__module__]
    name = module.__spec__.name.removesuffix(".__main__") if module.__spec__ else ""
    stage = name.split(".")[1]
    arguments = _read_command_line(name, module.__doc__ or "", stage, targets)

    def check_and_run() -> None:
        started = time.perf_counter()
        earlier_seconds.clear()
        clean_up()
        with unchanged_inputs() as restore_outputs:
            check_params(stage, *arguments)
            restored = restore_outputs()
            last_step = None if restored else main(*arguments)
        if last_step:
            with unchanged_inputs():
                last_step()
        if not restored:  # outputs of an earlier run, whose seconds are not known
            entry = os.environ.get("DVC_STAGE", "").rpartition(":")[2] or _name_entry(name, arguments)
            record_environment(entry, time.perf_counter() - started)

    _search_garbage_rarely()
    run_command(check_and_run)


def _search_garbage_rarely() -> None:
    """Search all objects for garbage a hundred times less often, and not when Python ends.

    Most of them belong to imported libraries, so it finds nothing, and takes a quarter of the processor time of a short
    stage. Recent objects are searched as often as before. Python 3.14.0 to 3.14.4 ignore the threshold.
    """
    young, old, _ = gc.get_threshold()
    gc.set_threshold(young, old, 1000)
    atexit.register(gc.freeze)


def _name_entry(module: str, arguments: list[str]) -> str:
    """Return the name in dvc.yaml of a stage script, e.g. `evaluate_baselines` of `stages.evaluate.baselines`."""
    return "@".join(["_".join(module.split(".")[1:]), *arguments])


def run_command(main: Callable[[], None]) -> None:
    """Call `main` of a command-line tool, and end with one line if it raises an error that the user can fix.

    If nothing reads stdout or stderr any more, as after `| head`, it ends without a message and with status 141.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal may lack characters of names
    try:
        main()
        sys.stdout.flush()
    except BrokenPipeError:
        if not _drop_unread_output():  # another pipe, such as that of a worker process
            raise
        sys.exit(128 + signal.SIGPIPE)  # what a shell reports of a program that SIGPIPE ended
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except UserError as error:
        sys.exit(f"error: {error}")
    except Exception as error:
        if problem := describe_system_error(error):
            sys.exit(f"error: {problem}")
        raise


def _drop_unread_output() -> bool:
    """Return whether stdout or stderr has no reader. Its output is then dropped, or Python would report it at exit."""
    pipes = select.poll()
    for descriptor in (1, 2):
        pipes.register(descriptor, 0)  # only whether its other end is closed
    closed = [descriptor for descriptor, _ in pipes.poll(0)]
    with Path(os.devnull).open("wb") as nowhere:
        for descriptor in closed:
            os.dup2(nowhere.fileno(), descriptor)
    return bool(closed)


def command_parser(name: str, docstring: str | None) -> argparse.ArgumentParser:
    """Return a parser of a module's command line, whose `--help` is the module's docstring."""
    return argparse.ArgumentParser(
        prog=f"python -m {name}",
        description=docstring,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def _read_command_line(name: str, docstring: str, stage: str, targets: tuple[str, ...]) -> list[str]:
    parser = command_parser(name, docstring)
    if targets:
        parser.add_argument("target", choices=targets)
    if {"-h", "--help"} & set(sys.argv[1:]):
        parser.epilog = describe_params(stage) if name == f"stages.{stage}" and stage in SECTIONS else None
    return list(vars(parser.parse_args()).values())
