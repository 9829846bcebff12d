"""Check and unpack tar files that come from elsewhere."""

import lzma
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, cast

from tqdm import tqdm

from stages.common.errors import UserError
from stages.common.lfs import POINTER, is_pointer
from stages.download.dataset.selection import save_clip

MAX_HEADER = 1 << 20  # bytes of names and attributes of a member
HEADERS = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
# What tarfile and the decompressors raise for damaged files and files of another kind.
DAMAGED = (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, OSError)
# What tarfile raises for headers that are no damage, but make no sense.
SENSELESS = (ValueError, LookupError, ArithmeticError, RecursionError, MemoryError)

# The first bytes of files that are often found in place of a tar file.
OTHER_KINDS = {
    b"PK\3\4": "a zip file",
    b"PAR1": "a Parquet file",
    b"7z\xbc\xaf": "a 7z file",
    b"Rar!": "a RAR file",
    b"\x28\xb5\x2f\xfd": "a Zstandard file",
}


class _StrictHeader(tarfile.TarInfo):
    """A header of a tar file. tarfile takes a damaged header for the end of the archive; this refuses it."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_StrictHeader":
        try:
            header = super().frombuf(buf, encoding, errors)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error)) from None
        if header.type in HEADERS and header.size > MAX_HEADER:
            raise tarfile.ReadError(f"a name or attributes of {header.size} bytes")
        return header


def check_archive(archive: Path, max_files: int, max_gigabytes: float) -> list[str]:
    """Return the paths of the files in a tar file, in its order, without unpacking it.

    It reads the file to its end, because a checksum comes last.

    Raises:
        UserError: a path out of the archive, a link, device or sparse file, more files or bytes than allowed, a file
            that is damaged or no tar file.
    """
    paths, size = [], 0
    with _opened(archive) as tar:
        for count, member in enumerate(_read_members(tar), start=1):
            path, size = PurePosixPath(member.name), size + member.size
            if path.is_absolute() or ".." in path.parts:
                raise UserError(
                    f"member {member.name!r} points out of the archive; it is not unpacked", file=archive.name
                )
            if not (member.isfile() or member.isdir()):
                raise UserError(f"member {member.name!r} is a link or device; it is not unpacked", file=archive.name)
            if member.issparse():
                message = f"member {member.name!r} is a sparse file, which is not unpacked; pack it without --sparse"
                raise UserError(message, file=archive.name)
            if count > max_files:
                message = f"{archive.name} has more members than {max_files}; raise max_files if you trust the archive"
                raise UserError(message, key="download.dataset.max_files")
            if max(size, tar.offset) > max_gigabytes * 1e9:
                raise _too_large(archive, f"at {member.name!r}", max_gigabytes)
            if member.isfile():
                paths.append(member.name)
        _check_end(tar, archive, max_gigabytes)
    return paths


def _too_large(archive: Path, where: str, max_gigabytes: float) -> UserError:
    return UserError(
        f"{archive.name} unpacks to more than {max_gigabytes:g} GB {where}; raise max_gigabytes if you trust the "
        "archive",
        key="download.dataset.max_gigabytes",
    )


def _read_members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    while member := tar.next():
        if member.size < 0:
            raise tarfile.ReadError(f"member {member.name!r} has a negative size")
        tar.members.clear()  # type: ignore[attr-defined]  # or all headers stay in memory
        yield member


def _check_end(tar: tarfile.TarFile, archive: Path, max_gigabytes: float) -> None:
    """Read what follows the last member: zeros, and in a compressed file a checksum."""
    content = cast(IO[bytes], tar.fileobj)
    while block := content.read(1 << 20):
        if block.strip(b"\0"):
            raise tarfile.ReadError(
                "it goes on after its end; if it is several archives in one file, unpack and repack"
            )
        if content.tell() > max_gigabytes * 1e9:
            raise _too_large(archive, "after its last member", max_gigabytes)


def unpack(archive: Path, targets: dict[str, Path]) -> dict[str, str]:
    """Write files of a tar file to their targets; if two have the same path, the first.

    Args:
        targets: path -> target.

    Returns:
        path -> reason, for files whose names this file system cannot hold.
    """
    wanted, rejected = dict(targets), {}
    with _opened(archive) as tar, tqdm(desc="unpack", total=len(wanted), unit="clip") as bar:
        for member in _read_members(tar):
            if member.isfile() and (target := wanted.pop(member.name, None)):
                content = tar.extractfile(member)
                assert content is not None  # check_archive has found a file there
                if reason := save_clip(content, target):
                    rejected[member.name] = reason
                bar.update()
    return rejected


@contextmanager
def _opened(archive: Path) -> Iterator[tarfile.TarFile]:
    if is_pointer(archive):
        raise UserError(f"it is {POINTER}", file=archive.name)
    try:
        with tarfile.open(archive, tarinfo=_StrictHeader) as tar:
            yield tar
    except (*DAMAGED, *SENSELESS) as error:
        if isinstance(error, OSError) and error.errno is not None:  # of the system; decompressors set none
            raise
        if other := _describe(archive):
            message = f"it is {other}, not a tar file; name another file in download.dataset.archive"
            raise UserError(message, file=archive.name) from None
        problem = "a header that makes no sense" if isinstance(error, SENSELESS) else " ".join(str(error).split())
        raise UserError(
            f"broken archive ({problem}); the file in the repo is broken, so downloading it again will not help; set "
            "another download.dataset.revision, or report it to the repo's owner",
            file=archive.name,
        ) from None


def _describe(archive: Path) -> str | None:
    """Return what a file is that is often found in place of a tar file, or None."""
    with archive.open("rb") as content:
        start = content.read(512)
    if start.lstrip().lower().startswith((b"<!doctype html", b"<html")):
        return "an HTML page"
    return next((kind for magic, kind in OTHER_KINDS.items() if start.startswith(magic)), None)
