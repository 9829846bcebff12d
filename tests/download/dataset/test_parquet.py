from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, Features, List, Value
from fakes.small_hub import dataset_card, usable_clips, write_parquet
from helpers import user_error

from stages.common.errors import UserError
from stages.common.lfs import START
from stages.download.dataset.parquet import Row, label_names, name_row, open_data_set, read_rows, select_rows


@pytest.mark.parametrize("names_in", ["card", "file"])
def test_rows(tmp_path: Path, names_in: str) -> None:
    write_parquet(tmp_path / "all/train-00000-of-00001.parquet", with_names=names_in == "file")
    if names_in == "card":
        (tmp_path / "README.md").write_bytes(dataset_card())
    builder = open_data_set(tmp_path, "all" if names_in == "card" else None)
    expected = [(name.removeprefix("genres/"), content) for name, content in usable_clips()]
    rows = list(read_rows(builder, "audio", "genre"))
    assert [(f"{row.label}/{row.path}", row.content) for row in rows] == expected


def test_rows_without_label_or_audio(tmp_path: Path) -> None:
    audio = [{"bytes": b"RIFF", "path": "c0.wav"}, {"bytes": None, "path": "c1.wav"}, None, {"bytes": b"fLaC"}]
    pq.write_table(pa.table({"audio": audio, "genre": [None, "a", "a", "b"]}), tmp_path / "train.parquet")
    rows = list(read_rows(open_data_set(tmp_path, None), "audio", "genre"))
    paths = ["c0.wav", "c1.wav", "a.00002.mp3", "b.00003.flac"]
    contents = [b"RIFF", None, None, b"fLaC"]
    assert rows == [Row(*row, split="train") for row in zip(["", "a", "a", "b"], paths, contents)]
    candidates, ignored, rejected = select_rows(iter(rows), "refuse")
    assert [candidate.position for candidate in candidates] == [3]
    assert not ignored
    no_audio = "its row has no audio, at most the path of a file elsewhere"
    assert rejected == [("/c0.wav", "no label"), ("a/c1.wav", no_audio), ("a/a.00002.mp3", no_audio)]


LISTS = [["b"], [], None, ["c", "c"], ["b", None]]


@pytest.mark.parametrize("kind", ["text", "large", "names"])
def test_lists_of_one_label(tmp_path: Path, kind: str) -> None:
    audio = [{"bytes": b"RIFF", "path": f"{n}.wav"} for n in range(len(LISTS))]
    file = tmp_path / "train.parquet"
    if kind == "names":
        features = Features({"audio": {"bytes": Value("binary"), "path": Value("string")}})
        features["label"] = List(ClassLabel(names=["a", "b", "c"]))
        numbers = [labels and [label and "abc".index(label) for label in labels] for labels in LISTS]
        Dataset.from_dict({"audio": audio, "label": numbers}, features=features).to_parquet(file)
    else:
        of_labels = pa.list_(pa.string()) if kind == "text" else pa.large_list(pa.string())
        pq.write_table(pa.table({"audio": audio, "label": pa.array(LISTS, of_labels)}), file)
    rows = read_rows(open_data_set(tmp_path, None), "audio", "label")
    assert [row.label for row in rows] == ["b", "", "", "c", "b"]


