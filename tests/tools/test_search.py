import os
import signal
import subprocess
import sys
import tracemalloc
from argparse import Namespace
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fakes.fork_server import make_python
from helpers import ROOT, dvc, set_params, user_error

from tools.revisions import experiments

pytest.importorskip("optuna", reason="the extra search is not installed")

import optuna

from stages.train.checkpoints import CHECKPOINTS
from tools.search import __main__ as search_main
from tools.search import gain
from tools.search.gain import corrected_gain
from tools.search.report import _describe_winner, describe_gain
from tools.search.runs import Runner
from tools.search.space import check_space, parse_space
from tools.search.study import opened_study, require_open
from tools.sweep_task import Source

SETTINGS: dict[str, Any] = {"seed": 0, "sampler": "tpe", "folds": None, "prune": False}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("train.epochs=int(5,1)", "the lower end comes first"),
        ("train.epochs=int(1.5,3)", "two integers"),
        ("train.dropout=log(0,1)", "above 0"),
        ("split.seed=1,2", "same clips"),
        ("trian.epochs=1,2", "the keys to search are in train, "),
        ("train.epochs=lgo(1,3)", "ranges are log("),
        ("train.epochs", "KEY=VALUES"),
    ],
)
def test_invalid_space(text: str, expected: str) -> None:
    assert expected in str(user_error(lambda: parse_space([text])))


def test_corners_are_checked(workspace: object) -> None:
    space = parse_space(["train.epochs=int(0,3)", "train.freeze=none,base"])
    assert "train.epochs" in str(user_error(lambda: check_space(space, [])))


def test_unknown_key(workspace: object) -> None:
    space = parse_space(["train.learnin_rate=log(1e-4,1e-2)"])
    assert "did you mean learning_rate?" in str(user_error(lambda: check_space(space, [])))
    space = parse_space(["train.epochs.more=1,2", "train.xyz=1,2"])
    assert "train.xyz: not in params.yaml; add it" in str(user_error(lambda: check_space(space, [])))


def open_study(folder: Path) -> None:
    with opened_study(folder, "x", SETTINGS) as study:
        require_open(study, 1, {"x-0": "", "x-winner": "", "x-y": ""})


def test_damaged_study(tmp_path: Path) -> None:
    (tmp_path / "study.db").write_bytes(b"damaged" * 99)
    message = str(user_error(lambda: open_study(tmp_path)))
    assert "study.db: cannot be used: " in message
    assert "file is not a database; if it is damaged, remove" in message


@pytest.mark.slow
def test_deleted_study(tmp_path: Path) -> None:
    assert "dvc exp remove x-0 x-winner" in str(user_error(lambda: open_study(tmp_path)))


def test_same_search_twice(tmp_path: Path) -> None:
    with opened_study(tmp_path, "x", SETTINGS):
        assert "the search x runs already" in str(user_error(lambda: open_study(tmp_path)))


def make_runner(folder: Path, message: str) -> Runner:
    """Return a runner of which each experiment ends with this message."""
    source = Source(str(folder), "0" * 40, "", "", "", None, ("", ""))
    return Runner(
        source, lambda *_: iter(["host", message]), None, folder / "clones", folder / "logs", Event(), local=True
    )


@pytest.mark.parametrize(
    ("message", "expected"), [("failed\nERROR: no space", "no space"), ("ok\n", "its result is missing")]
)
def test_reason_of_a_failed_trial(workspace: Path, message: str, expected: str) -> None:
    runner = make_runner(workspace, message)
    assert expected in str(user_error(lambda: runner.run("x-0", [], "train")))
    assert expected in (workspace / "logs" / "x-0.log").read_text()


def test_clones_that_cannot_be_removed(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.rmtree", lambda *_, **__: None)  # as if a process wrote there
    runner = make_runner(workspace, "")
    runner.clear()
    runner.clear()


def test_sigterm_ends_as_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["tools.search", "-S", "train.epochs=1,2"])
    monkeypatch.setattr("tools.search.__main__.search", lambda _: os.kill(os.getpid(), signal.SIGTERM))
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(KeyboardInterrupt):
            search_main.main()
    finally:
        signal.signal(signal.SIGTERM, before)


