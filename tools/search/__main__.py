"""Search for params with Optuna, over DVC experiments: by validation accuracy, never by that of the test clips.

Each trial trains on a clone of the last commit and is then a row of `dvc exp show` here, NAME-<number>. Values are
drawn from log(a,b), uniform(a,b) and int(a,b), or from a list as in `dvc exp run --queue -S`. At the end, the winner
and the committed params are evaluated on the test clips, once. The same command goes on with a search that was
interrupted.

Writes  .dvc/tmp/search/NAME/: study.db, the trials in Optuna's storage; report.md; logs/ of failed experiments
Run     python -m tools.search -S 'train.learning_rate=log(1e-5,1e-3)' -S train.freeze=none,feature_encoder --trials 12
"""

import argparse
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stages.common.errors import UserError
from stages.common.stage import command_parser, run_command

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,49}")


def read_options() -> argparse.Namespace:
    """Read the command line."""
    parser = command_parser("tools.search", __doc__)
    add = parser.add_argument
    add("-S", "--set-param", action="append", required=True, metavar="KEY=VALUES", help="what to draw a key from")
    add("--trials", type=int, default=20, help="their number, with those of earlier runs; default: %(default)s")
    add("--jobs", type=int, help="trials at the same time; default: 1, or on Ray as many as fit")
    add("--name", default="search", help="of the search and its experiments; default: %(default)s")
    add("--seed", type=int, default=0, help="of what is drawn; default: %(default)s")
    add("--sampler", choices=("tpe", "random"), default="tpe", help="of Optuna; default: %(default)s")
    add("--prune", action="store_true", help="stop a trial whose epochs, or folds, are worse than the median")
    add("--folds", type=int, metavar="N", help="take the mean over N parts of the clips that are not in test")
    add("--address", help="of a Ray cluster; default: RAY_ADDRESS, or else the trials run on this machine without Ray")
    add("--cpus", type=float, help="CPUs of each trial, on Ray; default: train.threads")
    add("--gpus", type=float, help="GPUs of each trial, on Ray; default: 1 if a node has one")
    add("--git-remote", metavar="NAME", help="git remote for nodes that do not share this folder, such as origin")
    add("--remote", metavar="NAME", help="DVC remote for nodes that do not share DVC's cache; default: the default one")
    options = parser.parse_args()
    for key, least in (("trials", 1), ("jobs", 1), ("seed", 0), ("folds", 2)):
        if (value := getattr(options, key)) is not None and value < least:
            parser.error(f"--{key} must be at least {least}")
    if not NAME.fullmatch(options.name):
        parser.error("--name may have letters, digits, _ and -, at most 50")
    options.address = options.address or os.environ.get("RAY_ADDRESS")
    if options.address and options.prune and options.folds is None:
        parser.error("--prune reads the epochs of trainings on this machine; on Ray, it needs --folds")
    return options


def check_before(options: argparse.Namespace) -> dict[str, Any]:
    """Check all that can be checked before anything runs, and return the space.

    Raises:
        UserError: the space or params.yaml is not valid, or there are no validation clips.
    """
    from stages.common.errors import InvalidParamsError
    from stages.common.params import read_file
    from stages.common.params_check import find_contradictions
    from tools.search.space import check_space, parse_space

    space = parse_space(options.set_param)
    problems, sections = find_contradictions(read_file())
    if problems:
        raise InvalidParamsError(problems)
    split = sections["split"]
    if not options.folds and split.method != "published" and not split.validation_share:
        message = "the test clips would choose the winner; set a share, such as 0.1, or use --folds"
        raise UserError(message, key="split.validation_size")
    check_space(space, [f"split.validation_folds={options.folds}"] if options.folds else [])
    return space


@contextmanager
def opened_runner(options: argparse.Namespace, source: Any, tmp: Path) -> Iterator[tuple[Any, int]]:
    """Yield what runs the experiments, and the number of trials at the same time."""
    from tools import sweep, sweep_task
    from tools.search import runs

    interrupted = threading.Event()
    name = options.name
    folders = Path(tmp / "exps" / f"search-{name}").absolute(), tmp / "search" / name / "logs"
    if not options.address:
        yield runs.Runner(source, sweep_task.run, None, *folders, interrupted, local=True), options.jobs or 1
        return
    ray = sweep.connect(options.address)
    try:
        threads = runs.read_all_params([]).get("train.threads")
        resources = sweep.choose_resources(ray, options, threads if isinstance(threads, int) else 1)
        start = runs.start_on_ray(ray, resources, interrupted)
        jobs = options.jobs or runs.count_fitting(ray, resources)
        yield runs.Runner(source, start, options.git_remote, *folders, interrupted, local=False), jobs
    finally:
        ray.shutdown()


def search(options: argparse.Namespace) -> int:
    """Run the trials that are missing, evaluate the winner, and return the number of failed trials."""
    from dvc.repo import Repo

    from tools.revisions import experiments
    from tools.search import report, study, trials
    from tools.sweep import mark
    from tools.sweep_plan import check_workspace, fetch_experiments, find_source

    space = check_before(options)
    check_workspace()
    with Repo() as repo, mark(Path(repo.cache.local_cache_dir)) as token:
        source = find_source(repo, options.git_remote, options.remote, token)
        if options.git_remote:
            fetch_experiments(options.git_remote, source.commit)
        tmp = Path(os.path.relpath(repo.tmp_dir))
        settings, folder = study.describe_search(options, space, source.commit), tmp / "search" / options.name
        with study.opened_study(folder, options.name, settings) as opened:
            study.require_open(opened, options.trials, experiments())
            with opened_runner(options, source, tmp) as (runner, jobs):
                runner.clear()
                if study.CLOSED not in opened.user_attrs:
                    trials.Trials(opened, space, runner, options.trials).run(jobs)
                    study.close(opened)
                text = report.evaluate(runner, opened)
                runner.clear()
            file = folder / "report.md"
            file.write_text(text, encoding="utf-8")
            print(f"\n{text}\n{file}")
            failed = report.list_failures(opened)
    for line in failed:
        print(line)
    return len(failed)


def main() -> None:
    """Run the search; exit status 1 if a trial failed."""
    options = read_options()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # end the trainings, and remove their clones
    try:
        import optuna  # noqa: F401
    except ImportError:
        raise UserError(
            "Optuna is not installed; pip install --constraint constraints.txt --editable '.[search]'"
        ) from None
    sys.exit(bool(search(options)))


if __name__ == "__main__":
    run_command(main)
