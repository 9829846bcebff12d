"""What every stage script needs: params checked before any work, one-line errors, atomic outputs."""

import argparse
import errno
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from stages.common.errors import UserError
from stages.common.inputs import unchanged_inputs
from stages.common.params_check import check_params
from stages.common.params_help import describe_params


def require_files(*paths: Path) -> None:
    """Raise UserError if an output of an earlier stage is missing."""
    for path in paths:
        if not path.exists():
            raise UserError("missing; run dvc repro, or run the stage that writes it (see dvc.yaml)", file=path)


@contextmanager
def atomic_output(target: Path) -> Iterator[Path]:
    """Yield a temporary path, and rename it to `target` if the block succeeds.

    If the block fails or is interrupted, `target` stays as it was and no partial output remains.
    """
    partial = target.with_name(target.name + ".partial")
    _remove(partial)
    partial.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield partial
        for file in [partial, *partial.rglob("*")]:
            # Some libraries leave files unreadable for other users.
            file.chmod(file.stat().st_mode | 0o044)
        _remove(target)
        partial.rename(target)
    finally:
        _remove(partial)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


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
        with unchanged_inputs() as restore_outputs:
            check_params(stage, *arguments)
            last_step = None if restore_outputs() else main(*arguments)
        if last_step:
            with unchanged_inputs():
                last_step()

    run_command(check_and_run)


def run_command(main: Callable[[], None]) -> None:
    """Call `main` of a command-line tool, and end with one line if it raises an error that the user can fix."""
    try:
        main()
    except KeyboardInterrupt:
        print("interrupted; no partial output was left. Run dvc repro to start the stage again", file=sys.stderr)
        sys.exit(130)
    except UserError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        sys.exit(f"error: {error.filename or Path.cwd()}: the disk is full; free some space, then run dvc repro again")


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
        parser.epilog = describe_params(stage) if name == f"stages.{stage}" else None
    return list(vars(parser.parse_args()).values())
