from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fakes.experiments import commit_run, predictions, write_splits
from helpers import error_of
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from tools import compare
from tools.compare import mcnemar, verdict

RunTool = Callable[..., str]


def outcomes(both: int, gained: int, lost: int, neither: int = 0) -> tuple[str, str]:
    """Return which clips A and B classify correctly: 1 or 0 for each clip."""
    return "1" * both + "0" * gained + "1" * lost + "0" * neither, "1" * (both + gained) + "0" * (lost + neither)


def arrays(*counts: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the same as bool (clips,)."""
    first, second = (np.array(list(text)) == "1" for text in outcomes(*counts))
    return first, second


def test_mcnemar_against_manual_computation() -> None:
    assert mcnemar(*arrays(30, 8, 2)) == pytest.approx(2 * (1 + 10 + 45) / 2**10)
    assert mcnemar(*arrays(5, 0, 6, 9)) == pytest.approx(2 / 2**6)
    assert mcnemar(*arrays(5, 3, 3)) == 1
    assert mcnemar(*arrays(5, 0, 0)) == 1


def test_verdict() -> None:
    assert verdict(*arrays(200, 12, 2, 26), None) == (
        "B is better than A by 4.2 points (95% 1.3 to 7.8; McNemar p = 0.013; 240 clips)"
    )
    assert verdict(*arrays(200, 2, 12, 26), None).startswith("B is worse than A by 4.2 points (95% 1.3 to 7.8; ")
    assert verdict(*arrays(30, 5, 5), None).startswith("no significant difference: B - A = +0.0 points (95% ")


def test_groups_widen_interval() -> None:
    sentence = verdict(*arrays(200, 12, 2, 26), np.repeat(np.arange(24), 10))
    assert sentence.startswith("no significant difference")
    assert "240 clips in 24 groups (McNemar's test ignores groups)" in sentence


@pytest.mark.slow
@settings(deadline=None)
@given(st.tuples(*[st.integers(0, 30)] * 4).filter(any))
def test_verdict_agrees_with_mcnemar(counts: tuple[int, int, int, int]) -> None:
    sentence = verdict(*arrays(*counts), None)
    p = binomtest(counts[1], counts[1] + counts[2]).pvalue if counts[1] + counts[2] else 1
    if p >= 0.05:
        assert "no significant difference" in sentence
    low, high = (float(word) for word in sentence.split("95% ")[1].split(";")[0].split(" to "))
    assert low <= 0 <= high if "no significant" in sentence else 0 <= low < high
    if "better" in sentence:
        assert counts[1] > counts[2]
    if "worse" in sentence:
        assert counts[1] < counts[2]


def test_revisions_files_or_workspace(project: Path, run_tool: RunTool) -> None:
    first, second = outcomes(200, 12, 2, 26)
    write_splits(project, 240, size=1)
    commit_run(project, "before", first)
    commit_run(project, "after", second)
    output = run_tool(compare, "before", "after")
    assert output.splitlines()[:2] == ["A: before, accuracy 0.842", "B: after, accuracy 0.883"]
    assert "warning" not in output
    for workspace in ([], ["workspace"]):
        assert run_tool(compare, "before", *workspace).splitlines()[-1] == output.splitlines()[-1]
    (project / "mine.csv").write_text(predictions(first))
    assert run_tool(compare, "mine.csv", "HEAD").splitlines()[-1] == output.splitlines()[-1]


def test_groups_come_from_b(project: Path, run_tool: RunTool) -> None:
    first, second = outcomes(200, 12, 2, 26)
    write_splits(project, 240, size=1)
    commit_run(project, "before", first)
    commit_run(project, "after", second)
    write_splits(project, 240, size=10)
    assert "in 24 groups" in run_tool(compare, "before")
    assert "groups" not in run_tool(compare, "before", "after")
    commit_run(project, "grouped", second)
    assert "in 24 groups" in run_tool(compare, "before", "grouped")


def test_clips_in_one_run_are_ignored(project: Path, run_tool: RunTool) -> None:
    (project / "a.csv").write_text(predictions("1" * 20))
    (project / "b.csv").write_text(predictions("0" * 20, start=1))
    output = run_tool(compare, "a.csv", "b.csv")
    assert "warning: no data/splits.csv of B is available" in output
    assert "warning: ignoring 1 clips that only A has and 1 that only B has" in output
    assert "different splits" not in output
    assert "worse than A by 100.0 points" in output
    assert "19 clips" in output


def test_warning_about_different_splits(project: Path, run_tool: RunTool) -> None:
    (project / "a.csv").write_text(predictions("1" * 20))
    (project / "b.csv").write_text(predictions("0" * 20, start=10))
    assert "tested on different splits" in run_tool(compare, "a.csv", "b.csv")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (predictions("11", start=50), "A and B share no clip"),
        (predictions("11", label="y"), "clip c0 is x in A and y in B (2 such clips)"),
    ],
)
def test_incomparable_runs(project: Path, run_tool: RunTool, text: str, expected: str) -> None:
    (project / "a.csv").write_text(predictions("1010"))
    (project / "b.csv").write_text(text)
    assert expected in error_of(lambda: run_tool(compare, "a.csv", "b.csv"))
