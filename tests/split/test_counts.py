import pandas as pd
import pytest
from helpers import user_error
from split.examples import split_params

from stages.split.counts import check_labels, count_splits, report_background, report_few_groups, report_uneven


def table(splits: str, labels: str) -> pd.DataFrame:
    """Return splits.csv of clips a, b, c ...; splits: the first letter of each clip's split."""
    names = {"r": "train", "v": "validation", "t": "test"}
    clips = [chr(ord("a") + n) for n in range(len(splits))]
    return pd.DataFrame({"clip": clips, "label": list(labels), "split": [names[letter] for letter in splits]})


def test_clips_are_counted() -> None:
    counts = count_splits(table("rrrvttr", "xxxxxxx"), pd.DataFrame(index=list("abcdefg")), left_out=5)
    assert counts["total"] == {"train": 4, "validation": 1, "test": 2}
    assert counts["per_label"] == [{"label": "x", "train": 4, "validation": 1, "test": 2}]
    assert counts["left_out"] == 5
    assert counts["leakage"] == {}


def test_absent_label_counts_zero() -> None:
    counts = count_splits(table("rtrv", "xxyz"), pd.DataFrame(index=list("abcd")), left_out=0)
    assert counts["per_label"] == [
        {"label": "x", "train": 1, "validation": 0, "test": 1},
        {"label": "y", "train": 1, "validation": 0, "test": 0},
        {"label": "z", "train": 0, "validation": 1, "test": 0},
    ]


def test_unknown_groups_do_not_leak() -> None:
    splits = table("rvttt", "xxxxx")
    groups = pd.DataFrame({"artist": ["1", "2", "1", "3", None]}, index=list("abcde"))
    assert count_splits(splits, groups, 0)["leakage"] == {"artist": {"test_clips": 3, "known": 2, "shared": 1}}


def test_validation_clips_leak_too() -> None:
    groups = pd.DataFrame({"artist": ["1", "2", "2"]}, index=list("abc"))
    assert count_splits(table("rvt", "xxx"), groups, 0)["leakage"]["artist"]["shared"] == 1


def test_every_label_needs_train_clip() -> None:
    splits = table("rtt", "aab")
    assert "label b has no clip in train" in str(user_error(lambda: check_labels(splits["label"], splits)))


def test_left_out_label_needs_train_clip() -> None:
    splits = table("rt", "aa")
    assert "label b has no clip in train" in str(user_error(lambda: check_labels(pd.Series(["a", "a", "b"]), splits)))


def test_test_split_needs_clip() -> None:
    splits = table("rv", "aa")
    assert "no clip is in test" in str(user_error(lambda: check_labels(splits["label"], splits)))


@pytest.mark.parametrize(
    ("totals", "expected"),
    [
        ({"train": 70, "validation": 10, "test": 20}, ""),
        ({"train": 61, "validation": 10, "test": 29}, ""),
        ({"train": 60, "validation": 10, "test": 30}, "test has 30% of the clips, not 20%"),
        ({"train": 84, "validation": 6, "test": 10}, "test has 10% of the clips, not 20%"),
        ({"train": 60, "validation": 20, "test": 20}, "validation has 20% of the clips, not 10%"),
    ],
)
def test_uneven_split_is_reported(totals: dict[str, int], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    report_uneven(totals, split_params(test_size=0.2, validation_size=0.1))
    output = capsys.readouterr().out
    assert expected in output
    assert bool(output) == bool(expected)
    assert len(output.splitlines()) <= 1


def test_fold_has_its_share(capsys: pytest.CaptureFixture[str]) -> None:
    report_uneven({"train": 50, "validation": 0, "test": 50}, split_params(folds=2, validation_size=0.0))
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        ("aabbaabbaabb", "in the 12 test clips: 2."),
        ("aaaaaaaaaaaa", "test clips: 1."),
        ("abcdefghijkl", ""),
        ("abcdefghijjj", ""),
    ],
)
def test_few_groups_are_reported(groups: str, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Clips of another split do not count."""
    report_few_groups(pd.DataFrame({"split": ["test"] * 12 + ["train"] * 9, "group": [*groups, *"mnopqrstu"]}))
    assert expected in capsys.readouterr().out


def test_single_clips_are_no_few_groups(capsys: pytest.CaptureFixture[str]) -> None:
    report_few_groups(pd.DataFrame({"split": ["test"] * 3, "group": list("abc")}))
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("split", "message"), [("test", "no clip is in test"), ("validation", "are of the background")]
)
def test_only_the_background_is_measured(split: str, message: str) -> None:
    splits = table("rrttvv", "ababab")
    splits = splits[(splits["label"] == "b") | (splits["split"] != split)]
    check_labels(splits["label"], splits)
    assert message in str(user_error(lambda: check_labels(splits["label"], splits, "b")))


def test_background_that_is_not_measured(capsys: pytest.CaptureFixture[str]) -> None:
    splits = pd.DataFrame({"label": ["a", "a", "b", "b"], "split": ["validation", "test", "train", "test"]})
    report_background(splits, "b")
    assert capsys.readouterr().out.splitlines() == [
        "warning: no clip of the background b is in validation, so evaluate sets no limit for them"
    ]
    report_background(splits, None)
    assert not capsys.readouterr().out
