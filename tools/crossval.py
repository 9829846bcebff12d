"""Summarize the folds of a cross-validation: accuracy of each, mean, standard deviation, interval over all clips.

The folds are DVC experiments that differ only in split.fold, for example those of

    dvc exp run --queue -S split.folds=5 -S 'split.fold=range(5)' && dvc queue start

The interval is over all clips. Each was classified once, by the model that was trained without its fold. It does not
include the variance between seeds.

Run     python -m tools.crossval [experiment ...]; without names, all experiments of HEAD that have folds
"""

from typing import Any

import pandas as pd
from ruamel.yaml import YAML

from stages.common.errors import UserError
from stages.common.stage import command_parser, run_command
from stages.evaluate.intervals import accuracy_interval
from stages.evaluate.metrics import mean_f1
from tools.revisions import experiments, find_file, groups_of, read_predictions, show


def flat(node: Any, prefix: str = "") -> dict[str, Any]:
    """Flatten nested params to dotted keys."""
    if not isinstance(node, dict):
        return {prefix: node}
    return {key: value for name, inner in node.items() for key, value in flat(inner, f"{prefix}.{name}").items()}


def read_params(name: str) -> dict[str, Any]:
    """Read the params of an experiment, by dotted key."""
    if find_file(name):
        raise UserError(f"{name} does not name the params of a fold; name experiments or git revisions")
    return {key[1:]: value for key, value in flat(YAML(typ="safe").load(show(name, "params.yaml"))).items()}


def check_folds(params: dict[str, dict[str, Any]]) -> list[str]:
    """Return the names of the experiments in the order of their folds.

    Args:
        params: of each experiment, by its name and dotted key.

    Raises:
        UserError: a fold is missing or occurs twice, or params other than split.fold differ.
    """
    first, *others = params
    for name in others:
        keys = sorted({*params[first], *params[name]} - {"split.fold"})
        if different := [key for key in keys if params[first].get(key) != params[name].get(key)]:
            raise UserError(f"{first} and {name} differ in {', '.join(different)}; name the experiments of one run")
    folds: dict[int, str] = {}
    for name, values in params.items():
        fold = values.get("split.fold", 0)
        if fold in folds:
            raise UserError(f"fold {fold} occurs twice: {folds[fold]} and {name}; name the experiments of one run")
        folds[fold] = name
    wanted = range(params[first]["split.folds"])
    if missing := [str(fold) for fold in wanted if fold not in folds]:
        raise UserError(
            f"fold {', '.join(missing)} of {len(wanted)} is missing; dvc exp run -S split.folds={len(wanted)} "
            f"-S split.fold={missing[0]}, or see dvc queue status"
        )
    return [folds[fold] for fold in wanted]


def find_folds(named: list[str]) -> list[str]:
    """Return the experiments of a cross-validation, in the order of their folds.

    Args:
        named: experiments or git revisions; if there are none, all of HEAD's with folds.

    Raises:
        UserError: there are none, or they are not the folds of one run.
    """
    params = {name: read_params(name) for name in named or experiments()}
    if without_folds := [name for name in params if params[name].get("split.folds") is None]:
        if named:
            raise UserError(f"{without_folds[0]} has no split.folds in its params.yaml; name the folds of a k-fold run")
        params = {name: params[name] for name in params if name not in without_folds}
    if not params:
        raise UserError("HEAD has no finished experiment with split.folds; see dvc queue status, or name some")
    return check_folds(params)


def pool_predictions(predictions: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Join the predictions of all folds in one table.

    Raises:
        UserError: a clip is in the test split of two folds.
    """
    table = pd.concat(predictions.values())
    if not table.index.is_unique:
        clip = table.index[table.index.duplicated()][0]
        first, second, *_ = (name for name, part in predictions.items() if clip in part.index)
        raise UserError(f"clip {clip} is a test clip of {first} and of {second}; name the folds of one split")
    return table


def measure_fold(predictions: pd.DataFrame) -> dict[str, float]:
    """Compute number of clips, accuracy and macro-F1."""
    actual, predicted = predictions["label"].to_numpy(), predictions["prediction"].to_numpy()
    return {"clips": len(actual), "accuracy": (actual == predicted).mean(), "macro-F1": mean_f1(actual, predicted)}


def main() -> None:
    """Print the result."""
    parser = command_parser("tools.crossval", __doc__)
    parser.add_argument("experiments", nargs="*", help="names or git revisions; all of HEAD's with folds if left out")
    predictions = {name: read_predictions(name) for name in find_folds(parser.parse_args().experiments)}
    table = pd.DataFrame([{"experiment": name} | measure_fold(part) for name, part in predictions.items()])
    print(table.rename_axis("fold").reset_index().to_string(index=False, float_format="{:.3f}".format))
    for key in ("accuracy", "macro-F1"):
        print(f"{key}: mean {table[key].mean():.3f}, standard deviation {table[key].std():.3f} over {len(table)} folds")
    pooled = pool_predictions(predictions)
    groups = groups_of(next(iter(predictions)), pooled.index)
    low, high = accuracy_interval((pooled["label"] == pooled["prediction"]).to_numpy(), groups)
    over = "; groups unknown" if groups is None else f" in {len(set(groups))} groups"
    print(f"95% interval of the accuracy: {low:.3f} to {high:.3f} ({len(pooled)} clips{over})")


if __name__ == "__main__":
    run_command(main)
