"""Tables with lists of labels, with a column for each label, or with faults. The files are empty."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from download.dataset.labelled_folders import ANY, KINDS, fetch, find, write, write_rows
from helpers import user_error

from stages.download.dataset.label_tables import Columns


@pytest.mark.parametrize(
    ("rows", "named"),
    [
        ("1.wav,a\n1.wav,b\n2.wav,a\n", "2 labels (a, b)"),
        ("1.wav,a\n1.wav,\n2.wav,a\n", "2 labels (a, '')"),
        ("1.wav,a|b\n2.wav,c\n", "2 labels (a, b)"),
        ("1.wav,\"['a', 'b']\"\n2.wav,c\n", "2 labels (a, b)"),
        ('1.wav,"a, b"\n2.wav,b\n', "2 labels (a, b)"),
    ],
)
def test_several_labels_are_refused(root: Path, rows: str, named: str) -> None:
    write(root, "1.wav 2.wav", t=f"file,label\n{rows}")
    error = user_error(lambda: find(root, "t.csv"))
    assert error.file == "t.csv"
    assert error.message.startswith(f"1.wav has {named}; ")


@pytest.mark.parametrize("name", KINDS)
def test_list_with_one_label(root: Path, name: str) -> None:
    labels = {"a.wav": ["low"], "b.wav": ["children, playing"], "c.wav": ["low", "low"], "d.wav": []}
    write_rows(root, name, [{"file_name": file, "labels": cell} for file, cell in labels.items()])
    found = find(root)
    assert found.labels == {"a.wav": "low", "b.wav": "children, playing", "c.wav": "low"}
    assert found.rejected == [("d.wav", f"no label in {name}")]


@pytest.mark.parametrize("name", KINDS)
def test_list_with_several_labels(root: Path, name: str) -> None:
    labels = {"a.wav": ["low"], "b.wav": ["low", "high"], "c.wav": ["low", "mid"]}
    write_rows(root, name, [{"file_name": file, "labels": cell} for file, cell in labels.items()])
    error = fetch(root)
    assert error.file == name
    assert error.message.startswith("b.wav has 2 labels (low, high); ")


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("values", [(0, 1), (False, True), (0.0, 1.0)])
def test_column_for_each_label(
    root: Path, name: str, values: tuple[Any, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    labels = ("low", "mid", "high")
    rows = [{"file_name": f"{one}.wav"} | {label: values[label == one] for label in labels} for one in labels]
    write_rows(root, name, rows)
    for error in (fetch(root), fetch(root, table=name)):
        assert error.file == name
        assert "a column for each label (low, mid, high)" in error.message
    assert "is not used" not in capsys.readouterr().out


def test_other_columns_beside_those_for_each_label(root: Path) -> None:
    rows = [{"file_name": f"{n}.wav", "seconds": n, "angry": n % 2, "happy": 1 - n % 2} for n in range(4)]
    write_rows(root, "metadata.csv", rows)
    assert "a column for each label (angry, happy)" in fetch(root).message
    rows = [{**row, "angry": 1, "happy": 1} for row in rows]
    write_rows(root, "metadata.csv", rows)
    assert fetch(root).message.endswith("to one of: seconds, angry, happy")


@pytest.mark.parametrize(
    ("header", "rows", "message"),
    [
        ("sick,speaker", ["0,x", "1,y"], "label_column to one of: sick, speaker"),
        ("sick,notes", ["0,", "1,"], "label_column to one of: sick"),
        ("sick,notes", ["no,nan", "yes,None"], "label_column to one of: sick, notes"),
        ("sick,well,notes", ["no,yes,", "yes,no,"], "for each label (sick, well); replace them by one column, "),
        ("sick,well,notes", ["0,1,", "1,1,"], "for each label (sick, well); replace them by one column, "),
        ("sick,well,mood", ["0,1,x", "1,0,y"], "name, or set download.dataset.label_column to one of: mood"),
    ],
)
def test_possible_columns_of_labels(root: Path, header: str, rows: list[str], message: str) -> None:
    lines = [f"file_name,{header}", *(f"{n}.wav,{row}" for n, row in enumerate(rows))]
    write(root, "0.wav 1.wav", metadata="\n".join(lines))
    error = fetch(root).message
    assert message in error
    assert error.endswith(message) or message.endswith(", ")


def test_unusable_metadata_in_folders_of_splits(root: Path) -> None:
    for split in ("train", "test"):
        (root / split).mkdir()
        rows = [{"file_name": f"{n}.wav", "low": n, "high": 1 - n} for n in range(2)]
        write_rows(root / split, "metadata.csv", rows)
    error = fetch(root)
    assert str(error.file).endswith("metadata.csv")
    assert "a column for each label (low, high)" in error.message


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (b'file_name,label\n0.wav,"a\n', "metadata.csv"),
        (b"file_name,label\n0.wav,\xe9\n", "is not UTF-8"),
        (b"file_name,low,high\n0.wav,1,0\n1.wav,0,1\n2.wav,1,0\n", "a column for each label (low, high)"),
        (b"file_name,kind\n0.wav,a\n1.wav,b\n2.wav,a\n", "label_column to one of: kind"),
    ],
)
def test_fault_in_one_of_several_tables(root: Path, table: bytes, message: str) -> None:
    for split in ("train", "test"):
        (root / split).mkdir()
        write_rows(root / split, "metadata.csv", [{"file_name": f"{n}.wav", "label": "ab"[n % 2]} for n in range(3)])
    (root / "train/metadata.csv").write_bytes(table)
    error = fetch(root)
    assert "train/metadata.csv" in str(error)
    assert message in str(error)


def test_other_files_need_no_table(root: Path) -> None:
    write(root, "test/0.wav", train__metadata="file_name,label\n0.wav,a\n1.wav,b\n")
    write(root, "train/0.wav train/1.wav")
    assert find(root).ignored == [("test/0.wav", "not in train/metadata.csv")]


def test_mapping_instead_of_a_label(root: Path) -> None:
    write_rows(root, "metadata.jsonl", [{"file_name": f"{n}.wav", "label": {"id": n, "name": "x"}} for n in range(2)])
    error = fetch(root)
    assert error.file == "metadata.jsonl"
    assert "0.wav has a mapping, not a label" in error.message


def test_choice_of_label_columns(root: Path) -> None:
    names = [f"n{i}" for i in range(12)]
    rows = [{"": i, "file_name": f"{i}.wav", "split": "train"} | dict.fromkeys(names, f"x{i}") for i in range(2)]
    write_rows(root, "metadata.csv", rows)
    error = fetch(root)
    assert error.key == "download.dataset.label_column"
    assert error.message.endswith(f"set download.dataset.label_column to one of: {', '.join(names[:10])}, ...")


def test_other_table_comes_before_unusable_metadata(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(root, "1.wav 2.wav", metadata="file_name,text\n1.wav,x\n2.wav,y\n", t="file,label\n1.wav,a\n2.wav,b\n")
    error = fetch(root)
    assert error.key == "download.dataset.table"
    assert error.message.endswith("write table: t.csv")
    assert "metadata.csv is not used" in capsys.readouterr().out


@pytest.mark.parametrize("table", ["meta/t.csv", "./meta/t.csv", "{root}/meta/t.csv", "{root}/link/t.csv"])
def test_table_in_use(root: Path, table: str) -> None:
    write(root, "1.wav 2.wav other/t.csv", meta__t="file,label\n1.wav,a\n2.wav,b\n", metadata="x,y\n1,2\n")
    (root.parent / "link").symlink_to(root / "meta")
    assert find(root, table.format(root=root).replace("clips/link", "link")).used == ["meta/t.csv"]


def test_table_outside_of_the_folder(root: Path) -> None:
    write(root, "1.wav 2.wav t.csv")
    (root.parent / "t.csv").write_text("file,label\n1.wav,a\n2.wav,b\n")
    assert find(root, str(root.parent / "t.csv")).used == []


def test_dot_at_the_end_of_the_folder_of_a_table(root: Path) -> None:
    write(root, "Vol.1./1.wav Vol.1./2.wav audio/1.wav")
    (root / "Vol.1./t.csv").write_text("file,label\n1.wav,a\n2.wav,b\n")
    assert find(root, "Vol.1./t.csv").labels == {"Vol.1./1.wav": "a", "Vol.1./2.wav": "b"}


def test_spaces_and_byte_order_mark_of_json_lines(root: Path) -> None:
    labels = {"1.wav": "a", "2.wav": "a ", "3.wav": " "}
    lines = [json.dumps({"file_name": name, "label": label}) for name, label in labels.items()]
    write(root, " ".join(labels))
    (root / "metadata.jsonl").write_text("\n".join(lines), encoding="utf-8-sig")
    found = find(root)
    assert found.labels == {"1.wav": "a", "2.wav": "a"}
    assert found.rejected == [("3.wav", "no label in metadata.jsonl")]


@pytest.mark.parametrize(
    ("unit", "zone", "value"), [("s", None, 2**50), ("us", None, -(2**62)), ("s", "UTC", 2**40), ("us", "Mars/Base", 0)]
)
def test_times_that_python_cannot_read(root: Path, unit: str, zone: str | None, value: int) -> None:
    write(root, "1.wav")
    when = pa.array([value], pa.timestamp(unit, zone))
    pq.write_table(pa.table({"file_name": ["1.wav"], "label": ["a"], "when": when}), root / "metadata.parquet")
    assert "metadata.parquet has no rows of names and values" in fetch(root).message


@pytest.mark.parametrize("label", [b"a", [b"a"]])
def test_binary_labels(root: Path, label: Any) -> None:
    write(root, "1.wav")
    pq.write_table(pa.table({"file_name": ["1.wav"], "label": [label]}), root / "metadata.parquet")
    error = fetch(root)
    assert error.key == "download.dataset.label_column"
    assert "column label of metadata.parquet is binary" in error.message
    pq.write_table(pa.table({"file_name": ["1.wav"], "label": ["a"], "cover": [label]}), root / "metadata.parquet")
    assert find(root).labels == {"1.wav": "a"}


@pytest.mark.parametrize(
    ("table", "columns", "key", "message"),
    [
        ("file,label\n9.wav,a\n", ANY, "file_column", "no column of t.csv has names of the clips"),
        ("file,mood\n1.wav,a\n", ANY, "label_column", "label_column to one of: mood"),
        ("file,split\n1.wav,train\n", ANY, None, "no column of labels"),
        ("file,mood\n1.wav,a\n", Columns("x", None, None), "file_column", "no column x in t.csv"),
        ("file,label,fold\n1.wav,a,1\n", Columns(None, None, "fold"), "split_column", "for folds, see"),
        ("file,label\n1.wav,a/b\n2.wav,a-b\n", ANY, "label_column", "would have one folder"),
        ("file\n1.wav\n", ANY, "table", "no rows with a file and a label"),
        ("file,label\n1.wav,\xe9\n", ANY, "table", "is not UTF-8"),
    ],
)
def test_unusable_tables(root: Path, table: str, columns: Columns, key: str | None, message: str) -> None:
    write(root, "1.wav 2.wav")
    (root / "t.csv").write_bytes(table.encode("latin-1"))
    error = user_error(lambda: find(root, "t.csv", columns))
    assert error.key == (key and f"download.dataset.{key}")
    assert message in str(error)
