import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import soundfile
from fakes.small_hub import (
    listed_clips,
)
from helpers import set_params, tone, user_error, write_clips

from stages.common.params import load_params
from stages.common.tables import read_json, read_table
from stages.download.__main__ import download_dataset
from stages.download.params import DatasetParams
from stages.split.__main__ import main as split_main

UseFolder = Callable[..., None]


@pytest.mark.slow
def test_synthetic_clips(workspace: Path) -> None:
    download_dataset()
    clips = read_table(Path("data/raw/clips.csv"))
    assert len(clips) == 40
    assert set(clips["label"]) > {"blues", "rock"}
    file = Path("data/raw", clips["path"][0])
    assert soundfile.info(file).samplerate == int(clips["sampling_rate"][0]) == 22_050


@pytest.mark.slow
def test_synthetic_clips_are_reproducible(workspace: Path) -> None:
    download_dataset()
    first = Path("data/raw/clips.csv").read_bytes()
    download_dataset()
    assert Path("data/raw/clips.csv").read_bytes() == first


@pytest.mark.slow
def test_more_synthetic_clips_keep_others(workspace: Path) -> None:
    download_dataset()
    before = read_table(Path("data/raw/clips.csv")).set_index("clip")["sha256"]
    set_params(workspace, {"download.dataset.clips_per_label": 5})
    download_dataset()
    after = read_table(Path("data/raw/clips.csv")).set_index("clip")["sha256"]
    assert len(after) == 50
    assert (after[before.index] == before).all()


def test_folder_is_copied(workspace: Path, use_folder: UseFolder) -> None:
    clips = write_clips(workspace / "mine", number=6)
    use_folder(clips)
    download_dataset()
    assert listed_clips() == [f"{label}.{n:05d}" for label in "ab" for n in range(6)]
    assert Path("data/raw/audio/b/b.00003.wav").read_bytes() == (clips / "b/b.00003.wav").read_bytes()
    assert read_json(Path("data/raw/source.json"))["id"] == "mine"


