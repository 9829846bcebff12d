"""Plan a sweep: the experiments of DVC's grid, with checked params and names, and where nodes get the project."""

import json
import re
import shutil
import tempfile
from functools import reduce
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.utils.cli_parse import to_path_overrides
from dvc.utils.hydra import apply_overrides, get_hydra_sweeps, to_hydra_overrides
from hydra.errors import HydraException
from ruamel.yaml import YAML

from stages.common.errors import InvalidParamsError, UserError
from stages.common.params import read_file
from stages.common.params_check import find_contradictions
from stages.common.paths import PARAMS
from tools.crossval import flat, read_params
from tools.revisions import git
from tools.sweep_task import Source

MAX_NAME = 100  # characters


class Experiment(NamedTuple):
    """An experiment to run.

    Attributes:
        name: made of the keys and values.
        overrides: for `dvc exp run -S`, one value each.
        params: by dotted key.
        threads: CPUs that training uses.
    """

    name: str
    overrides: list[str]
    params: dict[str, Any]
    threads: int


def list_experiments(set_param: list[str]) -> list[Experiment]:
    """Return an experiment for each combination of values.

    Args:
        set_param: in DVC's syntax, e.g. `train.learning_rate=1e-4,3e-4` and `split.fold=range(5)`.

    Raises:
        UserError: the syntax is wrong.
        InvalidParamsError: with all problems of all combinations.
    """
    read_file()
    found: dict[str, Experiment] = {}
    problems: dict[str, list[str]] = {}
    try:
        overrides = to_path_overrides(set_param)
        if others := sorted(set(overrides) - {PARAMS.name}):
            raise UserError(f"-S {others[0]}: only keys of params.yaml can be set")
        grid = [combination[PARAMS.name] for combination in get_hydra_sweeps(overrides)]
        for combination in grid:
            content = _apply(combination)
            name = make_name(combination, content)
            params = {key[1:]: value for key, value in flat(content).items()}
            threads = params.get("train.threads")
            found[name] = Experiment(name, combination, params, threads if isinstance(threads, int) else 1)
            for problem in find_contradictions(content)[0]:
                problems.setdefault(str(problem), []).append(name)
    except (DvcException, HydraException) as error:
        raise UserError(f"-S: {explain_override(error)}") from None
    if problems:
        more = {problem: f" and {len(names) - 1} more" if names[1:] else "" for problem, names in problems.items()}
        errors = [UserError(f"{names[0]}{more[problem]}: {problem}") for problem, names in problems.items()]
        raise InvalidParamsError(errors)
    return list(found.values())


def explain_override(error: DvcException | HydraException) -> str:
    """Return one line about an override that DVC refuses: without what Hydra repeats, and its manual."""
    parts = [" ".join(str(part).partition("See https:")[0].split()) for part in (error, error.__cause__) if part]
    return ": ".join(part for part in parts if not any(part in other for other in parts if other != part))


def _apply(overrides: list[str]) -> dict[str, Any]:
    """Return the content of params.yaml with other values."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(shutil.copy(PARAMS, folder))
        apply_overrides(file, overrides)
        return YAML(typ="safe").load(file.read_text(encoding="utf-8"))


def make_name(overrides: list[str], content: dict[str, Any]) -> str:
    """Return the name of an experiment. It depends on keys and values, but not on their order and spelling.

    Args:
        overrides: of params.yaml, one value each.
        content: of params.yaml, after the overrides.
    """
    keys = sorted({override.key_or_group for override in to_hydra_overrides(overrides)})
    values = {key: _find(content, key) for key in keys}
    texts = (f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in values.items())
    name = ",".join(texts)
    # What git and file systems allow in a name, and shells read as text.
    plain = re.sub(r"[^A-Za-z0-9_.,=+-]+|\.(?=\.)|\.$|\.lock$", "-", name)[:MAX_NAME]
    return plain if plain == name else f"{plain}-{sha256(name.encode()).hexdigest()[:6]}"


def _find(content: Any, key: str) -> Any:
    """Return the value of a dotted key, or None."""
    return reduce(lambda node, part: node.get(part) if isinstance(node, dict) else None, key.split("."), content)


def find_done(planned: list[Experiment], finished: dict[str, str]) -> dict[str, str]:
    """Return the experiments that have been run before: name -> name of the finished one with the same params.

    Args:
        finished: name -> git commit.

    Raises:
        UserError: a finished experiment has the name, but other params.
    """
    params = {name: read_params(commit) for name, commit in finished.items()}
    done: dict[str, str] = {}
    for experiment in planned:
        same = [name for name in params if params[name] == experiment.params]
        if same:
            done[experiment.name] = experiment.name if experiment.name in same else same[0]
        elif experiment.name in params:
            raise UserError(f"the experiment {experiment.name} has other params; dvc exp remove {experiment.name}")
    return done


def check_workspace() -> None:
    """Check that the last commit has all that the experiments need.

    Raises:
        UserError: no commit, or changes that are not committed.
    """
    changes = git("status", "--porcelain", "--", ".")
    if changes is None or git("rev-parse", "HEAD") is None:
        raise UserError("no git commit here; run from the top folder of the project, and commit it")
    files: dict[bool, list[str]] = {True: [], False: []}
    for line in changes.splitlines():
        files[line.startswith("??")].append(line[3:])
    if files[False]:
        listed = ", ".join(files[False][:5]) + (", ..." if files[False][5:] else "")
        raise UserError(f"not committed, so the experiments would not have it: {listed}; commit or stash it")
    if files[True]:
        print(f"warning: not in git, so the experiments do not have it: {', '.join(files[True][:5])}")


def find_source(repo: Repo, git_remote: str | None, dvc_remote: str | None, token: str) -> Source:
    """Return where the nodes get the project.

    Args:
        git_remote: name of a git remote; None for this repo, in a shared file system.
        dvc_remote: name of a DVC remote; None for the default one, if there is one.
        token: name of a file in DVC's cache.

    Raises:
        UserError: no such remote, or it does not have the commit.
    """
    commit = (git("rev-parse", "HEAD") or "").strip()
    url = (git("rev-parse", "--show-toplevel") or "").rstrip("\n")
    if git_remote:
        url = (git("remote", "get-url", git_remote) or "").strip()
        if not url:
            raise UserError(f"there is no git remote {git_remote}; see git remote --verbose")
        if git("fetch", "--quiet", git_remote) is None:
            raise UserError(f"the git remote {git_remote} cannot be read; see git fetch {git_remote}")
        if not git("for-each-ref", f"--contains={commit}", f"refs/remotes/{git_remote}"):
            raise UserError(f"the git remote {git_remote} does not have the last commit; git push {git_remote}")
    settings = repo.config.read("repo")  # the nodes get only what is in git
    remote = dvc_remote or settings.get("core", {}).get("remote")
    if remote and remote not in settings.get("remote", {}):
        raise UserError(f"no remote {remote}; dvc remote add {remote} URL, and commit the file", file=".dvc/config")
    author = ((git("config", "user.name") or "").strip(), (git("config", "user.email") or "").strip())
    prefix = (git("rev-parse", "--show-prefix") or "").strip()
    return Source(url, commit, prefix, repo.cache.local_cache_dir, token, remote, author)


def exp_refs(commit: str) -> str:
    """Return the folder of git's references in which DVC has the experiments on a commit."""
    return f"refs/exps/{commit[:2]}/{commit[2:]}"


def fetch_experiments(git_remote: str, commit: str) -> None:
    """Fetch the experiments on a commit, without data."""
    git("fetch", "--quiet", git_remote, f"{exp_refs(commit)}/*:{exp_refs(commit)}/*")
