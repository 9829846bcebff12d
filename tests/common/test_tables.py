import csv
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
from helpers import names
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.common.tables import quote_formula, read_table, unquote_formula, write_table

NAMES = ["=1+1", "+x", "-1", "@x", "'=x", "''+", "'x", "\tx", "\rx", "a\rb", "a\nb", " x ", 'a,"b"', "NA", "", "001"]


def read_as_spreadsheet(file: Path) -> list[list[str]]:
    """Return the rows of a CSV file, with its header, as any other program reads them."""
    with file.open(newline="", encoding="utf-8") as content:
        return list(csv.reader(content))


def test_no_cell_is_a_formula(tmp_path: Path) -> None:
    table = pd.DataFrame({"clip": NAMES, "=label": NAMES[::-1]}).assign(number=-1.5)
    write_table(tmp_path / "t.csv", table)
    rows = read_as_spreadsheet(tmp_path / "t.csv")
    assert rows[0] == ["clip", "'=label", "number"]
    assert [row[0] for row in rows[1:7]] == ["'=1+1", "'+x", "'-1", "'@x", "''=x", "'''+"]
    assert all(not cell or cell[0] not in "=+-@\t\r" for row in rows for cell in row[:2])
    assert {row[2] for row in rows[1:]} == {"-1.5"}
    assert read_table(tmp_path / "t.csv").drop(columns="number").equals(table.drop(columns="number"))


def test_metadata_keeps_names(tmp_path: Path) -> None:
    """🤗 Datasets reads it, and knows no apostrophes."""
    write_table(tmp_path / "metadata.csv", pd.DataFrame({"file_name": ["audio/=x/a.wav"], "label": ["=x"]}))
    assert read_as_spreadsheet(tmp_path / "metadata.csv")[1] == ["audio/=x/a.wav", "=x"]


def test_plain_names_are_not_quoted(tmp_path: Path) -> None:
    write_table(tmp_path / "t.csv", pd.DataFrame({"clip": ["a", "b's"], "label": ["hip-hop", "R&B"], "x": [1, 0.5]}))
    assert (tmp_path / "t.csv").read_bytes() == b"clip,label,x\na,hip-hop,1.0\nb's,R&B,0.5\n"


@settings(deadline=None, max_examples=20)
@given(st.lists(names(), min_size=1, max_size=10, unique=True))
def test_names_come_back(some: list[str]) -> None:
    """They are cells and columns."""
    assert [unquote_formula(quote_formula(name)) for name in some] == some
    table = pd.DataFrame({"clip": some} | {f"{name}{i}": some[::-1] for i, name in enumerate(some)})
    with TemporaryDirectory() as folder:
        write_table(Path(folder) / "t.csv", table)
        pd.testing.assert_frame_equal(read_table(Path(folder) / "t.csv"), table)
