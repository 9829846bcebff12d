from collections.abc import Callable
from pathlib import Path

import pytest
from fakes.experiments import commit_run, start_dvc, write_splits
from helpers import dvc, error_of, git

from tools import compare, crossval

RunTool = Callable[..., str]


def test_summary_of_folds(project: Path, run_tool: RunTool) -> None:
    for fold, correct in enumerate(["1110", "1100", "1111"]):
        commit_run(project, f"fold-{fold}", correct, start=4 * fold, folds=3, fold=fold)
    output = run_tool(crossval, "fold-2", "fold-0", "fold-1")
    lines = [line.split() for line in output.splitlines()]
    assert lines[0] == ["fold", "experiment", "clips", "accuracy", "macro-F1"]
    assert [line[:4] for line in lines[1:4]] == [
        ["0", "fold-0", "4", "0.750"],
        ["1", "fold-1", "4", "0.500"],
        ["2", "fold-2", "4", "1.000"],
    ]
    assert "accuracy: mean 0.750, standard deviation 0.250 over 3 folds" in output
    # Wilson's interval of 9 in 12.
    assert "0.468 to 0.911 (12 clips; groups unknown)" in output


def test_groups_are_counted(project: Path, run_tool: RunTool) -> None:
    write_splits(project, 12, size=2)
    for fold, correct in enumerate(["1110", "1100", "1111"]):
        commit_run(project, f"grouped-{fold}", correct, start=4 * fold, folds=3, fold=fold)
    assert "(12 clips in 6 groups)" in run_tool(crossval, "grouped-0", "grouped-1", "grouped-2")


@pytest.mark.parametrize(
    ("last", "names", "expected"),
    [
        ({"folds": 3, "fold": 2}, ["f0", "f1"], "fold 2 of 3 is missing"),
        ({"folds": 3, "fold": 1}, ["f0", "f1", "f2"], "fold 1 occurs twice: f1 and f2"),
        ({"folds": 3, "fold": 2, "seed": 7}, ["f0", "f1", "f2"], "f0 and f2 differ in split.seed"),
        ({"folds": None, "fold": 0}, ["f2", "f0", "f1"], "f2 has no split.folds"),
        ({"folds": 3, "fold": 2}, ["f0", "f1", "f2"], "clip c4 is a test clip of f1 and of f2"),
    ],
)
def test_experiments_of_several_runs(
    project: Path, run_tool: RunTool, last: dict[str, int | None], names: list[str], expected: str
) -> None:
    commit_run(project, "f0", "1110", start=0, folds=3, fold=0)
    commit_run(project, "f1", "1110", start=4, folds=3, fold=1)
    commit_run(project, "f2", "1110", start=4, **last)
    assert expected in error_of(lambda: run_tool(crossval, *names))


@pytest.mark.parametrize("name", ["workspace", "metrics/predictions.csv"])
def test_predictions_without_params(project: Path, run_tool: RunTool, name: str) -> None:
    commit_run(project, "f0", "1110", folds=2, fold=0)
    assert f"{name} does not name the params of a fold" in error_of(lambda: run_tool(crossval, "f0", name))


@pytest.mark.rare
def test_experiments_of_dvc(project: Path, run_tool: RunTool) -> None:
    command = (
        "python -c \"import yaml; f = yaml.safe_load(open('params.yaml'))['split']['fold'];"
        " open('metrics/predictions.csv', 'w').write(f'clip,label,prediction\\nc{f},x,x\\n')\""
    )
    run = {"cmd": command, "params": ["split"], "outs": [{"metrics/predictions.csv": {"cache": False}}]}
    start_dvc(project, run, "split: {folds: null, fold: 0}\n")
    assert "HEAD has no finished experiment with split.folds" in error_of(lambda: run_tool(crossval))
    dvc(project, "exp", "run", "--name", "without-folds", "-S", "split.fold=7")
    for fold in range(2):
        dvc(project, "exp", "run", "--name", f"k{fold}", "-S", "split.folds=2", "-S", f"split.fold={fold}")
    output = run_tool(crossval)
    assert "k0" in output
    assert "mean 1.000, standard deviation 0.000 over 2 folds" in output
    assert "A: k1, accuracy 1.000" in run_tool(compare, "k1", "k1")
    git(project, "commit", "-q", "--allow-empty", "-m", "Continue")
    assert run_tool(crossval, "k0", "k1") == output
