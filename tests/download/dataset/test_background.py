from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from helpers import set_params, tone, user_error
from soundfile import write

from stages.common.paths import CLIPS, DATASET_SOURCE, RAW, REJECTED
from stages.common.tables import read_json, read_table
from stages.download.__main__ import download_dataset
from stages.download.dataset.background import find_label
from stages.download.dataset.clip_sources import FolderClips

KEY = "download.dataset.background"


def write_clips(folder: Path, *names: str, first: int = 0) -> None:
    for number, name in enumerate(names, first):
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        write(file, tone(0.3, 8_000, 200 + 50 * number), 8_000)


@pytest.fixture
def clips(workspace: Path) -> Path:
    """A data set with two labels and noise, and beside it a folder of other sounds."""
    write_clips(workspace / "clips", "cat/1.wav", "dog/1.wav", "Noise/1.wav")
    write_clips(workspace / "other", "1.wav", "street/1.wav", "street/night/2.flac", first=5)
    (workspace / "other/notes.txt").write_text("x")
    (workspace / "other/street/cut.wav").write_bytes(b"RIFF")
    set_source(workspace, background=None)
    return workspace


def set_source(workspace: Path, **keys: Any) -> None:
    source = {"source": "folder", "path": "clips", "max_rejected": 0.5}
    set_params(workspace, {"download.dataset": source | keys})


@pytest.mark.slow
def test_label_is_the_background(clips: Path) -> None:
    set_source(clips, background="Noise")
    download_dataset()
    assert read_json(DATASET_SOURCE)["background"] == "Noise"
    assert set(read_table(CLIPS)["label"]) == {"cat", "dog", "Noise"}
    set_source(clips)
    download_dataset()
    assert "background" not in read_json(DATASET_SOURCE)


@pytest.mark.slow
def test_folder_becomes_a_label(clips: Path, capsys: pytest.CaptureFixture[str]) -> None:
    set_source(clips, background="./other")
    download_dataset()
    assert read_json(DATASET_SOURCE)["background"] == "none_of_these"
    table = read_table(CLIPS)
    assert sorted(table.loc[table["label"] == "none_of_these", "clip"]) == [
        "none_of_these.night.2",
        "none_of_these.other.1",
        "none_of_these.street.1",
    ]
    assert all((RAW / path).is_file() for path in table["path"])
    assert table["clip"].is_unique
    reasons = read_table(REJECTED).set_index("file")["reason"]
    assert reasons["none_of_these/notes.txt"] == "not an audio file"
    assert "none_of_these/street/cut.wav" in reasons.index
    assert "warning: label" not in capsys.readouterr().out
    set_params(clips, {"download.dataset": {"source": "synthetic", "clips_per_label": 1, "seconds": 0.2}})
    set_params(clips, {KEY: str(clips / "other/street"), "download.dataset.max_rejected": 0.2})
    download_dataset()
    assert pd.Series(read_table(CLIPS)["label"]).value_counts()["none_of_these"] == 2


def test_missing_label_is_named(clips: Path) -> None:
    set_source(clips, background="noise")
    error = user_error(download_dataset)
    assert error.key == KEY
    assert str(error).endswith("no clip has the label noise; write Noise. Labels: Noise, cat, dog")
    assert "write ./speech if it is a folder" in str(user_error(lambda: find_label("speech", ["cat", "dog"])))
    listed = str(user_error(lambda: find_label("speech", [f"{n:02d}" for n in range(40)])))
    assert "18, 19, ..." in listed


def test_two_labels_must_remain(clips: Path) -> None:
    set_source(clips, background="cat", path="two")
    write_clips(clips / "two", "cat/1.wav", "dog/1.wav")
    assert "at least two labels besides the background cat, found ['dog']" in str(user_error(download_dataset))


@pytest.mark.parametrize(
    ("background", "expected"),
    [
        ("./missing", "no folder ./missing"),
        ("", "is empty"),
        ("clips/Noise", "is inside the folder of the clips, which are read as labels; write Noise"),
        ("./clips", "./clips is the folder of the clips"),
        ("./", "./ contains the folder of the clips"),
        ("./nothing", "no audio in ./nothing"),
    ],
)
def test_unusable_folder_is_found_before_any_work(clips: Path, background: str, expected: str) -> None:
    (clips / "nothing").mkdir()
    (clips / "nothing/readme.txt").touch()
    params = FolderClips(source="folder", path="clips", background=background)
    [problem] = params.find_obstacles()
    assert problem.key == KEY
    assert expected in str(problem)


def test_folder_that_does_not_fit_the_clips(clips: Path) -> None:
    set_source(clips, background="./empty")
    (clips / "empty").mkdir()
    assert "no audio in ./empty" in str(user_error(download_dataset))
    write_clips(clips / "same", "cat/1.wav", "dog/none_of_these.other.1.wav")
    set_source(clips, background="./other", path="same")
    assert "have one with the name none_of_these.other.1" in str(user_error(download_dataset))
    write_clips(clips / "clips", "none_of_these/3.wav")
    set_source(clips, background="./other")
    assert "the clips have a label none_of_these" in str(user_error(download_dataset))
