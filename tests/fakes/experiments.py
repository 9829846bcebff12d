"""Results of runs, written by hand: predictions, splits, and git tags that hold them."""

from pathlib import Path
from typing import Any

import yaml
from helpers import dvc, git


def predictions(correct: str, start: int = 0, label: str = "x") -> str:
    """Return a predictions.csv. correct: 1 for each correctly classified clip, 0 for any other, e.g. "1101"."""
    rows = [f"c{start + n},{label},{label if digit == '1' else 'z'}" for n, digit in enumerate(correct)]
    return "\n".join(["clip,label,prediction", *rows, ""])


def write_splits(folder: Path, clips: int, size: int) -> None:
    """Write data/splits.csv. clips: their number. size: number of clips in a group."""
    rows = [f"c{n},x,test,{n // size}" for n in range(clips)]
    (folder / "data/splits.csv").write_text("\n".join(["clip,label,split,group", *rows, ""]))


def commit_run(folder: Path, name: str, correct: str, start: int = 0, **split: int | None) -> None:
    """Commit predictions and a params.yaml with this section `split`, and tag the commit."""
    (folder / "metrics/predictions.csv").write_text(predictions(correct, start))
    (folder / "params.yaml").write_text(yaml.safe_dump({"split": split, "train": {"epochs": 3}}))
    git(folder, "add", ".")
    git(folder, "commit", "-q", "--allow-empty", "-m", name)
    git(folder, "tag", name)


def start_dvc(folder: Path, run: dict[str, Any], params: str) -> None:
    """Commit a project of DVC with one stage. run: its entry in dvc.yaml. params: the content of params.yaml."""
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"run": run}}))
    (folder / "params.yaml").write_text(params)
    dvc(folder, "init", "-q")
    dvc(folder, "config", "core.analytics", "false")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "Start")
