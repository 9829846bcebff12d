"""Gather the folds of a k-fold run: the accuracy of each, their mean and spread, and an interval over all clips.

The folds are DVC experiments that differ in split.fold alone, for instance those of

    dvc exp run --queue -S split.folds=5 -S 'split.fold=range(5)' && dvc queue start

Spread is the standard deviation over folds. The interval is that of all clips, each tested once, by the model that was
trained without its fold; it does not know how another seed would turn out.

Run     python -m tools.gather [experiment ...]; without names, all experiments of HEAD that have folds
"""

import argparse
from typing import Any

import pandas as pd
import yaml
from sklearn.metrics import f1_score

from stages.common.intervals import accuracy_interval
from stages.common.stage import StageError, run
from tools.revisions import experiments, groups_of, read_predictions, show


def flat(node: Any, prefix: str = "") -> dict[str, Any]:
    """Nested params as dotted keys."""
    if not isinstance(node, dict):
        return {prefix: node}
    return {key: value for name, inner in node.items() for key, value in flat(inner, f"{prefix}.{name}").items()}


def read_params(name: str) -> dict[str, Any]:
    """The params of an experiment, by dotted key."""
    return {key[1:]: value for key, value in flat(yaml.safe_load(show(name, "params.yaml"))).items()}


def order(params: dict[str, dict[str, Any]]) -> list[str]:
    """The experiments' names in the order of their folds.

    Args:
        params: of each experiment, by its name and dotted key.

    Raises:
        StageError: a fold is missing or doubled, or params other than split.fold differ.
    """
    first, *others = params
    for name in others:
        keys = sorted({*params[first], *params[name]} - {"split.fold"})
        if unlike := [key for key in keys if params[first].get(key) != params[name].get(key)]:
            raise StageError(f"{first} and {name} differ in {', '.join(unlike)}; name the experiments of one run")
    folds: dict[int, str] = {}
    for name, values in params.items():
        fold = values.get("split.fold", 0)
        if fold in folds:
            raise StageError(f"fold {fold} is doubled, by {folds[fold]} and {name}; name the experiments of one run")
        folds[fold] = name
    wanted = range(params[first]["split.folds"])
    if missing := [str(fold) for fold in wanted if fold not in folds]:
        raise StageError(
            f"fold {', '.join(missing)} of {len(wanted)} is missing; dvc exp run -S split.folds={len(wanted)} "
            f"-S split.fold={missing[0]}, or see dvc queue status"
        )
    return [folds[fold] for fold in wanted]


def pool(predictions: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """The predictions of all folds as one table.

    Raises:
        StageError: a clip was tested in two folds.
    """
    table = pd.concat(predictions.values())
    if not table.index.is_unique:
        clip = table.index[table.index.duplicated()][0]
        first, second, *_ = (name for name, part in predictions.items() if clip in part.index)
        raise StageError(f"clip {clip} was tested by {first} and by {second}: these are not folds of one split")
    return table


def measure(predictions: pd.DataFrame) -> dict[str, float]:
    """Number of clips, accuracy and macro-F1."""
    actual, predicted = predictions["label"], predictions["prediction"]
    f1 = f1_score(actual, predicted, labels=sorted(set(actual)), average="macro", zero_division=0)
    return {"clips": len(actual), "accuracy": (actual == predicted).mean(), "macro-F1": f1}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tools.gather", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("experiments", nargs="*", help="names or git revisions; all of HEAD's with folds if left out")
    named = parser.parse_args().experiments
    params = {name: read_params(name) for name in named or experiments()}
    if whole := [name for name in params if params[name].get("split.folds") is None]:
        if named:
            raise StageError(f"{whole[0]} has no split.folds in its params.yaml; name the folds of a k-fold run")
        params = {name: params[name] for name in params if name not in whole}
    if not params:
        raise StageError("HEAD has no finished experiment with split.folds; see dvc queue status, or name some")
    predictions = {name: read_predictions(name) for name in order(params)}
    table = pd.DataFrame([{"experiment": name} | measure(part) for name, part in predictions.items()])
    print(table.rename_axis("fold").reset_index().to_string(index=False, float_format="{:.3f}".format))
    for key in ("accuracy", "macro-F1"):
        print(f"{key}: mean {table[key].mean():.3f}, spread {table[key].std():.3f} over {len(table)} folds")
    pooled = pool(predictions)
    groups = groups_of(next(iter(predictions)), pooled.index)
    low, high = accuracy_interval((pooled["label"] == pooled["prediction"]).to_numpy(), groups)
    over = "; data/splits.csv does not tell their groups" if groups is None else f" in {len(set(groups))} groups"
    print(f"95% interval of the accuracy: {low:.3f} to {high:.3f} ({len(pooled)} clips{over})")


if __name__ == "__main__":
    run(main)
