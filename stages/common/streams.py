"""Find out how long FLAC, Ogg and MP3 files really are: their headers may be wrong, or state only the first part."""

import re
import struct
from typing import NamedTuple

from stages.common.containers import CONVERT, SLACK, AudioError, Bytes, find_length

FLAC_TOTAL = 21  # offset of the total number of samples: the low four bits of this byte, and four bytes
FLAC_START = b"fLaC\0\0\0\x22"  # and the header of the first block of metadata, which has 34 bytes
OGG_HEADER = struct.Struct("<4sxBqIII B")  # of a page: id, version, flags, position, serial, page, checksum, segments
OGG_FIRST = 2  # flag of the first page of a stream
# Layer III of MPEG 1, and of MPEG 2 and 2.5: kbit/s by index; Hz by version and index.
BITRATES = {True: (0, *range(32, 65, 8), *range(80, 129, 16), *range(160, 257, 32), 320)}
BITRATES[False] = (0, *range(8, 65, 8), *range(80, 161, 16))
RATES = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}
BITRATE_OF_TAG = 9  # index of a bitrate whose frames hold a Xing header at every sampling rate


class Change(NamedTuple):
    """What libsndfile needs to read a file to its end: the arguments of PatchedFile after the path."""

    patches: dict[int, bytes]
    start: int = 0
    prefix: bytes = b""


class Frame(NamedTuple):
    """The header of an MP3 frame."""

    version: int
    rate: int  # index of the sampling rate
    mono: bool
    length: int  # bytes


def find_change(data: Bytes) -> Change | None:
    """Return what libsndfile needs to read a file to its end; None if it reads the file as it is.

    Args:
        data: the content of the file.

    Raises:
        AudioError: the file is cut off, or holds more than libsndfile would read.
    """
    if data[:4] == b"OggS":
        check_ogg(data)
        return None
    if data[:7] == b"NIST_1A":
        check_nist(data)
        return None
    start = skip_id3(data)
    if data[start : start + 4] == b"fLaC":
        check_flac(data, start)
        return None
    patches = find_length(data)
    return Change(patches) if patches else patch_mp3(data, start)


def skip_id3(data: Bytes) -> int:
    """Return the offset of the audio: the end of the ID3 tags at the start of a file."""
    at = 0
    while data[at : at + 3] == b"ID3" and len(data) >= at + 10:
        size = 0
        for byte in data[at + 6 : at + 10]:
            size = size << 7 | byte & 127
        at += 10 + size
    return at


def check_flac(data: Bytes, start: int) -> None:
    """Raise AudioError if several FLAC files were joined. start: offset of the first."""
    other = data.find(FLAC_START, start + len(FLAC_START))
    if other > 0:
        raise AudioError(_only_first("FLAC files", other, len(data)))


def forget_length(data: Bytes) -> Change | None:
    """Return the change that removes the length from the header of a FLAC file; None for other files, or without one.

    Args:
        data: the start of the file.
    """
    at = skip_id3(data) + FLAC_TOTAL
    if data[at - FLAC_TOTAL : at - FLAC_TOTAL + 4] != b"fLaC" or len(data) < at + 5:
        return None
    total = bytes([data[at] & 0xF0, 0, 0, 0, 0])
    return None if data[at : at + 5] == total else Change({at: total})


def check_ogg(data: Bytes) -> None:
    """Raise AudioError if one stream follows another, as in recordings of web radio: libsndfile reads the first."""
    at, begun = 0, False
    while (at := data.find(b"OggS", at)) >= 0 and at + OGG_HEADER.size <= len(data):
        _, flags, *_, segments = OGG_HEADER.unpack_from(data, at)
        if begun and flags & OGG_FIRST:
            raise AudioError(_only_first("Ogg streams", at, len(data)))
        begun = begun or not flags & OGG_FIRST
        at += OGG_HEADER.size + segments + sum(data[at + OGG_HEADER.size : at + OGG_HEADER.size + segments])
        if at > len(data):
            raise AudioError(f"truncated: {at - len(data)} bytes of its last page are missing")


