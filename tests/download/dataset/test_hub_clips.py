"""Clips of data sets on the Hub: archives and Parquet files."""

from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fakes.hub.server import LocalHub
from fakes.small_hub import (
    GENRES,
    GTZAN,
    OVER_BOTH,
    dataset_card,
    listed_clips,
    pack,
    small_gtzan,
    stage,
    usable_clips,
    wav,
    write_parquet,
)
from helpers import set_params, user_error

from stages.common.tables import read_json, read_table
from stages.download.__main__ import download_dataset


@pytest.mark.slow
@OVER_BOTH
def test_archive_of_hub(gtzan: LocalHub) -> None:
    output = stage(gtzan, "stages.download", "dataset")
    assert listed_clips() == [f"{genre}.{n:05d}" for genre in ("rock", "jazz", "blues") for n in range(6)]
    assert Path("data/raw/audio/jazz/jazz.00003.wav").read_bytes() == small_gtzan()["genres/jazz/jazz.00003.wav"]
    rejected = pd.read_csv("data/raw/rejected.csv")
    assert rejected["reason"].str.startswith("hidden").sum() == 7
    assert rejected["reason"].str.startswith("broken").sum() == 1
    assert "rejected genres/jazz/jazz.00054.wav: broken" in output
    source = read_json(Path("data/raw/source.json"))
    assert source["revision"] == gtzan.repository("dataset", GTZAN).resolve("main").sha


@pytest.mark.slow
def test_revision_of_hub(gtzan: LocalHub, workspace: Path) -> None:
    first = gtzan.repository("dataset", GTZAN).resolve("main").sha
    gtzan.commit("dataset", GTZAN, {"data/genres.tar.gz": pack(small_gtzan(number=2))})
    set_params(workspace, {"download.dataset.revision": first})
    stage(gtzan, "stages.download", "dataset")
    assert len(listed_clips()) == 18
    set_params(workspace, {"download.dataset.revision": "main"})
    stage(gtzan, "stages.download", "dataset")
    assert len(listed_clips()) == 6


@pytest.mark.slow
def test_pasted_address(gtzan: LocalHub, workspace: Path) -> None:
    set_params(workspace, {"download.dataset.id": f" https://huggingface.co/datasets/{GTZAN}/tree/main/data"})
    stage(gtzan, "stages.download", "dataset")
    assert read_json(Path("data/raw/source.json"))["id"] == GTZAN


def test_blank_id(gtzan: LocalHub, workspace: Path) -> None:
    set_params(workspace, {"download.dataset.id": "  "})
    error = user_error(download_dataset)
    assert "params.yaml: download.dataset.id: '' has no id of a repo" in str(error)


@pytest.mark.slow
def test_parquet_of_hub(hub: LocalHub, workspace: Path, tmp_path: Path) -> None:
    file = write_parquet(tmp_path / "a.parquet", with_names=False)
    hub.commit("dataset", GTZAN, {"README.md": dataset_card(), "all/train-00000-of-00001.parquet": file})
    source = {"source": "hub", "id": GTZAN, "config": "all", "label_column": "genre", "max_rejected": 0.0}
    set_params(workspace, {"download.dataset": source})
    stage(hub, "stages.download", "dataset")
    assert listed_clips() == [Path(name).stem for name, _ in usable_clips()]
    clips = pd.read_csv("data/raw/clips.csv")
    assert (clips["label"] == clips["clip"].str.split(".").str[0]).all()
    assert Path("data/raw/audio/rock/rock.00001.wav").read_bytes() == small_gtzan()["genres/rock/rock.00001.wav"]
    assert not list(Path(".home").rglob("*.arrow"))


@pytest.mark.slow
def test_parquet_rows_without_label_or_audio(hub: LocalHub, workspace: Path, tmp_path: Path) -> None:
    audio: list[Any] = [{"bytes": wav(1.0, 200 + 50 * n), "path": f"c{n}.wav"} for n in range(8)]
    audio[0]["bytes"] = audio[1] = None
    labels = ["a", "a", None, "", "a", "a", "b", "b"]
    pq.write_table(pa.table({"audio": audio, "genre": labels}), tmp_path / "a.parquet")
    others = [{"bytes": wav(1.0, 900 + 50 * n), "path": f"d{n}.wav"} for n in range(2)]
    pq.write_table(pa.table({"audio": others, "genre": ["a", "b"]}), tmp_path / "b.parquet")
    hub.commit("dataset", GTZAN, {"train.parquet": tmp_path / "a.parquet", "test.parquet": tmp_path / "b.parquet"})
    source = {"source": "hub", "id": GTZAN, "label_column": "genre", "max_rejected": 0.5}
    set_params(workspace, {"download.dataset": source})
    stage(hub, "stages.download", "dataset")
    assert listed_clips() == ["c4", "c5", "c6", "c7", "d0", "d1"]
    assert read_table(Path("data/raw/published.csv"))["split"].to_list() == ["train"] * 4 + ["test"] * 2
    rejected = pd.read_csv("data/raw/rejected.csv").set_index("file")["reason"]
    assert rejected["/c2.wav"] == rejected["/c3.wav"] == "no label"
    assert set(rejected.index) == {"a/c0.wav", "a/a.00001.mp3", "/c2.wav", "/c3.wav"}


@pytest.mark.slow
def test_parquet_branch_of_hub(hub: LocalHub, workspace: Path, tmp_path: Path) -> None:
    """The Hub converts each data set to Parquet in a separate branch."""
    hub.commit("dataset", GTZAN, {"README.md": b"# GTZAN\n"})
    file = write_parquet(tmp_path / "a.parquet", with_names=True)
    hub.commit("dataset", GTZAN, {"all/train/0000.parquet": file}, branch="refs/convert/parquet")
    source = {"source": "hub", "id": GTZAN, "revision": "refs/convert/parquet", "config": None, "label_column": "genre"}
    set_params(workspace, {"download.dataset": source | {"max_rejected": 0.0}})
    stage(hub, "stages.download", "dataset")
    assert sorted(listed_clips()) == [f"{genre}.{n:05d}" for genre in GENRES for n in range(6)]
    assert read_json(Path("data/raw/source.json"))["split"] == "train"
