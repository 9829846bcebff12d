from pathlib import Path

import pandas as pd
import pytest
from helpers import user_error

from stages.split.groups import connect, find_name_groups, read_groups

CLIPS = pd.DataFrame({"clip": ["a.1", "b.1"], "label": ["a", "b"]})
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
    clips = pd.DataFrame({"clip": ["0", "1", "2"], "label": "a"})
    repetitions = pd.DataFrame({"clip": ["1", "2"], "recording": ["0", "0"]})
    groups = connect(read_groups({}, clips, repetitions))
    assert groups[0] != groups[1] == groups[2]


def test_missing_table_is_named() -> None:
    error = user_error(lambda: read_groups({"artist": "nowhere.csv"}, CLIPS, NO_REPETITIONS))
    assert error.key == "split.groups.artist"
    assert "no file nowhere.csv" in str(error)


def test_table_of_other_clips(tmp_path: Path) -> None:
    path = tmp_path / "artists.csv"
    path.write_text("clip,artist\nz,1\n")
    error = user_error(lambda: read_groups({"artist": str(path)}, CLIPS, NO_REPETITIONS))
    assert error.key == "split.groups.artist"
    assert "such as a.1;" in str(error)


def test_one_of_several_tables_may_list_no_clip(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One of repetitions has only the clips that are repeated."""
    for name, clip in (("artist", "a.1"), ("speaker", "z")):
        (tmp_path / f"{name}.csv").write_text(f"clip,{name}\n{clip},1\n")
    groups = {name: str(tmp_path / f"{name}.csv") for name in ("artist", "speaker")}
    table = read_groups(groups, CLIPS, NO_REPETITIONS)
    assert table["speaker"].isna().all()
    assert f"warning: {groups['speaker']} lists none of the clips, such as a.1; " in capsys.readouterr().out


def test_missing_clips_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "artists.csv").write_text("Clip;Artist\na/A.1.WAV;x\n")
    table = read_groups({"artist": str(tmp_path / "artists.csv")}, CLIPS, NO_REPETITIONS)
    assert table["artist"].fillna("").tolist() == ["x", ""]
    assert "artists.csv: no artist for 1 of 2 clips (first: b.1)" in capsys.readouterr().out


def test_groups_in_names(capsys: pytest.CaptureFixture[str]) -> None:
    clips = pd.Series(["bed.0a7c_nohash_0", "cat.0a7c_nohash_1", "1f2e_nohash_0", "noise"])
    table = find_name_groups({"speaker": "([0-9a-f]+)_nohash"}, clips)
    assert table["speaker"].tolist()[:3] == ["0a7c", "0a7c", "1f2e"]
    assert table["speaker"].isna().tolist() == [False, False, False, True]
    groups = connect(table)
    assert groups[0] == groups[1]
    assert len(set(groups)) == 3
    assert "speaker: not in the names of 1 of 4 clips, such as noise" in capsys.readouterr().out


def test_pattern_that_matches_nothing() -> None:
    error = user_error(lambda: find_name_groups({"speaker": "(x+)y"}, pd.Series(["a", "b"])))
    assert error.key == "split.name_groups.speaker"