@pytest.mark.parametrize(
    ("columns", "key", "expected"),
    [
        (("audio", "label"), "download.dataset.label_column", "no column label; the data set has audio, genre"),
        (("sound", "genre"), "download.dataset.audio_column", "no column sound; the data set has audio, genre"),
        (("genre", "genre"), "download.dataset.audio_column", "column genre has no audio: it is "),
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


@pytest.mark.parametrize(("value", "name"), [(0, "a"), (1, "b/c"), (-1, ""), (None, "")])
def test_label_names(value: Any, name: str) -> None:
    to_name = label_names(pa.schema({}), Features({"genre": ClassLabel(names=["a", "b/c"])}), "genre")
    assert to_name(value) == name


@pytest.mark.parametrize(("value", "name"), [(float("nan"), ""), (None, ""), (1.0, "1.0")])
def test_row_without_a_number_has_no_label(value: Any, name: str) -> None:
    to_name = label_names(pa.schema({}), Features({"genre": Value("float64")}), "genre")
    assert to_name(value) == name


def row(label: str, path: str) -> Row:
    return Row(label, path, b"RIFF")


def test_rows_with_one_name_are_kept_apart() -> None:
    rows = [row("a", "x/1.wav"), row("a", "y/1.wav"), row("b", "x/1.wav"), row("b", "x/1.wav")]
    candidates, _, rejected = select_rows(iter(rows), "refuse")
    assert [candidate.name for candidate in candidates] == ["x.a.1.wav", "y.a.1.wav", "x.b.1.wav", "x.b.1.2.wav"]
    assert not rejected


def test_two_labels_with_one_folder_are_refused() -> None:
    error = user_error(lambda: select_rows(iter([row("a/b", "1.wav"), row("a-b", "2.wav")]), "keep"))
    assert error.key == "download.dataset.label_column"
    assert "'a/b' and 'a-b' would have one folder" in str(error)
    (candidate,), _, _ = select_rows(iter([row("a/b", "1.wav")]), "refuse")
    assert candidate.label == "a-b"


@pytest.mark.parametrize(
    ("label", "path", "reason"),
    [
        (" ", "1.wav", "no label"),
        ("..", "1.wav", "begins with a dot"),
        (".NET", "1.wav", "begins with a dot"),
        ("a", ".1.wav", "begins with a dot"),
        ("a\n", "1.wav", "control character"),
        ("a", "1.m4a", "soundfile cannot decode it"),
        ("a" * 300, "1.wav", "name too long: 300 bytes"),
    ],
)
def test_rejected_rows(label: str, path: str, reason: str) -> None:
    candidates, ignored, ((_, found),) = select_rows(iter([row(label, path)]), "refuse")
    assert not candidates + ignored
    assert reason in found


@pytest.mark.parametrize(
    ("clip", "path"),
    [
        ({"path": "x/1.WAV", "bytes": b"RIFF"}, "x/1.WAV"),
        ({"path": "/x/../1", "bytes": b"RIFF"}, "x/../1.wav"),
        ({"path": "1.5", "bytes": b"fLaC"}, "1.5.flac"),
        ({"path": "1.m4a", "bytes": b""}, "1.m4a"),
        ({"path": None, "bytes": b"OggS"}, "a-b.00007.ogg"),
        ({"path": "", "bytes": b"?"}, "a-b.00007.mp3"),
    ],
)
def test_name_row(clip: dict[str, Any], path: str) -> None:
    assert name_row(clip, "a/b", 7) == path


@pytest.mark.parametrize(
    ("audio", "labels", "key", "fact"),
    [
        ([{"array": [0.1], "sampling_rate": 8}], ["a"], "audio_column", "has no audio: it is struct"),
        ([{"bytes": "text", "path": "x"}], ["a"], "audio_column", "has no audio: it is struct"),
        ([{"bytes": b"x", "path": 3}], ["a"], "audio_column", "has paths that are int64, not text"),
        ([b"RIFF"], ["a"], "audio_column", "has no audio: it is binary"),
        ([{"bytes": b"x", "path": "x"}], [["a", "b"]], "label_column", "x has 2 labels (a, b); "),
        ([{"bytes": b"x"}], [["a", "b"]], "label_column", "row 0 has 2 labels (a, b); "),
        ([{"bytes": b"x", "path": "x"}], [[["a"]]], "label_column", "is list<"),
        ([{"bytes": b"x", "path": "x"}], [[b"a"]], "label_column", "is list<"),
        ([{"bytes": b"x", "path": "x"}], [b"a"], "label_column", "is binary"),
    ],
)
def test_columns_of_another_type(tmp_path: Path, audio: list[Any], labels: list[Any], key: str, fact: str) -> None:
    pq.write_table(pa.table({"audio": audio, "label": labels}), tmp_path / "train.parquet")
    builder = open_data_set(tmp_path, None)
    error = user_error(lambda: list(read_rows(builder, "audio", "label")))
    assert error.key == f"download.dataset.{key}"
    assert fact in str(error)


@pytest.mark.slow
def test_damaged_file(tmp_path: Path) -> None:
    file = write_parquet(tmp_path / "train.parquet", with_names=True)
    builder, content = open_data_set(tmp_path, None), file.read_bytes()
    rows = list(read_rows(builder, "audio", "genre"))
    damaged = [content[: len(content) * n // 7] for n in range(7)]
    positions = [*range(0, len(content), len(content) // 40), *range(len(content) - 800, len(content), 9)]
    damaged += [content[:n] + bytes([content[n] ^ 16]) + content[n + 1 :] for n in positions]
    damaged += [b"<html>", START + b"\noid"]
    refused = 0
    for content in damaged:
        file.write_bytes(content)
        try:
            assert len(list(read_rows(builder, "audio", "genre"))) == len(rows)
        except UserError as error:
            refused += 1
            assert "\n" not in str(error)  # noqa: PT017
    assert refused > 30
