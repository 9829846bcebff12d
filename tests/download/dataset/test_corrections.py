from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import digests, set_params, user_error, write_clips

from stages.common.tables import read_json, read_table
from stages.download.__main__ import download_dataset
from stages.download.dataset.corrections import apply_corrections, read_corrections

UseFolder = Callable[..., None]


@pytest.fixture
def corrections(workspace: Path, use_folder: UseFolder) -> Path:
    """A table that params.yaml names, without rows. The clips are those of the labels a and b, four each."""
    use_folder(write_clips(workspace / "mine"))
    file = workspace / "data/labels/corrections.csv"
    file.write_text("clip,action,label,sha256,note\n")
    set_params(workspace, {"download.dataset.corrections": "data/labels/corrections.csv"})
    return file


@pytest.mark.slow
def test_labels_are_changed_and_clips_dropped(corrections: Path, capsys: pytest.CaptureFixture[str]) -> None:
    download_dataset()
    sha256 = read_table(Path("data/raw/clips.csv")).set_index("clip")["sha256"]
    rows = f"a.00001,change,b,{sha256['a.00001']},clearly b\na.00002.wav,DROP,,,\nb/b.00003,keep,,,\na.00003,new,c,,\n"
    corrections.write_text(corrections.read_text() + rows)
    download_dataset()
    clips = read_table(Path("data/raw/clips.csv")).set_index("clip")
    assert clips["label"].to_dict() == {"a.00000": "a", "a.00001": "b", "a.00003": "c"} | {
        f"b.0000{n}": "b" for n in range(4)
    }
    assert clips.loc["a.00001", "path"] == "audio/b/a.00001.wav"
    assert clips["sha256"].equals(sha256.drop("a.00002"))
    rejected = read_table(Path("data/raw/rejected.csv"))
    assert rejected.to_numpy().tolist() == [["a/a.00002.wav", "dropped by corrections.csv"]]
    files = {path for path in digests(Path("data/raw")) if path.startswith("audio/")}
    assert files == set(clips["path"])
    assert read_json(Path("data/raw/source.json"))["corrections"] == "corrections.csv"
    assert "labels changed: 2, clips dropped: 1" in capsys.readouterr().out
    first = digests(Path("data/raw"))
    download_dataset()
    assert digests(Path("data/raw")) == first


def test_spellings_that_are_kept(corrections: Path, workspace: Path) -> None:
    corrections.write_text(corrections.read_text() + "a.00000,new,B,,\n")
    set_params(workspace, {"download.dataset.label_spellings": "keep"})
    download_dataset()
    assert read_table(Path("data/raw/clips.csv")).set_index("clip").loc["a.00000", "label"] == "B"


def test_label_without_clips_is_an_error(corrections: Path) -> None:
    rows = "".join(f"a.0000{n},change,b,,\n" for n in range(4))
    corrections.write_text(corrections.read_text() + rows)
    assert "at least two labels" in str(user_error(download_dataset))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("z.1,drop,,,", "1 of its clips are not in the data set (first: z.1)"),
        ("a.00000,delete,,,", "the action of a.00000 is 'delete'; it must be one of keep, change, new, drop"),
        ("a.00000,change,,,", "clip a.00000 has no label to change to"),
        ("a.00000,change,B,,", "no clip has the label B; did you mean b? The action new"),
        ("a.00000,new,B,,", "the label B is not new; did you mean b? Write change"),
        ("a.00000,new,c d,,\nb.00000,new,C  D,,", "the label c d is not new; did you mean C  D? Write change"),
        ("a.00000,new,../x,,", "its label has a slash"),
        ("a.00000,new,..,,", "begins with a dot"),
        ("a.00000,new,prediction,,", "label prediction is the name of a column"),
        ("a.00000,keep,,,\na.00000,drop,,,", "clip a.00000 is listed twice"),
        ("a.00000,keep,,123,", "the recordings of 1 of its clips have changed since (first: a.00000)"),
    ],
)
def test_unusable_corrections(corrections: Path, row: str, message: str) -> None:
    corrections.write_text(corrections.read_text() + row + "\n")
    assert message in str(user_error(download_dataset))
    assert not Path("data/raw").exists()


def test_rejected_clips_may_be_listed(corrections: Path) -> None:
    corrections.write_text(corrections.read_text() + "broken,drop,,,\n")
    assert not apply_corrections(Path(), [], str(corrections), [("a/broken.wav", "truncated")]).dropped


def test_table_of_a_spreadsheet(corrections: Path) -> None:
    corrections.write_bytes("Clip;Note;Action;Label\r\n'=x;;change;'=b\r\n;;;\r\n".encode("utf-16"))
    assert [tuple(one) for one in read_corrections(str(corrections))] == [("=x", "change", "=b", "", "")]


def test_table_without_actions(corrections: Path) -> None:
    corrections.write_text("clip,label\na,b\n")
    error = user_error(lambda: read_corrections(str(corrections)))
    assert error.key == "download.dataset.corrections"
    assert "needs the columns clip, action, label" in str(error)
