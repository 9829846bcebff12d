import pytest
from helpers import user_error

from stages.download.dataset.labels import unite_labels

PAIRS = [
    ("Caf\u00e9", "Cafe\u0301"),
    ("Rock", "rock"),
    ("hip hop", "hip  hop"),
    ("hip hop", "hip\u00a0hop"),
    ("rock", "rock "),
    ("fish", "\ufb01sh"),
    ("x", "\u200bx"),
]


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_two_spellings_are_refused(one: str, other: str) -> None:
    error = user_error(lambda: unite_labels([one, one, other, "z"], "refuse"))
    assert error.key == "download.dataset.label_spellings"
    for label, clips in ((one, 2), (other, 1)):
        assert ascii(label) in str(error)
        assert f"with {clips} clips" in str(error)
    assert "\n" not in str(error)


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_two_spellings_are_joined_if_asked(one: str, other: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert unite_labels([one, other, other, "z"], "join") == {one: other, other: other, "z": "z"}
    output = capsys.readouterr().out
    assert output.startswith("warning: ")
    assert output.count("\n") == 1


def test_composed_form_wins_a_tie() -> None:
    assert set(unite_labels(["Cafe\u0301", "Caf\u00e9"], "join").values()) == {"Caf\u00e9"}


def test_spellings_can_be_kept(capsys: pytest.CaptureFixture[str]) -> None:
    """E.g. the chords AM and Am."""
    assert unite_labels(["AM", "Am"], "keep") == {"AM": "AM", "Am": "Am"}
    assert "'AM' with 1 clips and 'Am' with 1 clips; kept" in capsys.readouterr().out


@pytest.mark.parametrize("labels", [["a", "b"], ["Maße", "Masse"], ["a b", "ab"], ["cafe", "café"], ["a", "a"]])
def test_other_labels_stay(labels: list[str]) -> None:
    assert unite_labels(labels, "refuse") == {label: label for label in labels}
