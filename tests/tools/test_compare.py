"""Comparing and gathering experiments, on predictions written by hand."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from conftest import dvc, error_of, git
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from tools import compare, gather
from tools.compare import mcnemar, verdict

Use = Callable[..., str]


def predictions(right: str, start: int = 0, label: str = "x") -> str:
    """A predictions.csv of clips numbered from start: 1 for one that is named rightly, 0 for one that is not."""
    rows = [f"c{start + n},{label},{label if sign == '1' else 'z'}" for n, sign in enumerate(right)]
    return "\n".join(["clip,label,prediction", *rows, ""])


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project under git; the test runs inside it."""
    monkeypatch.chdir(tmp_path)
    git(tmp_path, "init", "-q", "-b", "main")
    for folder in ("metrics", "data"):
        (tmp_path / folder).mkdir()
    return tmp_path


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Use:
    """Runs a tool with arguments; what it prints."""

    def call(tool: Any, *arguments: str) -> str:
        monkeypatch.setattr("sys.argv", ["tool", *arguments])
        tool.main()
        return capsys.readouterr().out

    return call


def write_splits(folder: Path, clips: int, size: int) -> None:
    """data/splits.csv of so many clips, so many of them to a group."""
    rows = [f"c{n},x,test,{n // size}" for n in range(clips)]
    (folder / "data/splits.csv").write_text("\n".join(["clip,label,split,group", *rows, ""]))


def commit(folder: Path, name: str, right: str, start: int = 0, **split: int | None) -> None:
    """A git tag with these predictions and params.yaml."""
    (folder / "metrics/predictions.csv").write_text(predictions(right, start))
    (folder / "params.yaml").write_text(yaml.safe_dump({"split": split, "train": {"epochs": 3}}))
    git(folder, "add", ".")
    git(folder, "commit", "-q", "--allow-empty", "-m", name)
    git(folder, "tag", name)


def rights(both: int, gained: int, lost: int, neither: int = 0) -> tuple[str, str]:
    return "1" * both + "0" * gained + "1" * lost + "0" * neither, "1" * (both + gained) + "0" * (lost + neither)


def arrays(*counts: int) -> tuple[np.ndarray, np.ndarray]:
    first, second = (np.array(list(text)) == "1" for text in rights(*counts))
    return first, second


def test_mcnemar_against_numbers_worked_out_by_hand() -> None:
    assert mcnemar(*arrays(30, 8, 2)) == pytest.approx(2 * (1 + 10 + 45) / 2**10)
    assert mcnemar(*arrays(5, 0, 6, 9)) == pytest.approx(2 / 2**6)
    assert mcnemar(*arrays(5, 3, 3)) == 1
    assert mcnemar(*arrays(5, 0, 0)) == 1


def test_the_sentence() -> None:
    assert verdict(*arrays(200, 12, 2, 26), None) == (
        "B is better than A by 4.2 points (95% 1.3 to 7.8; McNemar p = 0.013; 240 clips)"
    )
    assert verdict(*arrays(200, 2, 12, 26), None).startswith("B is worse than A by 4.2 points (95% 1.3 to 7.8; ")
    assert verdict(*arrays(30, 5, 5), None).startswith("A and B are not to be told apart: B less A is +0.0 points (95%")


def test_groups_that_err_together_tell_less() -> None:
    told = verdict(*arrays(200, 12, 2, 26), np.repeat(np.arange(24), 10))
    assert told.startswith("A and B are not to be told apart")
    assert "240 clips in 24 groups, which McNemar's test does not know" in told


@settings(deadline=None)
@given(st.tuples(*[st.integers(0, 30)] * 4).filter(any))
def test_the_verdict_and_mcnemar_do_not_contradict_each_other(counts: tuple[int, int, int, int]) -> None:
    told = verdict(*arrays(*counts), None)
    p = binomtest(counts[1], counts[1] + counts[2]).pvalue if counts[1] + counts[2] else 1
    if p >= 0.05:
        assert "not to be told apart" in told
    low, high = (float(word) for word in told.split("95% ")[1].split(";")[0].split(" to "))
    assert low <= 0 <= high if "not to be" in told else 0 <= low < high
    if "better" in told:
        assert counts[1] > counts[2]
    if "worse" in told:
        assert counts[1] < counts[2]


def test_revisions_files_and_the_workspace_are_compared(project: Path, use: Use) -> None:
    first, second = rights(200, 12, 2, 26)
    write_splits(project, 240, size=1)
    commit(project, "before", first)
    commit(project, "after", second)
    told = use(compare, "before", "after")
    assert told.splitlines()[:2] == ["A: before, accuracy 0.842", "B: after, accuracy 0.883"]
    assert "warning" not in told
    assert use(compare, "before").splitlines()[-1] == told.splitlines()[-1]
    (project / "mine.csv").write_text(predictions(first))
    assert use(compare, "mine.csv", "HEAD").splitlines()[-1] == told.splitlines()[-1]
    write_splits(project, 240, size=10)
    assert "in 24 groups" in use(compare, "before")
    assert "groups" not in use(compare, "before", "after")
    commit(project, "grouped", second)
    assert "in 24 groups" in use(compare, "before", "grouped")


