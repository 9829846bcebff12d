"""Check and unpack tar files that come from elsewhere."""

import lzma
import shutil
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from stages.common.errors import UserError


def check_archive(archive: Path, max_files: int, max_gigabytes: float) -> list[str]:
    """Return the paths of the files in a tar file, in its order, without unpacking it.

    Raises:
        UserError: a path out of the archive, a link or device, more files or bytes than allowed, a broken archive.
    """
    paths, size = [], 0
    with _opened(archive) as tar:
        for count, member in enumerate(tar, start=1):
            path, size = PurePosixPath(member.name), size + member.size
            if path.is_absolute() or ".." in path.parts:
                raise UserError(
                    f"member {member.name!r} points out of the archive; it is not unpacked", file=archive.name
                )
            if not (member.isfile() or member.isdir()):
                raise UserError(f"member {member.name!r} is a link or device; it is not unpacked", file=archive.name)
            if count > max_files:
                message = f"{archive.name} has more members than {max_files}; raise max_files if you trust the archive"
                raise UserError(message, key="download.dataset.max_files")
            if size > max_gigabytes * 1e9:
                raise UserError(
                    f"{archive.name} unpacks to more than {max_gigabytes:g} GB at {member.name!r}; raise "
                    "max_gigabytes if you trust the archive",
                    key="download.dataset.max_gigabytes",
                )
            if member.isfile():
                paths.append(member.name)
    return paths


def unpack(archive: Path, targets: dict[str, Path]) -> None:
    """Write files of a tar file to their targets; if two have the same path, the first. targets: path -> target."""
    wanted = dict(targets)
    with _opened(archive) as tar, tqdm(desc="unpack", total=len(wanted), unit="clip") as bar:
        for member in tar:
            if target := wanted.pop(member.name, None):
                content = tar.extractfile(member)
                assert content is not None  # check_archive has found a file there
                with target.open("wb") as file:
                    shutil.copyfileobj(content, file)
                bar.update()


@contextmanager
def _opened(archive: Path) -> Iterator[tarfile.TarFile]:
    try:
        with tarfile.open(archive) as tar:
            yield tar
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # of the system; decompressors set none
            raise
        raise UserError(
            f"broken archive ({' '.join(str(error).split())}); the file in the repo is broken, so downloading it again "
            "will not help; set another download.dataset.revision, or report it to the repo's owner",
            file=archive.name,
        ) from None