def check_nist(data: Bytes) -> None:
    """Raise AudioError if a file with a NIST SPHERE header, as in TIMIT, is cut off."""
    header = bytes(data[:1024])
    fields = {name: int(value) for name, value in re.findall(rb"(\w+) -i (\d+)", header)}
    size = fields.get(b"sample_n_bytes", 2) * fields.get(b"channel_count", 1)
    missing = 1024 + size * fields.get(b"sample_count", 0) - len(data)
    if missing > SLACK and b"shorten" not in header:
        raise AudioError(f"truncated: {missing} bytes of its samples are missing")


def _only_first(what: str, first: int, size: int) -> str:
    return (
        f"several {what} in one file: only the first can be read, and {size - first} of {size} bytes would be lost; "
        f"{CONVERT}"
    )


def patch_mp3(data: Bytes, start: int) -> Change | None:
    """Count the frames of an MP3 file, and return what gives it a header with this number.

    Without one, libsndfile estimates the length from the first frame, and reads only this much.

    Args:
        start: offset of the first frame.

    Returns:
        None if the header is right, or if this is no MP3 file.

    Raises:
        AudioError: the file is cut off.
    """
    first = _read_frame(data, start)
    if first is None:
        return None
    count = _count_frames(data, start, first)
    side = (17 if first.mono else 32) if first.version == 3 else (9 if first.mono else 17)
    tag = start + 4 + side
    if data[tag : tag + 4] in {b"Xing", b"Info"} and data[tag + 7] & 1:
        at = tag + 8
    elif data[start + 36 : start + 40] == b"VBRI":
        at = start + 50
    else:
        header = bytes([255, data[start + 1] | 1, BITRATE_OF_TAG << 4 | data[start + 2] & 12, data[start + 3]])
        made = _read_frame(header, 0)
        assert made is not None
        prefix = header + bytes(side) + b"Xing" + struct.pack(">II", 1, count)
        return Change({}, start, prefix.ljust(made.length, b"\0"))
    (stated,) = struct.unpack_from(">I", data, at)
    count -= 1  # the frame with the header
    if stated > count + 1:
        raise AudioError(f"truncated: {stated - count} of the {stated} frames in its header are missing")
    if stated == count:
        return None
    patches = {at: struct.pack(">I", count)}
    if at == tag + 8 and data[tag + 7] & 2:
        patches[at + 4] = struct.pack(">I", len(data) - start)  # or mpg123 prints a warning
    return Change(patches)


def _read_frame(data: Bytes, at: int) -> Frame | None:
    if at + 4 > len(data) or data[at] != 255 or data[at + 1] & 0xE6 != 0xE2:
        return None
    version, bits = data[at + 1] >> 3 & 3, data[at + 2]
    bitrate, rate = bits >> 4, bits >> 2 & 3
    if version == 1 or bitrate in {0, 15} or rate == 3:
        return None
    bytes_per_frame = (144_000 if version == 3 else 72_000) * BITRATES[version == 3][bitrate] // RATES[version][rate]
    return Frame(version, rate, data[at + 3] >> 6 == 3, bytes_per_frame + (bits >> 1 & 1))


def _count_frames(data: Bytes, at: int, first: Frame) -> int:
    """Count the frames from the first, at an offset. Bytes between them are tags, or files that were joined."""
    count = 0
    while at < len(data):
        frame = _read_frame(data, at)
        if frame is None or frame.rate != first.rate or frame.version != first.version:
            at = _find_frames(data, at + 1)
            continue
        count += at + frame.length <= len(data)
        at += frame.length
    return count


def _find_frames(data: Bytes, at: int) -> int:
    """Return the offset of the next two frames, one after the other; the end if there are none."""
    while (at := data.find(b"\xff", at)) >= 0:
        frame = _read_frame(data, at)
        if frame and _read_frame(data, at + frame.length):
            return at
        at += 1
    return len(data)
