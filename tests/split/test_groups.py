from pathlib import Path

import pandas as pd
import pytest
from helpers import user_error

from stages.split.groups import connect, read_clip_table, read_groups

NO_REPETITIONS = pd.DataFrame(columns=["clip", "recording"])


def test_groups_connect_clips() -> None:
    table = pd.DataFrame({"artist": ["x", "x", None, None], "recording": [None, "1", "1", None]}, index=list("abcd"))
    groups = connect(table)
    assert groups[0] == groups[1] == groups[2] != groups[3]


def test_same_name_connects_no_groups() -> None:
    table = pd.DataFrame({"artist": ["1", None], "recording": [None, "1"]}, index=list("ab"))
    groups = connect(table)
    assert groups[0] != groups[1]


def test_clip_named_like_recording() -> None:
    clips, repetitions = pd.Series(["0", "1", "2"]), pd.DataFrame({"clip": ["1", "2"], "recording": ["0", "0"]})
    groups = connect(read_groups({}, clips, repetitions))
    assert groups[0] != groups[1] == groups[2]


def test_missing_table_is_named() -> None:
    error = user_error(lambda: read_groups({"artist": "nowhere.csv"}, pd.Series(["a"]), NO_REPETITIONS))
    assert error.key == "split.groups.artist"
    assert "no file nowhere.csv" in str(error)


def test_table_of_other_clips(tmp_path: Path) -> None:
    path = tmp_path / "artists.csv"
    path.write_text("clip,artist\nz,1\n")
    error = user_error(lambda: read_groups({"artist": str(path)}, pd.Series(["a.00000"]), NO_REPETITIONS))
    assert error.key == "split.groups"
    assert "such as a.00000" in str(error)


@pytest.mark.parametrize(
    ("content", "fact"),
    [
        ("clip,split\ncafé,train\n".encode("latin-1"), "is not UTF-8"),
        (b"name,split\na,train\n", "needs the columns clip and split"),
        (b"", "needs the columns clip and split"),
        (b'clip,split\na,"train\n', "needs the columns clip and split"),
    ],
)
def test_invalid_table_is_named(tmp_path: Path, content: bytes, fact: str) -> None:
    path = tmp_path / "mine.csv"
    path.write_bytes(content)
    error = user_error(lambda: read_clip_table("published", str(path), ["clip", "split"]))
    assert error.key == "split.published"
    assert f"{path} {fact}" in str(error)


def test_duplicate_clip_is_named(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("clip,split\na.00000,train\na.00000,test\n")
    error = user_error(lambda: read_clip_table("published", str(path), ["clip", "split"]))
    assert error.file == str(path)
    assert "clip a.00000 is listed twice" in str(error)
