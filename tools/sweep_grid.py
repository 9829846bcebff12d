"""List the experiments of a sweep: DVC's grid, checked params, and names."""

import json
import re
import shutil
import tempfile
from functools import reduce
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from dvc.exceptions import DvcException
from dvc.utils.cli_parse import to_path_overrides
from dvc.utils.hydra import apply_overrides, get_hydra_sweeps, to_hydra_overrides
from hydra.errors import HydraException
from ruamel.yaml import YAML

from stages.common.errors import InvalidParamsError, UserError
from stages.common.params import read_file
from stages.common.params_check import find_contradictions
from stages.common.paths import PARAMS
from tools.crossval import flat, read_params

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
        reasons = [" ".join(str(part).split()) for part in (error, error.__cause__) if part]
        raise UserError(f"-S: {': '.join(reasons)}") from None
    if problems:
        more = {problem: f" and {len(names) - 1} more" if names[1:] else "" for problem, names in problems.items()}
        errors = [UserError(f"{names[0]}{more[problem]}: {problem}") for problem, names in problems.items()]
        raise InvalidParamsError(errors)
    return list(found.values())


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
