import bz2
import gzip
import lzma
import tarfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from fakes.small_hub import pack, small_gtzan
from helpers import user_error

from stages.download.dataset.archives import check_archive, unpack


def malicious(name: str, **fields: Any) -> bytes:
    """Return a tar file with one member. fields: of its TarInfo."""
    packed = BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        member = tarfile.TarInfo(name)
        for field, value in fields.items():
            setattr(member, field, value)
        tar.addfile(member, BytesIO(b"x" * member.size))
    return packed.getvalue()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (malicious("../evil.wav"), "'../evil.wav' points out"),
        (malicious("genres/../../evil.wav"), "'genres/../../evil.wav' points out"),
        (malicious("/etc/evil.wav"), "'/etc/evil.wav' points out"),
        (malicious("genres/rock/a.wav", type=tarfile.SYMTYPE, linkname="/etc/passwd"), "is a link or device"),
        (malicious("genres/rock/a.wav", type=tarfile.LNKTYPE, linkname="b.wav"), "is a link or device"),
        (malicious("genres/rock/a.wav", type=tarfile.CHRTYPE), "is a link or device"),
        (malicious("genres/rock/a.wav", type=tarfile.FIFOTYPE), "is a link or device"),
    ],
    ids=["parent", "inner-parent", "absolute", "symbolic-link", "hard-link", "device", "pipe"],
)
def test_malicious_archive(tmp_path: Path, content: bytes, expected: str) -> None:
    (tmp_path / "genres.tar.gz").write_bytes(content)
    error = user_error(lambda: check_archive(tmp_path / "genres.tar.gz", 200, 0.002))
    assert error.file == "genres.tar.gz"
    assert expected in str(error)


@pytest.mark.parametrize(
    "content",
    [pack(small_gtzan())[:20_000], b"not an archive", lzma.compress(pack(small_gtzan()))[:2000], b""],
    ids=["truncated", "text", "truncated-xz", "empty"],
)
def test_broken_archive(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "genres.tar.gz").write_bytes(content)
    error = user_error(lambda: check_archive(tmp_path / "genres.tar.gz", 200, 0.002))
    assert error.file == "genres.tar.gz"
    assert "broken archive" in str(error)


@pytest.mark.parametrize("compress", [lzma.compress, bz2.compress], ids=["xz", "bz2"])
def test_damaged_archive(tmp_path: Path, compress: Callable[[bytes], bytes]) -> None:
    """The decompressors raise errors that tarfile does not know."""
    content = bytearray(compress(gzip.decompress(pack(small_gtzan(number=20)))))
    content[len(content) // 2] ^= 255
    (tmp_path / "genres.tar").write_bytes(content)
    assert "broken archive" in str(user_error(lambda: check_archive(tmp_path / "genres.tar", 200, 1)))


def test_too_many_files(tmp_path: Path) -> None:
    (tmp_path / "genres.tar.gz").write_bytes(pack({f"genres/rock/{n}.wav": b"" for n in range(300)}))
    error = user_error(lambda: check_archive(tmp_path / "genres.tar.gz", 200, 0.002))
    assert error.key == "download.dataset.max_files"
    assert "200" in str(error)


def test_too_many_bytes(tmp_path: Path) -> None:
    (tmp_path / "genres.tar.gz").write_bytes(malicious("genres/rock/a.wav", size=3_000_000))
    error = user_error(lambda: check_archive(tmp_path / "genres.tar.gz", 200, 0.002))
    assert error.key == "download.dataset.max_gigabytes"
    assert "0.002 GB at 'genres/rock/a.wav'" in str(error)


def test_unpack(tmp_path: Path) -> None:
    """Of two members with one path, the first is unpacked."""
    files = small_gtzan(number=1)
    archive, targets = tmp_path / "genres.tar.gz", {}
    with tarfile.open(archive, "w:gz") as tar:
        for name, content in [*files.items(), (next(iter(files)), b"second")]:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, BytesIO(content))
    assert check_archive(archive, 200, 1) == [*files, next(iter(files))]
    targets = {name: tmp_path / Path(name).name for name in files if name.endswith("0.wav")}
    unpack(archive, targets)
    assert len(targets) > 2
    assert {name: target.read_bytes() for name, target in targets.items()} == {name: files[name] for name in targets}
    assert {file.name for file in tmp_path.iterdir()} == {"genres.tar.gz", *(Path(name).name for name in targets)}
