"""Push all runs in the run cache, with their outputs, to the DVC remote.

`dvc push --run-cache` pushes the records of the runs, but only the outputs of the current one, and never those that git
keeps, such as metrics. After this tool, `dvc pull --run-cache` and `dvc repro --pull` run nothing in another clone if
the params were run in this one.

Run     python -m tools.push
"""

from pathlib import Path

from dvc.exceptions import DvcException
from dvc.repo import Repo

from stages.common.errors import UserError
from stages.common.stage import command_parser, run_command
from tools.verify import explain


def push_runs(remote: str | None) -> int:
    """Push all runs, and return the number of those whose outputs are in the cache.

    Raises:
        UserError: no remote, or a file could not be pushed.
    """
    pushed, missing, objects = 0, 0, set()
    try:
        with Repo() as repo:
            cache = repo.stage_cache
            repo.cloud.get_remote_odb(remote)  # raises an error if there is none
            for file in Path(cache.cache_dir).glob("*/*/*"):
                record = cache._load_cache(file.parent.name, file.name)  # None if it is damaged
                run = record and cache._create_stage(record)
                if not run or not run.outs_cached():
                    missing += 1
                    continue
                objects |= set().union(*run.get_used_objs().values())
                pushed += 1
            failed = repo.cloud.push(objects, remote=remote).failed
            cache.push(remote)  # the records last, so that none is there without its outputs
    except ImportError as error:  # the package for this kind of remote is missing
        raise UserError(" ".join(str(error).split())) from None
    except DvcException as error:
        raise explain(error) from None
    if failed:
        raise UserError(f"{len(failed)} files could not be pushed; see the messages above, then start this again")
    if missing:
        print(f"runs without outputs in the cache, not pushed: {missing} (dvc gc may have removed them)")
    return pushed


def main() -> None:
    """Push, and print the number of runs."""
    parser = command_parser("tools.push", __doc__)
    parser.add_argument("remote", nargs="?", help="name of a DVC remote; default: the default remote")
    print(f"runs pushed: {push_runs(parser.parse_args().remote)}")


if __name__ == "__main__":
    run_command(main)
