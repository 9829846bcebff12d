"""Labels by tables and by folders of splits. The files are empty: only their paths are read."""

import json
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import user_error

from stages.common.errors import UserError
from stages.download.dataset.folder_clips import FolderClips
from stages.download.dataset.folders import list_files
from stages.download.dataset.label_tables import Columns, Files
from stages.download.dataset.labelling import Labelling, find_labels, require_labels

ANY = Columns(None, None, None)
KINDS = ["metadata.csv", "metadata.jsonl", "metadata.parquet"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "clips").mkdir()
    return tmp_path / "clips"


def write(root: Path, files: str, **tables: str) -> None:
    """Make empty files, and tables: <folder>_<name> -> text; `__` stands for a slash."""
    for name in files.split():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    for name, text in tables.items():
        file = root / f"{name.replace('__', '/')}.csv"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


def write_rows(root: Path, name: str, rows: list[dict[str, Any]]) -> None:
    """Write a table of any kind, and the empty files that it names."""
    write(root, " ".join(row["file_name"] for row in rows))
    table, file = pd.DataFrame(rows), root / name
    if file.suffix == ".csv":
        table.to_csv(file, index=False)
    elif file.suffix == ".jsonl":
        table.to_json(file, orient="records", lines=True)
    else:
        table.to_parquet(file)


def fetch(root: Path, **params: Any) -> UserError:
    """Return the error of the source for a folder."""
    source = FolderClips(source="folder", path=str(root), **params)
    return user_error(lambda: source.fetch(root.parent / "out"))


def find(root: Path, table: str | None = None, columns: Columns = ANY) -> Labelling:
    return find_labels(root, list_files(root).files, table, columns)


