"""Labels by tables and by folders of splits. The files are empty: only their paths are read."""

import json
import time
from pathlib import Path

import pandas as pd
import pytest
from download.dataset.labelled_folders import find, write
from helpers import user_error

from stages.download.dataset.folders import list_files
from stages.download.dataset.label_tables import Columns, Files
from stages.download.dataset.labelling import require_labels


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
    assert "files from the column filename, labels from the column category" in capsys.readouterr().out
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


@pytest.mark.slow
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
