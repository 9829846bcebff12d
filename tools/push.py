"""Push the outputs of all runs in the run cache to the DVC remote.

`dvc push --run-cache` pushes the records of the runs, but only the outputs of the current one, and never those that git
keeps, such as metrics. After this tool, `dvc pull --run-cache` and `dvc repro --pull` run nothing in another clone if
the params were run in this one.
"""

import argparse

from dvc.exceptions import DvcException
from dvc.repo import Repo

from stages.common.errors import UserError
from stages.common.stage import run_command


def push_runs(remote: str | None) -> int:
    """Push all runs, and return the number of runs.

    Raises:
        UserError: no remote; outputs of a run are no longer in the cache, or could not be sent.
    """
    failed = set()
    try:
        with Repo() as repo:
            runs = repo.stage_cache.push(remote)
            for objects in repo.stage_cache.get_used_objs(runs).values():
                failed |= repo.cloud.push(objects, remote=remote).failed
    except DvcException as error:
        raise UserError(" ".join(str(error.__cause__ or error).split())) from None
    if failed:
        raise UserError(f"{len(failed)} files of the run cache could not be pushed; were they removed by dvc gc?")
    return len(runs)


def main() -> None:
    """Push, and print the number of runs."""
    parser = argparse.ArgumentParser(prog="python -m tools.push", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("remote", nargs="?", help="name of a DVC remote; default: the default remote")
    print(f"runs pushed: {push_runs(parser.parse_args().remote)}")


if __name__ == "__main__":
    run_command(main)
