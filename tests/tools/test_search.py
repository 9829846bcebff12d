import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fakes.fork_server import make_python
from helpers import ROOT, user_error

from tools.revisions import experiments

pytest.importorskip("optuna", reason="the extra search is not installed")

from tools.search.gain import corrected_gain
from tools.search.space import check_space, parse_space


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("train.epochs=int(5,1)", "the lower end comes first"),
        ("train.epochs=int(1.5,3)", "two integers"),
        ("train.dropout=log(0,1)", "above 0"),
        ("split.seed=1,2", "same clips"),
        ("train.epochs", "KEY=VALUES"),
    ],
)
def test_invalid_space(text: str, expected: str) -> None:
    assert expected in str(user_error(lambda: parse_space([text])))


def test_corners_are_checked(workspace: object) -> None:
    space = parse_space(["train.epochs=int(0,3)", "train.freeze=none,base"])
    assert "train.epochs" in str(user_error(lambda: check_space(space, [])))


def test_gain_is_corrected_for_the_choice() -> None:
    rng = np.random.default_rng(0)
    covered, uncorrected = [], []
    for _ in range(20):
        correct = rng.random((100, 13)) < 0.8
        _, low, high = corrected_gain(correct[:, 1:], correct[:, 0], None)
        covered.append(low <= 0 <= high)
        uncorrected.append(correct[:, 1:].mean(axis=0).max() - correct[:, 0].mean())
    assert np.mean(uncorrected) > 0.03
    assert np.mean(covered) >= 0.85


@pytest.fixture
def env() -> dict[str, str]:
    """Return an environment in which the stages run as forks."""
    path = os.pathsep.join([str(make_python()), str(Path(sys.executable).parent), os.environ["PATH"]])
    return dict(os.environ) | {"PATH": path, "PYTHONPATH": str(ROOT), "OMP_WAIT_POLICY": "passive"}


def start_search(env: dict[str, str], *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-u", "-m", "tools.search", *arguments]
    return subprocess.Popen(command, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def run_search(env: dict[str, str], *arguments: str) -> tuple[int, str]:
    """Return exit status and output of a search in the current folder."""
    process = start_search(env, *arguments)
    output, _ = process.communicate(timeout=300)
    return process.returncode, output


def has_file(commit: str, path: str) -> bool:
    """Return whether a commit has a file of the project in the current folder."""
    return subprocess.run(["git", "cat-file", "-e", f"{commit}:./{path}"], capture_output=True).returncode == 0


@pytest.mark.rare
@pytest.mark.slow
def test_killed_search_goes_on(env: dict[str, str], copied: Path) -> None:
    space = ["-S", "train.learning_rate=log(1e-3,1e-2)", "--trials", "4", "--jobs", "2"]
    process = start_search(env, *space)
    first = []
    for line in process.stdout or []:
        first.append(line)
        if ": finished in " in line:
            break
    assert process.poll() is None, first
    process.send_signal(signal.SIGKILL)
    process.communicate()
    started = {line.partition(": ")[0]: line for line in first if ": started, " in line}
    [done] = [line.partition(": ")[0] for line in first if ": finished in " in line]

    status, output = run_search(env, *space)
    assert status == 0, output
    again = {line.partition(": ")[0]: line for line in output.splitlines(keepends=True) if ": started, train" in line}
    assert done not in again
    assert all(again[name] == line for name, line in started.items() if name != done)  # the same values
    names = {f"search-{number}" for number in range(4)} | {"search-winner", "search-committed"}
    assert set(experiments()) == names
    assert "best of 4 trials (4 finished)" in output
    assert "On the test clips, A is committed and B the winner" in output
    for name in names:
        tested = has_file(experiments()[name], "metrics/metrics.json")
        assert tested == (name in ("search-winner", "search-committed")), name

    status, output = run_search(env, *space)
    assert status == 0, output
    assert ": started, train" not in output
    assert (
        "evaluated on the test clips after 4 trials" in run_search(env, *space[:2], "--trials", "5", "--jobs", "2")[1]
    )
    assert "another space" in run_search(env, "-S", "train.learning_rate=1e-3,1e-2", "--trials", "4")[1]


@pytest.mark.rare
@pytest.mark.slow
def test_folds_and_pruning(env: dict[str, str], copied: Path) -> None:
    space = ["-S", "train.epochs=int(1,2)", "-S", "resample_encode.max_seconds=0,1", "--trials", "2"]
    status, output = run_search(env, *space)
    assert status == 1, output
    assert "input should be greater than 0" in output
    assert "started" not in output
    status, output = run_search(env, *space[:2], "--trials", "2", "--folds", "2", "--prune", "--sampler", "random")
    assert status == 0, output
    folds = {f"search-{name}-fold{fold}" for name in (0, 1, "committed") for fold in (0, 1)}
    assert folds <= set(experiments())
    assert "in 2 folds" in output
