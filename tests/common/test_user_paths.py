from pathlib import Path

import pytest
from helpers import user_error

from stages.common.user_paths import expand_path


def test_home_is_expanded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert expand_path("~/clips", "k") == tmp_path / "clips"
    assert expand_path("a/b", "k") == Path("a/b")


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        ("", "is empty"),
        (" ", "is empty"),
        ("~nouser/x", "~nouser/x: no home folder of that user"),
        ("x" * 300, "File name too long"),
        ("x/" * 5000, "File name too long"),
        ("a\0b", "has a character that no path can have"),
        ("a\n" + "x" * 300, "File name too long"),
        ("loop", "Too many levels of symbolic links"),
    ],
)
def test_impossible_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, fact: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("loop").symlink_to("loop")
    error = user_error(lambda: expand_path(text, "download.dataset.path"))
    assert error.key == "download.dataset.path"
    assert fact in str(error)
    assert "\n" not in str(error)
    assert len(str(error)) < 250
