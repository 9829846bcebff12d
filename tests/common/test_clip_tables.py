from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from helpers import user_error
from hypothesis import given
from hypothesis import strategies as st

from stages.common.clip_tables import match_names, match_table, read_clip_table
from stages.common.lfs import START

PLAIN = "clip,artist\na,x\nb,y\n"
WRITERS: dict[str, Callable[[str], bytes]] = {
    "plain": lambda text: text.encode(),
    "bom": lambda text: text.encode("utf-8-sig"),
    "utf-16": lambda text: text.encode("utf-16"),
    "utf-16-be": lambda text: ("\ufeff" + text).encode("utf-16-be"),
    "crlf": lambda text: text.replace("\n", "\r\n").encode(),
    "cr": lambda text: text.replace("\n", "\r").encode(),
    "semicolons": lambda text: text.replace(",", ";").encode(),
    "tabs": lambda text: text.replace(",", "\t").encode(),
    "excel": lambda text: ("sep=;\n" + text).replace(",", ";").encode(),
    "unicode-text": lambda text: text.replace(",", "\t").replace("\n", "\r\n").encode("utf-16"),
    "header": lambda text: text.replace("clip,artist", " Clip , ARTIST ").encode(),
    "quotes": lambda text: text.replace("clip", '"clip"').replace("a,x", '"a","x"').encode(),
    "spaces": lambda text: text.replace("a,x", " a , x\u00a0").encode(),
    "empty-lines": lambda text: ("\n" + text + "\n\n ,\n,\n").encode(),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_table_of_any_program(tmp_path: Path, writer: str) -> None:
    (tmp_path / "x.csv").write_bytes(WRITERS[writer](PLAIN))
    table = read_clip_table("split.groups.artist", str(tmp_path / "x.csv"), ["clip", "artist"])
    assert dict(table) == {"a": "x", "b": "y"}


@pytest.mark.parametrize(
    ("text", "cells"),
    [
        ("artist,clip,n\nx,a,1\ny,b,2\n", {"a": "x", "b": "y"}),
        ("clip,artist,,\na,x,,\nb,y,,\n", {"a": "x", "b": "y"}),
        ("clip,artist\na,x,\nb,y,\n", {"a": "x", "b": "y"}),
        ('clip,artist\na,"x, and y"\nb\n', {"a": "x, and y"}),
        ("clip,artist,Artist\n001,NA,z\n", {"001": "NA"}),
    ],
)
def test_columns(tmp_path: Path, text: str, cells: dict[str, str]) -> None:
    (tmp_path / "x.csv").write_text(text)
    assert dict(read_clip_table("k", str(tmp_path / "x.csv"), ["clip", "artist"]).dropna()) == cells


@pytest.mark.parametrize(
    ("content", "fact"),
    [
        ("clip,split\ncafé,train\n".encode("latin-1"), "is not UTF-8; save it as UTF-8"),
        (b"name,split\na,train\n", "needs the columns clip and split"),
        (b"", "needs the columns clip and split"),
        (b'clip,split\na,"train\n', "line 2: unexpected end of data"),
        (b"PK\3\4\0\0", "is a workbook, not a CSV file"),
        (START + b"\noid", "is a Git LFS pointer"),
        (b"clip,split\na.00000,train\na.00000,test\n", "clip a.00000 is listed twice"),
    ],
)
def test_invalid_table_is_named(tmp_path: Path, content: bytes, fact: str) -> None:
    (tmp_path / "mine.csv").write_bytes(content)
    error = user_error(lambda: read_clip_table("split.published", str(tmp_path / "mine.csv"), ["clip", "split"]))
    assert error.key == "split.published" or error.file
    assert fact in str(error)
    assert "mine.csv" in str(error)


@pytest.mark.parametrize(("path", "fact"), [("nowhere.csv", "no file"), (".", "Is a directory"), ("", "is empty")])
def test_missing_table(path: str, fact: str) -> None:
    error = user_error(lambda: read_clip_table("split.published", path, ["clip", "split"]))
    assert error.key == "split.published"
    assert fact in str(error)


@pytest.mark.parametrize(
    ("name", "clip"),
    [
        ("rock.1", "rock.1"),
        ("rock.1.wav", "rock.1"),
        ("ROCK.1.WAV", "rock.1"),
        ("*rock.1.wav", "rock.1"),
        ("./rock.1.wav", "rock.1"),
        ("rock/rock.1.flac", "rock.1"),
        ("C:\\mine\\Rock\\rock.1.flac", "rock.1"),
        ("rock/1.wav", "rock.1"),
        ("/data/Actor_01/rock/1.wav", "rock.1"),
        ("cafe\u0301", "caf\u00e9"),
        ("7", "007"),
        ("007.wav", "007"),
        ("1", None),
        ("x.wav", "x.wav"),
        ("jazz/x.flac", "x.flac"),
        ("jazz/rock.1.wav", None),
        ("1.wav", None),
        ("twice", None),
        ("rock.1.txt", None),
    ],
)
def test_clip_in_another_form(name: str, clip: str | None) -> None:
    labels = dict.fromkeys(["rock.1", "caf\u00e9", "007", "01", "001"], "rock")
    labels |= dict.fromkeys(["x.wav", "x.flac", "Twice", "TWICE"], "jazz")
    assert match_names([name], labels) == ({name: clip} if clip else {})


def test_exact_match_comes_first() -> None:
    assert match_names(["A", "a", "a.wav"], {"a": "x"}) == {"a": "a"}


@pytest.mark.slow
@given(st.lists(st.text(min_size=1), unique=True))
def test_each_clip_matches_itself(names: list[str]) -> None:
    assert match_names(names, dict.fromkeys(names, "a")) == {name: name for name in names}


def test_missing_clips_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    table = pd.Series({"a.wav": "x", "z": "y"}, name="artist")
    matched = match_table(table, {"a": "l", "b": "l", "c": "l"}, "mine.csv")
    assert matched.cells.fillna("").to_dict() == {"a": "x", "b": "", "c": ""}
    assert matched.others == ["z"]
    assert capsys.readouterr().out == "mine.csv: no artist for 2 of 3 clips (first: b)\n"


def test_clip_in_two_forms_is_refused() -> None:
    table = pd.Series({"A.wav": "x", "a.flac": "y"}, name="artist")
    assert "clip a is listed twice, as A.wav and a.flac" in str(user_error(lambda: match_table(table, {"a": "l"}, "t")))
