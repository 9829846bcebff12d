from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Features
from fakes.small_hub import dataset_card, usable_clips, write_parquet
from helpers import user_error

from stages.download.dataset.parquet import label_names, open_data_set, read_rows


@pytest.mark.parametrize("names_in", ["card", "file"])
def test_rows(tmp_path: Path, names_in: str) -> None:
    write_parquet(tmp_path / "all/train-00000-of-00001.parquet", with_names=names_in == "file")
    if names_in == "card":
        (tmp_path / "README.md").write_bytes(dataset_card())
    builder = open_data_set(tmp_path, "all" if names_in == "card" else None)
    expected = [(name.removeprefix("genres/"), content) for name, content in usable_clips()]
    assert list(read_rows(builder, "audio", "genre")) == expected


def test_rows_without_label_or_audio(tmp_path: Path) -> None:
    audio = [{"bytes": b"RIFF", "path": "c0.wav"}, {"bytes": None, "path": "c1.wav"}, None, {"bytes": b"fLaC"}]
    pq.write_table(pa.table({"audio": audio, "genre": [None, "a", "a", "b"]}), tmp_path / "train.parquet")
    rows = list(read_rows(open_data_set(tmp_path, None), "audio", "genre"))
    assert rows == [("/c0.wav", b"RIFF"), ("a/c1.wav", b""), ("a/a.00002.mp3", b""), ("b/b.00003.flac", b"fLaC")]


@pytest.mark.parametrize(
    ("columns", "key", "expected"),
    [
        (("audio", "label"), "download.dataset.label_column", "no column label; the data set has audio, genre"),
        (("sound", "genre"), "download.dataset.audio_column", "no column sound; the data set has audio, genre"),
        (("genre", "genre"), "download.dataset.audio_column", "column genre has no audio"),
    ],
)
def test_invalid_column(tmp_path: Path, columns: tuple[str, str], key: str, expected: str) -> None:
    write_parquet(tmp_path / "train.parquet", with_names=True)
    builder = open_data_set(tmp_path, None)
    error = user_error(lambda: list(read_rows(builder, *columns)))
    assert error.key == key
    assert expected in str(error)


def test_unknown_configuration(tmp_path: Path) -> None:
    write_parquet(tmp_path / "all/train-00000-of-00001.parquet", with_names=False)
    (tmp_path / "README.md").write_bytes(dataset_card())
    assert user_error(lambda: open_data_set(tmp_path, "some")).key == "download.dataset.config"


@pytest.mark.parametrize(("value", "name"), [(0, "a"), (1, "b-c"), (-1, ""), (None, "")])
def test_label_names(value: Any, name: str) -> None:
    to_name = label_names(pa.schema({}), Features({"genre": ClassLabel(names=["a", "b/c"])}), "genre")
    assert to_name(value) == name
