"""Read the space of a search from the command line, and check it."""

import difflib
import math
import re
from typing import Any

from dvc.exceptions import DvcException
from dvc.utils.cli_parse import to_path_overrides
from dvc.utils.hydra import get_hydra_sweeps
from hydra.errors import HydraException
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from stages.common.errors import UserError
from stages.common.params import read_file
from stages.common.paths import PARAMS
from tools.sweep_plan import explain_override, list_experiments

RANGE = re.compile(r"(log|uniform|int)\((.*)\)")
EXAMPLES = "log(1e-5,1e-3), uniform(0,0.2) or int(5,15)"
SEARCHED = ("train.", "resample_encode.", "download.model.")
MAX_CORNERS = 64  # that are checked together
DIGITS = 4

Space = dict[str, BaseDistribution]


def parse_space(set_param: list[str]) -> Space:
    """Return what each key is drawn from.

    Args:
        set_param: such as `train.epochs=int(5,15)` or, with the values of DVC's grid, `train.freeze=none,base`.

    Raises:
        UserError: a range or a list is not valid, or a key is given twice or is not one to search.
    """
    space: Space = {}
    for text in set_param:
        key, equals, values = (part.strip() for part in text.partition("="))
        if not equals or not key or not values:
            raise UserError(f"-S {text}: must be KEY=VALUES, with values such as {EXAMPLES}, or a,b")
        if not key.startswith(SEARCHED):
            known = ", ".join(name.rstrip(".") for name in SEARCHED)
            raise UserError(f"-S {key}: the keys to search are in {known}; all trials must have the same clips")
        if key in space:
            raise UserError(f"-S {key}: given twice; keep one")
        found = RANGE.fullmatch(values)
        space[key] = _parse_range(text, *found.groups()) if found else _parse_choices(text)
    return space


def _parse_range(text: str, kind: str, ends: str) -> BaseDistribution:
    try:
        low, high = (int(end) if kind == "int" else float(end) for end in ends.split(","))
    except ValueError:
        numbers = "two integers" if kind == "int" else "two numbers"
        raise UserError(f"-S {text}: {kind} needs {numbers}, such as {EXAMPLES}") from None
    if not (math.isfinite(low) and math.isfinite(high)):
        raise UserError(f"-S {text}: the ends must be finite")
    if low >= high:
        raise UserError(f"-S {text}: the lower end comes first, and the ends must differ")
    if kind == "log" and low <= 0:
        raise UserError(f"-S {text}: the ends of log must be above 0; use uniform")
    if kind == "int":
        return IntDistribution(int(low), int(high))
    return FloatDistribution(low, high, log=kind == "log")


def _parse_choices(text: str) -> BaseDistribution:
    try:
        overrides = to_path_overrides([text])
        values = [
            override.partition("=")[2] for [override] in (row[PARAMS.name] for row in get_hydra_sweeps(overrides))
        ]
    except (DvcException, HydraException) as error:
        raise UserError(f"-S {text}: {explain_override(error)}; ranges are {EXAMPLES}") from None
    return CategoricalDistribution(list(dict.fromkeys(values)))


def to_override(key: str, value: Any) -> str:
    """Return the override of a drawn value, for `dvc exp run -S`. Numbers are rounded to four digits."""
    return f"{key}={float(f'{value:.{DIGITS}g}')!r}" if isinstance(value, float) else f"{key}={value}"


def _require_key(content: Any, key: str) -> None:
    """Raise UserError if params.yaml does not have a dotted key. content: of the file."""
    for part in key.split("."):
        if not isinstance(content, dict):  # DVC knows what it can set in a list
            return
        if part not in content:
            near = difflib.get_close_matches(part, map(str, content), n=1)
            raise UserError(
                f"-S {key}: not in params.yaml" + (f", did you mean {near[0]}?" if near else "; add it there")
            )
        content = content[part]


def check_space(space: Space, fixed: list[str]) -> None:
    """Check the params at the corners of the space. fixed: overrides that all trials have.

    Raises:
        InvalidParamsError: with all problems.
        UserError: a key is unknown.
    """
    content = read_file()
    for key in space:
        _require_key(content, key)
    lists = []
    number = 1
    for key, distribution in space.items():
        if isinstance(distribution, CategoricalDistribution):
            ends = [f"{key}={value}" for value in distribution.choices]
        else:
            assert isinstance(distribution, FloatDistribution | IntDistribution)
            ends = [to_override(key, end) for end in (distribution.low, distribution.high)]
        number *= len(ends)
        lists.append(f"{key}=" + ",".join(end.partition("=")[2] for end in ends))
    if number <= MAX_CORNERS:
        list_experiments([*lists, *fixed])
        return
    for one in lists:
        list_experiments([one, *fixed])