@pytest.mark.slow
def test_labels_and_split_of_a_table(
    workspace: Path, use_folder: UseFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    write_clips(workspace / "mine", number=6)
    names = [f"{label}/{label}.{n:05d}.wav" for label in "ab" for n in range(6)]
    table = pd.DataFrame({"file_name": names, "label": ["x/y", "z"] * 6, "split": ["train", "train", "test"] * 4})
    table.loc[11] = "b/broken.wav", "x/y", "train"
    (workspace / "mine/b/broken.wav").touch()
    table.to_csv(workspace / "mine/metadata.csv", index=False)
    use_folder(workspace / "mine")
    table_params = {"download.dataset.table": "metadata.csv"}
    set_params(workspace, table_params | {"split.method": "published", "split.published": None})
    set_params(workspace, {"split.validation_size": 0})
    download_dataset()
    clips = read_table(Path("data/raw/clips.csv"))
    assert clips["path"].iloc[:2].tolist() == ["audio/x-y/a.00000.wav", "audio/z/a.00001.wav"]
    output = capsys.readouterr().out
    assert "8 train, 0 validation, 3 test; split.method: published uses it" in output
    assert "has no clip left" not in output
    rejected = read_table(Path("data/raw/rejected.csv"))["file"]
    assert rejected.tolist() == ["b/b.00005.wav", "b/broken.wav"]
    split_main()
    splits = read_table(Path("data/splits.csv")).set_index("clip")["split"]
    assert splits["a.00002"] == "test"
    assert splits.value_counts().to_dict() == {"train": 8, "test": 3}


@pytest.mark.parametrize("table", ["metadata.csv", "metadata.jsonl", "b/t.csv"])
def test_table_is_no_rejected_file(
    workspace: Path, use_folder: UseFolder, table: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_clips(workspace / "mine", number=1)
    rows = pd.DataFrame({"file_name": ["a/a.00000.wav", "b/b.00000.wav"], "label": ["x", "y"]})
    is_json = table.endswith(".jsonl")
    text = rows.to_json(orient="records", lines=True) if is_json else rows.to_csv(index=False)
    (workspace / "mine" / table).write_text(text)
    (workspace / "mine/metadata.parquet").touch()
    use_folder(workspace / "mine")
    set_params(workspace, {"download.dataset.table": table if "/" in table else None})
    download_dataset()
    assert read_table(Path("data/raw/rejected.csv"))["file"].tolist() == ["metadata.parquet"]
    assert "2 clips of 2 labels, files rejected: 0, files that are not audio ignored: 1" in capsys.readouterr().out


def test_folders_of_splits(workspace: Path, use_folder: UseFolder, capsys: pytest.CaptureFixture[str]) -> None:
    for split, number in (("train", 4), ("test", 2)):
        write_clips(workspace / "mine" / split, number=number)
    use_folder(workspace / "mine")
    download_dataset()
    assert listed_clips()[:2] == ["test.a.a.00000", "test.a.a.00001"]
    assert "the data set brings a split: 8 train, 0 validation, 4 test; " in capsys.readouterr().out
    brought = read_table(Path("data/raw/published.csv")).set_index("clip")["split"]
    assert brought["test.a.a.00000"] == "test"
    assert len(brought) == 12


def test_names_shared_by_labels(workspace: Path, use_folder: UseFolder) -> None:
    for label in "ab":
        (workspace / "mine" / label).mkdir(parents=True)
        for n in range(2):
            soundfile.write(workspace / "mine" / label / f"{n}.wav", tone(hz=300 + n), 22_050)
    use_folder(workspace / "mine")
    download_dataset()
    assert listed_clips() == ["a.0", "a.1", "b.0", "b.1"]


def test_linked_label_folder(workspace: Path, use_folder: UseFolder) -> None:
    clips = write_clips(workspace / "mine")
    (clips / "b").rename(workspace / "elsewhere")
    (clips / "b").symlink_to(workspace / "elsewhere")
    use_folder(clips)
    download_dataset()
    assert set(read_table(Path("data/raw/clips.csv"))["label"]) == {"a", "b"}


@pytest.mark.slow
def test_unreadable_files(workspace: Path, use_folder: UseFolder) -> None:
    clips = write_clips(workspace / "mine")
    shutil.copyfile(clips / "a/a.00000.wav", os.fsencode(clips / "a") + b"/caf\xe9.wav")
    (clips / "a/gone.wav").symlink_to(workspace / "nowhere.wav")
    use_folder(clips)
    download_dataset()
    reasons = dict(read_table(Path("data/raw/rejected.csv")).itertuples(index=False))
    assert "rename it" in reasons.pop("'a/caf\\udce9.wav'")
    assert list(reasons) == ["a/gone.wav"]
    assert reasons["a/gone.wav"].startswith("cannot be read: a broken link")
    use_folder(clips, max_rejected=0.05)
    error = user_error(download_dataset)
    assert error.key == "download.dataset.max_rejected"
    assert "2 of 10 audio files rejected (first: 'a/caf\\udce9.wav': its name is not UTF-8" in str(error)


def test_files_that_libsndfile_decodes(workspace: Path, use_folder: UseFolder) -> None:
    clips = write_clips(workspace / "mine", number=1)
    formats = {"opus": "OGG", "oga": "OGG", "aifc": "AIFF", "caf": "CAF", "w64": "W64", "rf64": "RF64", "snd": "AU"}
    formats |= {"bwf": "WAV", "sph": "NIST", "sf": "IRCAM", "wave": "WAV", "mp2": "MP3"}
    (clips / "c").mkdir()
    for n, (suffix, kind) in enumerate(formats.items()):
        subtype = "OPUS" if suffix == "opus" else None
        soundfile.write(
            clips / f"c/{n}.{suffix}", tone(hz=300 + 20 * n, sampling_rate=24_000), 24_000, subtype, None, kind
        )
    use_folder(clips, max_rejected=0.0)
    download_dataset()
    assert set(read_table(Path("data/raw/clips.csv"))["label"]) == {"a", "b", "c"}
    assert len(listed_clips()) == 2 + len(formats)


@pytest.mark.slow
def test_label_in_two_spellings(workspace: Path, use_folder: UseFolder) -> None:
    clips = write_clips(workspace / "mine", labels=("Cafe\u0301", "Caf\u00e9", "b"), number=2)
    use_folder(clips)
    assert user_error(download_dataset).key == "download.dataset.label_spellings"
    for value, labels in (("join", {"Caf\u00e9", "b"}), ("keep", {"Cafe\u0301", "Caf\u00e9", "b"})):
        set_params(workspace, {"download.dataset.label_spellings": value})
        download_dataset()
        assert set(read_table(Path("data/raw/clips.csv"))["label"]) == labels
        assert len(listed_clips()) == 6


@pytest.mark.parametrize("path", ["", "~nouser/x", "x" * 300])
def test_impossible_path(workspace: Path, use_folder: UseFolder, path: str) -> None:
    set_params(workspace, {"download.dataset": {"source": "folder", "path": path, "originals": path}})
    params = load_params("download.dataset", DatasetParams)
    assert {obstacle.key for obstacle in params.find_obstacles()} == {
        "download.dataset.path",
        "download.dataset.originals",
    }
    assert user_error(download_dataset).key == "download.dataset.path"


def test_clips_one_level_too_deep(workspace: Path, use_folder: UseFolder) -> None:
    use_folder(write_clips(workspace / "mine/actor").parent)
    assert "8 of 8 audio files rejected (first: actor/a/a.00000.wav: not at <label>/<file>)" in str(
        user_error(download_dataset)
    )


def test_missing_folder(workspace: Path, use_folder: UseFolder) -> None:
    use_folder(workspace / "nowhere")
    error = user_error(download_dataset)
    assert error.key == "download.dataset.path"
    assert str(workspace / "nowhere") in str(error)


def test_folder_without_audio(workspace: Path, use_folder: UseFolder) -> None:
    (workspace / "empty").mkdir()
    (workspace / "empty/readme.txt").write_text("not audio")
    use_folder(workspace / "empty")
    error = user_error(download_dataset)
    assert error.key == "download.dataset.path"
    assert "no audio" in str(error)
    # The stage check finds it, too, before DVC deletes data/raw.
    [obstacle] = load_params("download.dataset", DatasetParams).find_obstacles()
    assert str(obstacle) == str(error)
