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

from stages.common.errors import UserError
from stages.common.lfs import START
from stages.download.dataset.archives import check_archive, unpack
from stages.download.dataset.selection import select_clips


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


TAR = gzip.decompress(pack({f"g/{label}/{n}.wav": bytes([n]) * 700 for label in "ab" for n in range(4)}))


def refusal(tmp_path: Path, content: bytes) -> str:
    """Return the error of a file of one megabyte at most, after it is checked that it names the file."""
    (tmp_path / "clips.tar").write_bytes(content)
    error = user_error(lambda: check_archive(tmp_path / "clips.tar", 200, 0.001))
    assert error.file == "clips.tar"
    assert "\n" not in str(error)
    return str(error)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"not an archive", "broken archive"),
        (b"", "broken archive"),
        (b"PK\3\4" + bytes(600), "a zip file, not a tar file"),
        (b"\x28\xb5\x2f\xfd" + bytes(600), "a Zstandard file, not a tar file"),
        (b"\n<!DOCTYPE html><title>Sign in</title>" + bytes(600), "an HTML page, not a tar file"),
        (START + b"\noid sha256:0\nsize 9\n", "a Git LFS pointer, not the file itself; run git lfs pull"),
        (TAR + TAR, "it goes on after its end"),
        (gzip.compress(TAR) + gzip.compress(TAR), "it goes on after its end"),
    ],
    ids=["text", "empty", "zip", "zstandard", "html", "lfs", "two-archives", "two-compressed-archives"],
)
def test_other_file(tmp_path: Path, content: bytes, problem: str) -> None:
    assert problem in refusal(tmp_path, content)


COMPRESSIONS: list[Callable[[bytes], bytes]] = [bytes, gzip.compress, lzma.compress, bz2.compress]


@pytest.mark.parametrize("compress", COMPRESSIONS, ids=["tar", "gz", "xz", "bz2"])
def test_truncated_archive(tmp_path: Path, compress: Callable[[bytes], bytes]) -> None:
    """Also between two members, or in a header, which tarfile takes for the end."""
    content = compress(TAR)
    lengths = [1536 * n + extra for n in range(8) for extra in (0, 100, 600)]
    cuts = lengths if compress is bytes else range(0, len(content) - 1, 1 + len(content) // 20)
    for cut in cuts:
        assert "broken archive" in refusal(tmp_path, content[:cut])


@pytest.mark.parametrize("compress", COMPRESSIONS[1:], ids=["gz", "xz", "bz2"])
def test_flipped_byte(tmp_path: Path, compress: Callable[[bytes], bytes]) -> None:
    """No byte of the content may change, also not those after the last member or of the checksum."""
    (tmp_path / "clips.tar").write_bytes(compress(TAR))
    paths = check_archive(tmp_path / "clips.tar", 200, 1)
    for position in range(0, len(compress(TAR)), 7):
        content = bytearray(compress(TAR))
        content[position] ^= 16
        (tmp_path / "clips.tar").write_bytes(content)
        try:
            assert check_archive(tmp_path / "clips.tar", 200, 1) == paths
        except UserError as error:
            assert "broken archive" in str(error)  # noqa: PT017
        else:
            assert position < 10  # gzip's header has bytes without a meaning


def test_flipped_checksum_of_gzip(tmp_path: Path) -> None:
    content = bytearray(gzip.compress(TAR))
    content[-8] ^= 1
    assert "CRC check failed" in refusal(tmp_path, content)


@pytest.mark.parametrize("position", [10, 130, 150, 1536 + 10, 1536 * 5 + 150])
def test_flipped_header(tmp_path: Path, position: int) -> None:
    """A tar file has a checksum of each header."""
    content = bytearray(TAR)
    content[position] ^= 1
    assert "broken archive" in refusal(tmp_path, content)


def with_pax(**records: str) -> bytes:
    """Return a tar file with a file, whose extended header has these records."""
    packed = BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT, pax_headers={}) as tar:
        member = tarfile.TarInfo("g/a/1.wav")
        member.pax_headers, member.size = records, 600
        tar.addfile(member, BytesIO(bytes(600)))
    return packed.getvalue()


