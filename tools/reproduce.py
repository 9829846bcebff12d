"""Run the last commit again in a copy: is the result the same, or what differs first?

It prints one of three results, and leaves your files and the runs in DVC's cache as they are.

identical                    all outputs have the bytes that dvc.lock lists
equal within the tolerance   the same data, no other prediction of a test clip, and probabilities that differ by at most
                             0.001; exit status 0, as for identical
different                    what differs first, in the order data, base model, encoding, weights, metrics; how much;
                             and which versions or devices differ from metrics/environment.json; exit status 1

Run     python -m tools.reproduce: train and evaluate; --evaluate: only evaluate; --all: all stages but publish
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml
from dvc.config import Config
from dvc.exceptions import DvcException
from dvc.repo import Repo

from stages.common.environment_record import read_entries
from stages.common.errors import UserError
from stages.common.paths import ENVIRONMENT, METRICS, PREDICTIONS
from stages.common.stage import command_parser, run_command
from stages.common.tables import read_json
from tools.differences import (
    TOLERANCE,
    Difference,
    compare_environments,
    compare_predictions,
    find_other_inputs,
    find_other_outputs,
    is_equal,
    locked_outputs,
)
from tools.verify import explain


def reproduce(stages: tuple[str, ...], *, upstream: bool) -> bool:
    """Run stages again in a copy of the last commit, print the comparison, and return whether the result is the same.

    Args:
        stages: names in dvc.yaml. upstream: also run all stages before them.

    Raises:
        UserError: not a commit of a finished run, inputs are missing, or a stage failed.
    """
    prefix = _git("rev-parse", "--show-prefix")  # the project may be a folder of the repo
    try:
        with Repo() as repo:
            cache, remotes, folder = repo.cache.local_cache_dir, repo.config["remote"], Path(repo.tmp_dir)
            has_remote = bool(repo.config["core"].get("remote"))
    except DvcException as error:
        raise explain(error) from None
    if _git("--no-optional-locks", "status", "--porcelain", "--untracked-files=no"):
        print("note: only the last commit is run again, not your uncommitted changes")
    folder.mkdir(exist_ok=True)
    # Beside DVC's cache, so that files can be links to it.
    with tempfile.TemporaryDirectory(prefix="reproduce-", dir=folder, ignore_cleanup_errors=True) as temporary:
        print(f"copying commit {_git('rev-parse', '--short', 'HEAD')}", flush=True)
        clone, before = Path(temporary, "clone"), Path(temporary, "before")
        _git("clone", "--quiet", _git("rev-parse", "--show-toplevel"), str(clone))
        copy = clone / prefix
        _share_cache(copy, cache, remotes)
        env = os.environ | {"DVC_SITE_CACHE_DIR": str(Path(temporary, "site"))}
        env["PYTHONPATH"] = os.pathsep.join(filter(None, [str(copy), os.environ.get("PYTHONPATH")]))
        old = _read_lock(copy)
        differences = find_other_inputs(old)
        for difference in differences:
            print(f"dvc.lock: {difference.describe()}", flush=True)
        rerun = tuple(name for name in old if name != "publish") if upstream else stages
        _get_files(copy, old, () if upstream else stages, has_remote, env)
        for output in [*(path for name in rerun for path in locked_outputs(old.get(name, {}))), str(ENVIRONMENT)]:
            if (copy / output).exists():
                (before / output).parent.mkdir(parents=True, exist_ok=True)
                (copy / output).rename(before / output)
        print(f"running {'all stages' if upstream else ' and '.join(stages)} again", flush=True)
        # Without committing, because the run cache would later hand on a different result to your runs.
        options = ["--force", "--no-commit"] + ([] if upstream else ["--single-item"])
        if _dvc(copy, env, "repro", *options, *stages):
            raise UserError("a stage failed in the copy; its message is above")
        differences += find_other_outputs(old, _read_lock(copy), before, copy)
        return _report(differences, before, copy, rerun, old)


def _report(differences: list[Difference], before: Path, copy: Path, rerun: tuple[str, ...], old: Any) -> bool:
    """Print the result and what differs; return whether the result is the same."""
    ordered = sorted(differences, key=lambda difference: difference.place)
    changed = compare_predictions(before / PREDICTIONS, copy / PREDICTIONS)
    print()
    equal = is_equal(ordered, changed)
    if not ordered:
        print("identical: all outputs have the bytes that dvc.lock lists")
    elif equal:
        print(f"equal within the tolerance: the same predictions, and no probability differs by more than {TOLERANCE}")
    else:
        print(f"different, first in: {ordered[0].kind}")
    for difference in ordered:
        print(f"  {difference.describe()}")
    if ordered and changed is not None:
        accuracies = [read_json(folder / METRICS)["accuracy"] for folder in (before, copy)]
        print(f"  test clips with another prediction: {changed.labels} of {changed.clips}")
        print(f"  largest difference of a probability: {changed.probability:.2g}")
        print(f"  accuracy: {accuracies[0]}, here {accuracies[1]}")
    for line in compare_environments(_entries(before), _entries(copy), old, rerun):
        print(f"  {line}")
    return not ordered or equal


def _entries(folder: Path) -> dict[str, dict[str, Any]]:
    try:
        return read_entries(folder / ENVIRONMENT)
    except (OSError, ValueError):
        return {}


def _share_cache(copy: Path, cache: str, remotes: dict[str, Any]) -> None:
    """Give the copy the local settings of DVC, its cache, and the paths of remotes, which may be relative."""
    local = Path(".dvc/config.local")
    if local.is_file():
        shutil.copyfile(local, copy / local)
    with Config(str((copy / ".dvc").resolve())).edit("local") as settings:
        settings.setdefault("cache", {})["dir"] = cache
        settings.setdefault("core", {})["autostage"] = True  # otherwise DVC says how to add files to git
        for name, remote in remotes.items():
            if "://" not in str(remote["url"]):
                settings.setdefault("remote", {}).setdefault(name, {})["url"] = str(Path(remote["url"]).resolve())


def _get_files(copy: Path, lock: Any, stages: tuple[str, ...], has_remote: bool, env: dict[str, str]) -> None:
    """Check out what DVC's cache has, and pull the inputs of stages that it lacks.

    Raises:
        UserError: inputs are neither in the cache nor in the remote.
    """
    _dvc(copy, env, "checkout", "--quiet", "--allow-missing")
    made = {path for name in stages for path in locked_outputs(lock.get(name, {}))}
    inputs = [dep["path"] for name in stages for dep in lock[name]["deps"] if dep["path"] not in made]
    missing = [path for path in inputs if not (copy / path).exists()]
    if missing and has_remote:
        _dvc(copy, env, "pull", "--allow-missing", *missing)
        missing = [path for path in missing if not (copy / path).exists()]
    if missing:
        fix = "run dvc pull or dvc repro first, or python -m tools.reproduce --all"
        raise UserError(f"neither in DVC's cache nor in a remote; {fix}", file=missing[0])


def _read_lock(copy: Path) -> Any:
    """Return the stages of dvc.lock.

    Raises:
        UserError: it is missing in the commit, or has no stage evaluate.
    """
    try:
        stages = yaml.safe_load((copy / "dvc.lock").read_text(encoding="utf-8"))["stages"]
        if {"train", "evaluate"} <= set(stages):
            return stages
    except (OSError, LookupError, TypeError, yaml.YAMLError):
        pass
    message = "the last commit has no finished run; run dvc repro, then commit dvc.lock and metrics/"
    raise UserError(message, file="dvc.lock")


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True)
    except FileNotFoundError:
        raise UserError("git is not installed; it has the commit to run again") from None
    if done.returncode:
        raise UserError(f"git {arguments[0]}: {' '.join(done.stderr.split())}")
    return done.stdout.strip()


def _dvc(copy: Path, env: dict[str, str], *arguments: str) -> int:
    """Run DVC in the copy, with its output on the terminal but its hint to push; return its exit status."""
    command = [sys.executable, "-m", "dvc", *arguments]
    env = env | {"PYTHONUNBUFFERED": "1"}  # lines show when they are written
    with subprocess.Popen(command, cwd=copy, env=env, stdout=subprocess.PIPE, text=True, errors="replace") as process:
        assert process.stdout is not None
        for line in process.stdout:
            if not line.startswith("Use `dvc push`"):
                print(line, end="", flush=True)
    return process.returncode


def main() -> None:
    """Compare; exit status 1 if the result is different."""
    parser = command_parser("tools.reproduce", __doc__)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--evaluate", action="store_true", help="only measure the model again, which is quick")
    which.add_argument("--all", action="store_true", help="run all stages but publish again, from download on")
    arguments = parser.parse_args()
    stages = ("evaluate",) if arguments.evaluate or arguments.all else ("train", "evaluate")
    sys.exit(not reproduce(stages, upstream=arguments.all))


if __name__ == "__main__":
    run_command(main)
