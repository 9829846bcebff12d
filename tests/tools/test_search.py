import numpy as np
import pytest
from helpers import user_error

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
