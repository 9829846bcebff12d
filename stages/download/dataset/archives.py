"""Tar files from elsewhere, unpacked with care: what they hold is decided by whoever packed them."""

import gzip
import shutil
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from stages.common.stage import StageError


def check(archive: Path, max_files: int, max_gigabytes: float) -> list[str]:
    """The paths of the files in a tar file, in its order; nothing is unpacked.

    Raises:
        StageError: a path that leads elsewhere, a link or device, more files or bytes than allowed, a broken archive.
    """
    paths, size = [], 0
    with _opened(archive) as tar:
        for count, member in enumerate(tar, start=1):
            path, size = PurePosixPath(member.name), size + member.size
            if path.is_absolute() or ".." in path.parts:
                raise StageError(f"{archive.name}: member {member.name!r} points out of the archive; do not use it")
            if not (member.isfile() or member.isdir()):
                raise StageError(f"{archive.name}: member {member.name!r} is a link or device; do not use it")
            if count > max_files:
                raise StageError(f"{archive.name}: more than {max_files} members; raise download.dataset.max_files")
            if size > max_gigabytes * 1e9:
                raise StageError(
                    f"{archive.name}: unpacks to more than {max_gigabytes:g} GB at {member.name!r}; "
                    "raise download.dataset.max_gigabytes if you trust it"
                )
            if member.isfile():
                paths.append(member.name)
    return paths


def unpack(archive: Path, targets: dict[str, Path]) -> None:
    """Write the files at some paths of a tar file to where they belong; of two at one path, the first."""
    wanted = dict(targets)
    with _opened(archive) as tar, tqdm(desc="unpack", total=len(wanted), unit="clip") as bar:
        for member in tar:
            if target := wanted.pop(member.name, None):
                with target.open("wb") as file:
                    shutil.copyfileobj(tar.extractfile(member), file)
                bar.update()


@contextmanager
def _opened(archive: Path) -> Iterator[tarfile.TarFile]:
    try:
        with tarfile.open(archive) as tar:
            yield tar
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise StageError(
            f"{archive.name}: broken archive ({' '.join(str(error).split())}); the file in the repo is "
            "broken, so downloading it again will not help; set another download.dataset.revision, or report it to the "
            "repo's owner"
        ) from None