def header_alone(**fields: Any) -> bytes:
    """Return a header of 512 bytes without what should follow."""
    member = tarfile.TarInfo("x")
    for field, value in fields.items():
        setattr(member, field, value)
    return member.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize(
    "content",
    [
        with_pax(**{"GNU.sparse.map": "abc"}),
        with_pax(**{"GNU.sparse.map": "0,100,50,100", "GNU.sparse.size": "600"}),
        with_pax(**{"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "9" * 12}),
        with_pax(size="-2048"),
        with_pax(size="9" * 30),
        with_pax(comment="x" * 2_000_000),
        tarfile.TarInfo.create_pax_global_header({"comment": "x" * 2_000_000}),
        header_alone(type=tarfile.GNUTYPE_LONGNAME, size=1 << 33),
        header_alone(type=tarfile.XHDTYPE, size=1 << 33),
    ],
    ids=["map", "overlap", "sparse", "negative", "huge", "long-header", "global-header", "long-name", "attributes"],
)
def test_senseless_header(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "clips.tar").write_bytes(content)
    error = user_error(lambda: check_archive(tmp_path / "clips.tar", 200, 1))
    assert error.file == "clips.tar" or error.key == "download.dataset.max_gigabytes"
    assert "\n" not in str(error)


def test_headers_one_after_another(tmp_path: Path) -> None:
    header = with_pax(comment="x")[:1024]
    assert "broken archive" in refusal(tmp_path, header * 900 + bytes(1024))


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


def test_folder_with_the_name_of_a_file(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "clips.tar", "w") as tar:
        for kind in (tarfile.DIRTYPE, tarfile.REGTYPE):
            member = tarfile.TarInfo("g/a/1.wav")
            member.type = kind
            tar.addfile(member, BytesIO())
    assert check_archive(tmp_path / "clips.tar", 9, 1) == ["g/a/1.wav"]
    assert unpack(tmp_path / "clips.tar", {"g/a/1.wav": tmp_path / "1.wav"}) == {}
    assert (tmp_path / "1.wav").is_file()


def test_name_that_the_file_system_refuses(tmp_path: Path) -> None:
    (tmp_path / "clips.tar").write_bytes(TAR)
    targets = {"g/a/0.wav": tmp_path / ("x" * 300), "g/b/0.wav": tmp_path / "0.wav"}
    assert list(unpack(tmp_path / "clips.tar", targets)) == ["g/a/0.wav"]
    assert (tmp_path / "0.wav").read_bytes() == bytes(700)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("archives/cuthdr.tar", "broken archive (truncated header)"),
        ("archives/flip.tar.xz", "broken archive (Corrupt input data)"),
        ("archives/flip.tgz", "broken archive (bad checksum)"),
        ("archives/sparse.tgz", "broken archive (a header that makes no sense)"),
        ("archives/sparsebadmap.tgz", "broken archive (a header that makes no sense)"),
    ],
)
def test_damaged_archives_of_others(shared: Path, name: str, problem: str) -> None:
    file = shared / "cases" / name
    if not file.is_file():
        pytest.skip(f"no file {name}")
    assert problem in str(user_error(lambda: check_archive(file, 100, 20)))


def test_folders_of_actors(shared: Path) -> None:
    file = shared / "cases/tar-actor-emotion/x.tar.gz"
    if not file.is_file():
        pytest.skip("no archive of actors")
    candidates, ignored, rejected = select_clips(check_archive(file, 100, 1))
    assert len({candidate.name for candidate in candidates}) == 24
    assert candidates[0].name == "Actor_00.happy.00.wav"
    assert not ignored + rejected