def test_trials_share_the_checkpoints(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = Namespace(name="x", address=None, jobs=1)
    with search_main.opened_runner(options, None, Path(".dvc/tmp")) as (runner, _):
        runner.clear()
        clone = runner.folder / "sweep-1" / "project"
    clone.mkdir(parents=True)
    monkeypatch.chdir(clone)
    assert CHECKPOINTS.top() == workspace / ".dvc" / "tmp" / "checkpoints"


@pytest.mark.slow
def test_few_clips_give_a_wide_interval() -> None:
    rng = np.random.default_rng(0)
    for number in (3, 6, 12):
        tables = [rng.random((number, 4)) < 0.7 for _ in range(40)]
        intervals = [corrected_gain(table[:, 1:], table[:, 0], None)[1:] for table in tables]
        assert np.mean([low <= 0 <= high for low, high in intervals]) >= 0.9
    same = np.ones((12, 1), bool)
    _, low, high = corrected_gain(same, same[:, 0], None)
    assert low < -0.1
    assert high > 0.1


@pytest.mark.slow
def test_many_clips_need_little_memory() -> None:
    correct = np.random.default_rng(0).random((4000, 3)) < 0.8
    tracemalloc.start()
    try:
        corrected_gain(correct[:, 1:], correct[:, 0], None)
        assert tracemalloc.get_traced_memory()[1] < 250e6  # bytes; a matrix of all resamples and clips has 128e6
    finally:
        tracemalloc.stop()


def test_resamples_in_parts_give_the_same_gain(monkeypatch: pytest.MonkeyPatch) -> None:
    correct, groups = np.random.default_rng(0).random((90, 4)) < 0.7, np.arange(90) // 3
    together = corrected_gain(correct[:, 1:], correct[:, 0], groups)
    monkeypatch.setattr(gain, "MAX_CELLS", 1000)
    assert corrected_gain(correct[:, 1:], correct[:, 0], groups) == together


def test_interval_is_that_of_the_winner() -> None:
    """By the mean over the folds, a trial can win that is not the best on all clips."""
    table = pd.DataFrame({0: [True] * 100, 1: [False] + [True] * 99})
    first, second = ("\n".join(describe_gain(table, winner, table[0], np.arange(100), 2)) for winner in (0, 1))
    assert "(95% -3.7 to +3.7); not corrected +0.0" in first
    assert "(95% -4.4 to +3.7); not corrected -1.0" in second


def test_report_has_values_as_in_params(workspace: Path) -> None:
    set_params(workspace, {"train.dropout": None})
    study = optuna.create_study(direction="maximize", study_name="x")
    space = {"train.dropout": optuna.distributions.CategoricalDistribution(["0.1", "null"])}
    study.add_trial(optuna.create_trial(params={"train.dropout": "0.1"}, distributions=space, value=0.5))
    assert "| train.dropout | 0.1 | null |" in list(_describe_winner(study, study.trials[0]))


def test_report_says_if_groups_are_unknown() -> None:
    table = pd.DataFrame({0: [True] * 60})
    assert "treated as independent" in "".join(describe_gain(table, 0, table[0], None, None))
    assert "treated as independent" not in "".join(describe_gain(table, 0, table[0], np.arange(60), None))


@pytest.mark.parametrize(("number", "few"), [(59, True), (60, False)])
def test_report_says_if_clips_are_few(number: int, few: bool) -> None:
    table = pd.DataFrame({0: [True] * 2 * number})
    groups = np.arange(2 * number) // 2
    text = "\n".join(describe_gain(table, 0, table[0], groups, None))
    assert f"on {2 * number} validation clips of {number} groups" in text
    assert (f"{number} independent validation clips are too few" in text) == few
    assert "groups" not in "".join(describe_gain(table, 0, table[0], np.arange(2 * number), None))


@pytest.mark.slow
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
    assert "Trials: 4 finished." in output
    assert "On the test clips, A is committed and B the winner" in output
    for name in names:
        tested = has_file(experiments()[name], "metrics/metrics.json")
        assert tested == (name in ("search-winner", "search-committed")), name

    dvc(copied, "exp", "remove", "search-1")
    status, output = run_search(env, *space)
    assert status == 0, output
    assert ": started, train" not in output
    assert set(experiments()) == names
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
