"""Find the audio data of files that consist of chunks (WAV, RF64, W64, AIFF, CAF) or of a header and data (AU).

A program that writes to a pipe, or is killed, leaves a wrong length in the header. Players then play to the end of the
file; libsndfile stops at the length, or fails.
"""

import io
import re
import struct
from collections.abc import Iterator
from mmap import mmap
from pathlib import Path
from typing import Any, NamedTuple

Bytes = bytes | mmap

SLACK = 128  # bytes; a size that counts the header too, or a tag after the data, is no reason to refuse a file
# Lengths that stand for "unknown": sox writes 0x7FFFF000, arecord 0x7FFFFF00 or 0x80000000, ffmpeg 0xFFFFFFFF, each
# rounded to complete frames. A real size could be as large, but then the file is too.
UNKNOWN = [range(0x7FFF0000, 0x80010000), range(0xFFFF0000, 1 << 32), range((1 << 62), 1 << 64)]
BLOCK = 1 << 20  # bytes
TAGS = (b"TAG", b"ID3", b"APETAGEX")
CONVERT = "convert it: ffmpeg -i <file> <new>.flac"


class AudioError(Exception):
    """A file that cannot be used; the message is the reason, without the file's name."""


class Layout(NamedTuple):
    """How a container writes chunks: an id, a size, the content, and zeros up to a multiple of `align`."""

    first: int  # offset of the first chunk, bytes
    size: str  # as struct writes it
    data: bytes  # id of the chunk with the samples
    align: int = 2  # bytes
    counted: int = 0  # bytes of the id and the size that the size includes
    empty: int = 0  # bytes of a data chunk without samples


W64_DATA = b"data\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a"
LAYOUTS = {
    b"RIFF": Layout(12, "<I", b"data"),
    b"RF64": Layout(12, "<I", b"data"),
    b"RIFX": Layout(12, ">I", b"data"),
    b"FORM": Layout(12, ">I", b"SSND", empty=8),
    b"caff": Layout(8, ">Q", b"data", align=1, empty=4),
    b"riff": Layout(40, "<Q", W64_DATA, align=8, counted=24),
}
AU = Layout(0, "", b"", align=1)  # has no chunks


class Samples(NamedTuple):
    """Where the samples are. Offsets and sizes in bytes."""

    start: int
    stated: int  # by the header
    size_at: int  # where the header states it
    size: str  # as struct writes it


class PatchedFile(io.RawIOBase):
    """A file to read, with some bytes replaced, and its first bytes replaced by others. The file does not change."""

    def __init__(self, path: Path, patches: dict[int, bytes], start: int = 0, prefix: bytes = b"") -> None:
        """Open a file. patches: offset -> bytes; prefix: instead of the bytes before start."""
        super().__init__()
        self._file = path.open("rb")
        self._patches, self._start, self._prefix = patches, start, prefix
        self._length = len(prefix) + path.stat().st_size - start
        self._at = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Set the position, which stays inside the file."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._length}[whence]
        self._at = min(max(0, base + offset), self._length)
        return self._at

    def tell(self) -> int:
        """Return the position."""
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer."""
        view = memoryview(buffer).cast("B")
        head = self._prefix[self._at : self._at + len(view)]
        at = max(0, self._at + len(head) - len(self._prefix)) + self._start
        self._file.seek(at)
        content = bytearray(self._file.read(len(view) - len(head)))
        for offset, value in self._patches.items():
            for i, byte in enumerate(value, offset - at):
                if 0 <= i < len(content):
                    content[i] = byte
        size = len(head) + len(content)
        view[:size] = head + content
        self._at += size
        return size

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()


def find_length(data: Bytes) -> dict[int, bytes]:
    """Compare the length in the header of a file with the file.

    Args:
        data: the content of the file.

    Returns:
        What to replace in the header so that it has the true length: offset -> bytes. Empty if nothing is wrong, or if
        the file is not one of these containers.

    Raises:
        AudioError: the file is cut off, or more data follow than the header states.
    """
    layout = LAYOUTS.get(data[:4], AU)
    samples = _find_au_samples(data) if layout is AU else _find_chunk(data, layout)
    if samples is None or samples.start > len(data):
        return {}
    actual, stated = len(data) - samples.start, samples.stated
    if stated <= actual:
        more = _count_unknown_bytes(data, samples.start + stated, layout)
        if not more:
            return {}
        if stated > layout.empty:
            # ffmpeg stops at the wrong length, too; for WAV it has an option.
            hint = CONVERT.replace("-i", "-ignore_length 1 -i") if data[8:12] == b"WAVE" else CONVERT
            raise AudioError(f"more data than its header states: {more} of {stated + more} bytes would be lost; {hint}")
    elif stated - actual > SLACK and not any(stated in sizes for sizes in UNKNOWN):
        raise AudioError(f"truncated: {stated - actual} of the {stated} bytes in its header are missing")
    largest = 256 ** struct.calcsize(samples.size) - 1
    return {samples.size_at: struct.pack(samples.size, min(actual + layout.counted, largest))}


def _find_au_samples(data: Bytes) -> Samples | None:
    order = {b".snd": ">", b"dns.": "<"}.get(data[:4])
    if order is None or len(data) < 12:
        return None
    start, stated = struct.unpack(f"{order}II", data[4:12])
    return Samples(start, stated, 8, f"{order}I")


def _list_chunks(data: Bytes, at: int, layout: Layout) -> Iterator[tuple[bytes, int, int]]:
    """Yield the id of each chunk, the offset of its content, and the size of this, from a chunk at an offset."""
    head = len(layout.data) + struct.calcsize(layout.size)
    while layout.data and at + head <= len(data):
        (size,) = struct.unpack_from(layout.size, data, at + len(layout.data))
        size = max(0, size - layout.counted)
        yield data[at : at + len(layout.data)], at + head, size
        at += head + size
        at += -at % layout.align


def _find_chunk(data: Bytes, layout: Layout) -> Samples | None:
    large = None  # offset of the 64-bit size of the data of an RF64 file
    for name, start, size in _list_chunks(data, layout.first, layout):
        if name == b"ds64" and start + 16 <= len(data):
            large = start + 8
        elif name == layout.data and large is not None and size == 0xFFFFFFFF:
            (size,) = struct.unpack_from("<Q", data, large)
            return Samples(start, size, large, "<Q")
        elif name == layout.data:
            return Samples(start, size, start - struct.calcsize(layout.size), layout.size)
    return None


def _count_unknown_bytes(data: Bytes, at: int, layout: Layout) -> int:
    """Return how many bytes follow that are neither chunks nor tags nor zeros; 0 if they are at most SLACK."""
    # Some programs do not pad a chunk of an odd size.
    end = max(_skip_chunks(data, start, layout) for start in (at, at + -at % layout.align))
    if len(data) - end <= SLACK or data[end : end + 8].startswith(TAGS):
        return 0
    return len(data) - end if any(data[i : i + BLOCK].strip(b"\0") for i in range(end, len(data), BLOCK)) else 0


def _skip_chunks(data: Bytes, at: int, layout: Layout) -> int:
    """Return the end of the chunks that start at an offset; the offset if there are none."""
    for name, start, size in _list_chunks(data, at, layout):
        if not re.fullmatch(rb"[ -~]{4}", name[:4]) or name[:4] in LAYOUTS or start + size > len(data) + SLACK:
            break
        at = start + size
    return at