def test_clips_that_only_one_has_are_told_and_left_out(project: Path, use: Use) -> None:
    (project / "a.csv").write_text(predictions("1" * 20))
    (project / "b.csv").write_text(predictions("0" * 20, start=1))
    told = use(compare, "a.csv", "b.csv")
    assert "warning: no data/splits.csv of B is at hand" in told
    assert "warning: 1 clips only A has, 1 only B; they are left out" in told
    assert "different splits" not in told
    assert "worse than A by 100.0 points" in told
    assert "19 clips" in told
    (project / "b.csv").write_text(predictions("0" * 20, start=10))
    assert "tested on different splits" in use(compare, "a.csv", "b.csv")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (predictions("11", start=50), "A and B share no clip"),
        (predictions("11", label="y"), "clip c0 is x in A and y in B (2 such clips)"),
        (predictions("11") + "c0,x,x\n", "b.csv: clip c0 is listed twice"),
        ("clip,label\nc0,x\n", "b.csv: its predictions need the columns clip, label and prediction"),
        ("", "b.csv: its predictions need the columns"),
        ("clip,label,prediction\n", "b.csv: it has no clips"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_one_line(project: Path, use: Use, text: str, told: str) -> None:
    (project / "a.csv").write_text(predictions("1010"))
    (project / "b.csv").write_text(text)
    assert told in error_of(lambda: use(compare, "a.csv", "b.csv"))


def test_what_is_not_there_is_named(project: Path, use: Use) -> None:
    (project / "a.csv").write_text(predictions("1010"))
    git(project, "add", "a.csv")
    git(project, "commit", "-q", "-m", "Without a run")
    assert "HEAD does not have metrics/predictions.csv" in error_of(lambda: use(compare, "HEAD", "a.csv"))
    assert "nothing is no file, git revision or experiment" in error_of(lambda: use(compare, "a.csv", "nothing"))


def test_folds_are_gathered(project: Path, use: Use) -> None:
    for fold, right in enumerate(["1110", "1100", "1111"]):
        commit(project, f"fold-{fold}", right, start=4 * fold, folds=3, fold=fold)
    told = use(gather, "fold-2", "fold-0", "fold-1")
    lines = [line.split() for line in told.splitlines()]
    assert lines[0] == ["fold", "experiment", "clips", "accuracy", "macro-F1"]
    assert [line[:4] for line in lines[1:4]] == [
        ["0", "fold-0", "4", "0.750"],
        ["1", "fold-1", "4", "0.500"],
        ["2", "fold-2", "4", "1.000"],
    ]
    assert "accuracy: mean 0.750, spread 0.250 over 3 folds" in told
    # Wilson's, of 9 in 12.
    assert "0.468 to 0.911 (12 clips; data/splits.csv does not tell their groups)" in told
    write_splits(project, 12, size=2)
    for fold, right in enumerate(["1110", "1100", "1111"]):
        commit(project, f"grouped-{fold}", right, start=4 * fold, folds=3, fold=fold)
    assert "(12 clips in 6 groups)" in use(gather, "grouped-0", "grouped-1", "grouped-2")


@pytest.mark.parametrize(
    ("last", "names", "told"),
    [
        ({"folds": 3, "fold": 2}, ["f0", "f1"], "fold 2 of 3 is missing"),
        ({"folds": 3, "fold": 1}, ["f0", "f1", "f2"], "fold 1 is doubled, by f1 and f2"),
        ({"folds": 3, "fold": 2, "seed": 7}, ["f0", "f1", "f2"], "f0 and f2 differ in split.seed"),
        ({"folds": None, "fold": 0}, ["f2", "f0", "f1"], "f2 has no split.folds"),
        ({"folds": 3, "fold": 2}, ["f0", "f1", "f2"], "clip c4 was tested by f1 and by f2"),
    ],
)
def test_what_is_not_one_run_is_refused_by_name(
    project: Path, use: Use, last: dict[str, int | None], names: list[str], told: str
) -> None:
    commit(project, "f0", "1110", start=0, folds=3, fold=0)
    commit(project, "f1", "1110", start=4, folds=3, fold=1)
    commit(project, "f2", "1110", start=4, **last)
    assert told in error_of(lambda: use(gather, *names))


def test_real_experiments_are_found_by_name_and_by_themselves(project: Path, use: Use) -> None:
    stage = (
        "python -c \"import yaml; f = yaml.safe_load(open('params.yaml'))['split']['fold'];"
        " open('metrics/predictions.csv', 'w').write(f'clip,label,prediction\\nc{f},x,x\\n')\""
    )
    run = {"cmd": stage, "params": ["split"], "outs": [{"metrics/predictions.csv": {"cache": False}}]}
    (project / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"run": run}}))
    (project / "params.yaml").write_text("split: {folds: null, fold: 0}\n")
    dvc(project, "init", "-q")
    dvc(project, "config", "core.analytics", "false")
    git(project, "add", ".")
    git(project, "commit", "-q", "-m", "Start")
    assert "HEAD has no finished experiment with split.folds" in error_of(lambda: use(gather))
    dvc(project, "exp", "run", "--name", "whole", "-S", "split.fold=7")
    for fold in range(2):
        dvc(project, "exp", "run", "--name", f"k{fold}", "-S", "split.folds=2", "-S", f"split.fold={fold}")
    told = use(gather)
    assert "k0" in told
    assert "mean 1.000, spread 0.000 over 2 folds" in told
    assert "A: k1, accuracy 1.000" in use(compare, "k1", "k1")
    git(project, "commit", "-q", "--allow-empty", "-m", "Go on")
    assert use(gather, "k0", "k1") == told