def test_table_like_that_of_esc50(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = "1-1-A-0.wav,1,0,dog\n1-2-A-1.wav,1,1,None\n2-3-A-0.wav,2,0,NA\n"
    write(
        root,
        "audio/1-1-A-0.wav audio/1-2-A-1.wav audio/2-3-A-0.wav",
        meta__esc50=f"filename,fold,target,category\n{rows}",
    )
    found = find(root, "meta/esc50.csv")
    assert found.labels == {"audio/1-1-A-0.wav": "dog", "audio/1-2-A-1.wav": "None", "audio/2-3-A-0.wav": "NA"}
    assert not found.splits
    assert "file filename, label category" in capsys.readouterr().out
    assert set(find(root, "meta/esc50.csv", Columns(None, "target", None)).labels.values()) == {"0", "1"}


def test_table_like_that_of_urbansound(root: Path) -> None:
    table = "slice_file_name,fsID,fold,classID,class\n100.wav,7,1,3,dog_bark\n101.wav,8,2,2,children, playing\n"
    write(
        root,
        "audio/fold1/100.wav audio/fold2/101.wav",
        metadata__u=table.replace("children, playing", '"children, playing"'),
    )
    labels = {"audio/fold1/100.wav": "dog_bark", "audio/fold2/101.wav": "children, playing"}
    assert find(root, str(root / "metadata/u.csv")).labels == labels


def test_metadata_of_audiofolder_is_found(root: Path) -> None:
    write(root, "train/a.wav train/b/c.wav test/a.wav README.md")
    lines = [{"file_name": name, "label": name[0]} for name in ("a.wav", "b/c.wav")]
    (root / "train/metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    pd.DataFrame({"file_name": ["a.wav"], "label": ["z"]}).to_parquet(root / "test/metadata.parquet")
    found = find(root)
    assert found.labels == {"train/a.wav": "a", "train/b/c.wav": "b", "test/a.wav": "z"}
    assert found.splits == {"train/a.wav": "train", "train/b/c.wav": "train", "test/a.wav": "test"}
    assert set(found.used) == {"train/metadata.jsonl", "test/metadata.parquet"}


@pytest.mark.parametrize("table", ["file_name,transcription\na/1.wav,hello\nb/2.wav,hello\n", "", "note\nx\n"])
def test_metadata_without_labels_leaves_the_folders(root: Path, table: str, capsys: pytest.CaptureFixture[str]) -> None:
    write(root, "a/1.wav b/2.wav", metadata=table)
    assert find(root).labels is None
    assert "metadata.csv is not used for the labels" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        ("file_name,tags\na/1.wav,x\nb/2.wav,y\n", "lacks the columns file_name and label"),
        ("path,label\na/1.wav,x\nb/2.wav,y\n", "lacks the columns file_name and label"),
        ("file_name,label\na/1.wav,x\n", "b/2.wav: not in metadata.csv"),
        ("file_name,label\na/1.wav,x\nb/2.wav,y\nb/3.wav,y\n", "b/3.wav: in metadata.csv, but not in the folder"),
        ("file_name,label\na/1.wav,rock|live\nb/2.wav,y\n", "a/1.wav has 2 labels (rock, live)"),
    ],
)
def test_folders_come_before_a_table_that_is_found(
    root: Path, table: str, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write(root, "a/1.wav b/2.wav", metadata=table)
    found = find(root)
    assert (found.labels, found.ignored, found.rejected, found.used) == (None, [], [], [])
    output = capsys.readouterr().out
    assert "metadata.csv: not used, the folders are the labels" in output
    assert reason in output
    assert "download.dataset.table: metadata.csv uses it" in output


def test_complete_metadata_comes_before_folders(root: Path) -> None:
    write(root, "a/1.wav b/2.wav", metadata="file_name,labels,note\na/1.wav,x,\nb/2.wav,y,\n")
    assert find(root).labels == {"a/1.wav": "x", "b/2.wav": "y"}
    write(root, "", metadata="file_name,tags\na/1.wav,x\nb/2.wav,y\n")
    for named in (find(root, "metadata.csv"), find(root, columns=Columns(None, "tags", None))):
        assert named.labels == {"a/1.wav": "x", "b/2.wav": "y"}


def test_columns_without_a_table(root: Path) -> None:
    write(root, "a/1.wav b/2.wav")
    error = user_error(lambda: find(root, columns=Columns(None, "genre", "split")))
    assert error.key == "download.dataset.label_column"
    assert "no table was found" in str(error)


@pytest.mark.parametrize(
    "cell", ["x/1.wav", "x\\1.wav", "./x/1.wav", "1.wav", "1", "clips/x/1.wav", "X/1.WAV", "{root}/x/1.wav"]
)
def test_forms_of_a_name(root: Path, cell: str) -> None:
    write(root, "x/1.wav x/2.wav", t=f"file;label;note\n{cell.format(root=root)};a;x\nx/2.wav;b;x\n")
    assert find(root, "t.csv").labels == {"x/1.wav": "a", "x/2.wav": "b"}


@pytest.mark.parametrize(
    "cell", ["../1.wav", "/etc/1.wav", "C:\\x\\1.wav", "y/1.wav", "3.wav", "../../clips2/x/1.wav", ".."]
)
def test_files_outside_are_rejected(root: Path, cell: str) -> None:
    write(root.parent, "1.wav clips2/x/1.wav")
    write(root, "x/1.wav x/2.wav", t=f"file\tlabel\n{cell}\ta\nx/2.wav\tb\n")
    found = find(root, "t.csv")
    assert found.rejected == [(cell, "in t.csv, but not in the folder")]
    assert found.ignored == [("x/1.wav", "not in t.csv")]
    assert found.lost == {cell: "a"}


def test_name_of_two_files(root: Path) -> None:
    write(root, "x/1.wav y/1.wav y/2.wav", t="file,label\n1.wav,a\ny/2.wav,b\n")
    assert find(root, "t.csv").rejected == [("1.wav", "in t.csv, it means x/1.wav or y/1.wav; write its folder")]
    write(root, "1.wav")
    assert find(root, "t.csv").labels == {"1.wav": "a", "y/2.wav": "b"}


def test_many_files_of_one_name(root: Path) -> None:
    paths = [f"{number}/wav/audio.wav" for number in range(3000)]
    files = Files(root, [*paths, *(f"b/{path}" for path in paths[1:])])
    start = time.monotonic()
    for path in paths[1:]:
        assert files.find(path, "") == files.find(f"../{path}", "meta") == files.find(f"{root}/{path}", "") == [path]
        assert files.find(path.upper(), "") == [path]
        assert files.find(path, "meta") == [path, f"b/{path}"]
        assert len(files.find("audio", "")) == 5999
    assert files.find("clips/0/wav/audio", "meta") == paths[:1]
    assert files.find("a/" * 3000 + "audio.wav", "") == []
    assert time.monotonic() - start < 5


def test_repeated_row_and_empty_label(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(root, "1.wav 2.wav 3.wav", t="file,label\n1.wav,a\n1.wav,a\n2.wav,b\n3.wav,\n,\n")
    found = find(root, "t.csv")
    assert found.labels == {"1.wav": "a", "2.wav": "b"}
    assert found.rejected == [("3.wav", "no label in t.csv")]
    assert not found.ignored
    assert "1 rows repeat another" in capsys.readouterr().out


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


def test_split_column(root: Path) -> None:
    write(root, "1.wav 2.wav 3.wav", t="path,label,split\n1.wav,a,Train\n2.wav,b,dev\n3.wav,b,\n")
    assert find(root, "t.csv").splits == {"1.wav": "train", "2.wav": "validation"}


def test_folders_of_splits(root: Path) -> None:
    write(root, "train/a/1.wav valid/a/2.wav test/b/1.wav other/b/1.wav ._x.wav")
    found = find(root)
    assert found.labels == {"train/a/1.wav": "a", "valid/a/2.wav": "a", "test/b/1.wav": "b"}
    assert found.splits == {"train/a/1.wav": "train", "valid/a/2.wav": "validation", "test/b/1.wav": "test"}
    assert found.rejected == [("other/b/1.wav", "not at <split>/<label>/<file>")]


def test_vehicles_are_labels(root: Path) -> None:
    write(root, "train/1.wav car/1.wav")
    found = find(root)
    assert found.labels is None
    require_labels(["car", "train"], list_files(root).files, {})


def test_lists_like_those_of_speech_commands(root: Path) -> None:
    write(root, "yes/1.wav yes/2.wav no/1.wav")
    (root / "testing_list.txt").write_text("yes/2.wav\nno/9.wav\n")
    found = find(root)
    assert found.labels is None
    assert found.used == ["testing_list.txt"]
    assert {path: found.splits[path] for path in ("yes/1.wav", "yes/2.wav", "no/1.wav")} == {
        "yes/1.wav": "train",
        "yes/2.wav": "test",
        "no/1.wav": "train",
    }


def test_hints_for_folders_that_are_no_labels() -> None:
    assert "look like splits" in str(user_error(lambda: require_labels(["test", "train"], [], {})))
    error = user_error(lambda: require_labels(["audio"], ["audio/1.wav", "meta/esc50.csv"], {}))
    assert "write table: meta/esc50.csv" in str(error)
