from pathlib import Path

import pandas as pd
import pytest
from helpers import set_params, user_error
from split.examples import number_clips, write_raw

from stages.split.__main__ import main
from stages.split.published import read_published_split

CLIPS = pd.DataFrame({"clip": ["a", "b", "c"], "label": "x"})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "mine.csv"


def test_unlisted_clips_are_left_out(file: Path) -> None:
    file.write_text("clip,split\nc,test\na,train\n")
    assert read_published_split(CLIPS, [], str(file)).tolist() == ["train", None, "test"]


def test_rejected_files_may_be_listed(file: Path) -> None:
    file.write_text("clip,split\na,train\nbroken,test\n")
    assert read_published_split(CLIPS, ["x/broken.wav"], str(file)).tolist() == ["train", None, None]


def test_names_and_splits_in_other_forms(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_bytes("Clip\tSplit\r\nx/A.wav\tTrain\r\nc.flac\tTEST \r\nx/Broken.wav\ttest\r\n".encode("utf-16"))
    assert read_published_split(CLIPS, ["x/broken.wav"], str(file)).tolist() == ["train", None, "test"]
    assert "no split for 1 of 3 clips (first: b)" in capsys.readouterr().out


def test_other_data_set_is_refused(file: Path) -> None:
    file.write_text("clip,split\na,train\nz,test\ny,test\n")
    error = user_error(lambda: read_published_split(CLIPS, [], str(file)))
    assert error.file == str(file)
    assert "2 of its clips" in str(error)
    assert "first: y" in str(error)


@pytest.mark.parametrize("name", ["dev", ""])
def test_unknown_split_is_named(file: Path, name: str) -> None:
    file.write_text(f"clip,split\na,{name}\n")
    error = user_error(lambda: read_published_split(CLIPS, [], str(file)))
    assert error.file == str(file)
    assert f"split {name!r}" in str(error)


def test_refused_list_writes_nothing(workspace: Path) -> None:
    write_raw(number_clips({"a": 3, "b": 3}))
    set_params(workspace, {"split.method": "published", "split.published": "mine.csv"})
    error = user_error(main)
    assert error.key == "split.published"
    assert "no file mine.csv" in str(error)
    Path("mine.csv").write_text("clip,split\na.00000,train\nz.00009,test\n")
    error = user_error(main)
    assert error.file == "mine.csv"
    assert "z.00009" in str(error)
    assert not Path("data/splits.csv").exists()
    assert not Path("metrics/split.json").exists()


def test_list_may_be_unused(workspace: Path) -> None:
    write_raw(number_clips({"a": 20, "b": 20}))
    set_params(workspace, {"split.method": "stratified", "split.published": "mine.csv"})
    main()
    assert len(pd.read_csv("data/splits.csv")) == 40
