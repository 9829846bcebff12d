from pathlib import Path
from typing import Any

import pytest
from helpers import set_params, user_error
from split.examples import split_params

from stages.common.errors import UserError
from stages.common.params_check import check_params


def find_problem(values: dict[str, Any]) -> UserError:
    """Set keys of params.yaml in the current folder, and return the only problem that the stage finds."""
    set_params(Path(), values)
    [problem] = user_error(lambda: check_params("split")).problems
    return problem


@pytest.mark.parametrize(
    ("values", "key", "fact"),
    [
        ({"split.test_size": 0.6, "split.validation_size": 0.5}, "split.validation_size", "leave nothing to train on"),
        ({"split.folds": 2, "split.validation_size": 0.5}, "split.validation_size", "leave nothing to train on"),
        ({"split.folds": 4, "split.fold": 4}, "split.fold", "below 4"),
        ({"split.fold": 1}, "split.fold", "set folds too"),
        ({"split.folds": 5, "split.method": "random"}, "split.folds", "stratified or grouped, not random"),
        (
            {"split.folds": 5, "split.method": "published", "split.published": "params.yaml"},
            "split.folds",
            "not published",
        ),
        (
            {"split.test_size": 0.1},
            "split.test_size",
            "0.1 selects 4 of 40 clips, fewer than the 10 labels; set at least",
        ),
        ({"split.validation_size": 0.2}, "split.validation_size", "0.2 selects 8 of 30 clips"),
        (
            {"split.validation_size": 0.6},
            "split.validation_size",
            "0.6 leaves 6 of 30 clips, fewer than the 10 labels; set at most 0.5, or add clips",
        ),
        (
            {"split.test_size": 0.75, "split.validation_size": 0.1},
            "split.validation_size",
            "fewer than the 10 labels; set 0, or add clips",
        ),
        ({"download.dataset.clips_per_label": 1}, "split.test_size", "10 labels; add clips"),
        ({"split.folds": 5}, "split.folds", "5, but a label has 4 clips; set it lower"),
        ({"split.validation_folds": 5}, "split.validation_folds", "5, but a label has 4 clips"),
        (
            {"split.test_size": 0.1, "split.validation_size": 0.8},
            "split.test_size",
            "fewer than the 10 labels; add clips",
        ),
        ({"split.name_groups": {"speaker": "(a{99999999999})"}}, "split.name_groups", "no regular expression"),
        ({"split.name_groups": {"speaker": "(?:" * 3000 + "(a)" + ")" * 3000}}, "split.name_groups", "no regular"),
        ({"split.groups": {"recording": "params.yaml"}}, "split.groups", "recording is reserved"),
        ({"split.groups": {"clip": "params.yaml"}}, "split.groups", "clip is reserved"),
        ({"split.method": "published"}, "split.published", "the columns clip and split"),
        ({"split.name_groups": {"clip": "(x)"}}, "split.name_groups", "clip is reserved"),
        ({"split.name_groups": {"speaker": "("}}, "split.name_groups", "speaker: no regular expression"),
        ({"split.name_groups": {"speaker": "x"}}, "split.name_groups", "one pair of brackets"),
        (
            {"split.name_groups": {"speaker": "(x)"}, "split.groups": {"speaker": "params.yaml"}},
            "split.name_groups",
            "also in split.groups",
        ),
    ],
)
def test_contradictions_are_refused(workspace: Path, values: dict[str, Any], key: str, fact: str) -> None:
    problem = find_problem(values)
    assert problem.key == key
    assert fact in str(problem)


def test_all_contradictions_are_reported(workspace: Path) -> None:
    set_params(workspace, {"split.test_size": 0.9, "split.fold": 2, "split.groups": {"clip": "params.yaml"}})
    error = user_error(lambda: check_params("split"))
    assert {problem.key for problem in error.problems} == {"split.validation_size", "split.fold", "split.groups"}


def test_published_split_needs_no_sizes(workspace: Path) -> None:
    values = {"split.method": "published", "split.published": "params.yaml", "split.test_size": 0.95}
    set_params(workspace, values)
    check_params("split")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("split.folds", 1),
        ("split.fold", -1),
        ("split.seed", 2**32),
        ("split.seed", -1),
        ("split.test_size", 0.0),
        ("split.test_size", 1.0),
        ("split.validation_size", -0.1),
        ("split.validation_size", 1.0),
        ("split.method", "by_artist"),
        ("split.groups", ["artist"]),
        ("split.published", 3),
    ],
)
def test_invalid_value_is_named(workspace: Path, key: str, value: object) -> None:
    problem = find_problem({key: value})
    assert problem.key == key
    assert repr(value) in str(problem)


def test_methods_are_listed(workspace: Path) -> None:
    assert "random or stratified or grouped or published" in str(find_problem({"split.method": "by_artist"}))


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"split.groups": {"artist": "nowhere.csv"}}, "split.groups.artist"),
        ({"split.method": "published", "split.published": "nowhere.csv"}, "split.published"),
    ],
)
def test_missing_table_is_an_obstacle(workspace: Path, values: dict[str, Any], key: str) -> None:
    problem = find_problem(values)
    assert problem.key == key
    assert "no file nowhere.csv" in str(problem)


@pytest.mark.parametrize(("path", "fact"), [("", "is empty"), ("~nouser/x.csv", "no home folder of that user")])
def test_impossible_path_is_an_obstacle(workspace: Path, path: str, fact: str) -> None:
    problem = find_problem({"split.groups": {"artist": path}})
    assert problem.key == "split.groups.artist"
    assert fact in str(problem)


def test_folds_replace_test_size() -> None:
    assert split_params(test_size=0.3).test_share == 0.3
    assert split_params(test_size=0.9, folds=4, validation_size=0.2).test_share == 0.25


@pytest.mark.parametrize(
    "values",
    [{"split.folds": 4}, {"download.dataset.background": "others/"}, {"split.method": "random"}],
    ids=lambda values: next(iter(values)),
)
def test_number_of_clips_is_not_known(workspace: Path, values: dict[str, Any]) -> None:
    Path("others").mkdir()
    set_params(Path(), {"split.test_size": 0.1, "split.validation_size": 0.1} | values)
    check_params("split")
