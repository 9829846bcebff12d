from pathlib import Path

from stages.common.lfs import is_pointer

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n"


def test_pointer(tmp_path: Path) -> None:
    for content, expected in ((POINTER, True), (b"", False), (b"version 2", False), (b"RIFF" + POINTER, False)):
        (tmp_path / "x").write_bytes(content)
        assert is_pointer(tmp_path / "x") == expected
