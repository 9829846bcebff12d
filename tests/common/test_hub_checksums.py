"""Tests that a file in the Hub's cache is compared with its checksum, and removed if it is damaged."""

import hashlib
from pathlib import Path

import pytest
from helpers import user_error
from huggingface_hub import constants

from stages.common import hub
from stages.common.hub_errors import CorruptFileError

CONTENT = b"weights" * 300_000  # more than one read


def snapshot_file(folder: Path, name: str, content: bytes, shared: bool = False) -> Path:
    """Make a file of a snapshot as the client does: a link to a blob, which may link to a store of all repos."""
    blob, file = folder / "blobs" / name, folder / "snapshots" / "file.bin"
    blob.parent.mkdir()
    file.parent.mkdir()
    target = folder / "store" if shared else blob
    target.write_bytes(content)
    if shared:
        blob.symlink_to("../store")
    file.symlink_to(f"../blobs/{name}")
    return file


SHA256 = hashlib.sha256(CONTENT).hexdigest()
SHA1 = hashlib.sha1(b"blob %d\0" % len(CONTENT) + CONTENT).hexdigest()


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("checksum", [SHA256, SHA1])
def test_checksum(tmp_path: Path, checksum: str, shared: bool) -> None:
    file = snapshot_file(tmp_path, checksum, CONTENT, shared)
    hub._verify(file)
    assert file.read_bytes() == CONTENT


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("checksum", [SHA256, SHA1])
@pytest.mark.parametrize("content", [CONTENT[:-1] + b"?", b"?" + CONTENT[1:], CONTENT[:-1]])
def test_damaged_file_is_removed(tmp_path: Path, checksum: str, shared: bool, content: bytes) -> None:
    file = snapshot_file(tmp_path, checksum, content, shared)
    with pytest.raises(CorruptFileError, match=r"file\.bin"):
        hub._verify(file)
    assert not [path for path in tmp_path.rglob("*") if path.is_file() or path.is_symlink()]


def test_damaged_file_is_kept_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    file = snapshot_file(tmp_path, SHA256, b"damaged")
    error = user_error(lambda: hub._verify(file))
    assert error.file == str(file)
    assert "HF_HUB_OFFLINE" in str(error)
    assert file.read_bytes() == b"damaged"


def test_unknown_name_of_a_blob_is_no_checksum(tmp_path: Path) -> None:
    file = snapshot_file(tmp_path, "etag-of-another-kind", b"content")
    hub._verify(file)
