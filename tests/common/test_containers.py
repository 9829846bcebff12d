import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
from helpers import tone

from stages.common.audio import AudioError, inspect_audio, load_audio
from stages.common.containers import PatchedFile

RATE = 8_000
SAMPLES = tone(1.0, RATE)
UNKNOWN = [0, 0x7FFFFFFF, 0x7FFFF000, 0x7FFFFF00, 0x80000000, 0xFFFFFFFF, 0xFFFFFFDB]
# Format, id before the size of the data, size as struct writes it, sizes that mean "unknown".
CONTAINERS = [
    ("WAV", b"data", "<I", UNKNOWN),
    ("AIFF", b"SSND", ">I", [*UNKNOWN, 8]),
    ("AU", b".snd\0\0\0\x18", ">I", UNKNOWN),
    ("RF64", b"ds64\x1c\0\0\0" + struct.pack("<Q", 16_096), "<Q", [0, 2**63 - 1, 2**64 - 1]),
    ("W64", b"data\xf3\xac\xd3\x11\x8c\xd1\0\xc0\x4f\x8e\xdb\x8a", "<Q", [0, 24, 2**63 - 1, 2**64 - 1]),
    ("CAF", b"data", ">Q", [0, 4, 2**64 - 1]),
]
UNKNOWN_SIZES = [(name, mark, size, value) for name, mark, size, values in CONTAINERS for value in values]


def write(file: Path, name: str = "WAV", subtype: str = "PCM_16") -> bytearray:
    soundfile.write(file, SAMPLES, RATE, format=name, subtype=subtype)
    return bytearray(file.read_bytes())


def set_size(file: Path, content: bytearray, mark: bytes, size: str, value: int, relative: bool = False) -> None:
    """Replace the size of the data."""
    at = content.index(mark) + len(mark)
    (stated,) = struct.unpack_from(size, content, at)
    struct.pack_into(size, content, at, stated + value if relative else value)
    file.write_bytes(content)


@pytest.mark.parametrize(("name", "mark", "size", "value"), UNKNOWN_SIZES)
def test_unknown_length_is_read_to_the_end(tmp_path: Path, name: str, mark: bytes, size: str, value: int) -> None:
    file = tmp_path / "clip"
    content = write(file, name)
    expected = load_audio(file, RATE)
    set_size(file, content, mark, size, value)
    assert inspect_audio(file).seconds == 1.0
    np.testing.assert_array_equal(load_audio(file, RATE), expected)
    assert file.read_bytes() == content


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_24", "FLOAT", "ALAW", "IMA_ADPCM", "MS_ADPCM", "GSM610"])
@pytest.mark.parametrize("value", [0, 0xFFFFFFFF])
def test_unknown_length_of_other_samples(tmp_path: Path, subtype: str, value: int) -> None:
    file = tmp_path / "clip"
    content = write(file, "WAV", subtype)
    expected = load_audio(file, RATE)
    set_size(file, content, b"data", "<I", value)
    np.testing.assert_array_equal(load_audio(file, RATE), expected)


@pytest.mark.parametrize(("name", "mark", "size"), [container[:3] for container in CONTAINERS])
@pytest.mark.parametrize(
    ("change", "reason"),
    [(-8_000, "more data than its header states: 8000 of"), (8_000, "truncated: 8000 of the"), (2, None), (44, None)],
)
def test_wrong_length(tmp_path: Path, name: str, mark: bytes, size: str, change: int, reason: str | None) -> None:
    """A few bytes are a size that counts the header, or padding."""
    file = tmp_path / "clip"
    set_size(file, write(file, name), mark, size, change, relative=True)
    if reason is None:
        assert inspect_audio(file).seconds == 1.0
    else:
        with pytest.raises(AudioError, match=reason):
            inspect_audio(file)


@pytest.mark.parametrize("unknown", [False, True])
@pytest.mark.parametrize(
    "tail",
    [b"LIST\x0a\0\0\0INFOabcdef" * 20, b"TAG" + bytes(range(125)) * 2, b"ID3\x04" + b"x" * 500, bytes(5_000)],
    ids=["chunks", "ID3v1", "ID3v2", "zeros"],
)
def test_tail_that_is_no_audio(tmp_path: Path, tail: bytes, unknown: bool) -> None:
    file = tmp_path / "clip.wav"
    content = write(file) + tail
    if unknown:
        content[4:8] = bytes(4)  # the size of the file, which a killed recorder does not write
    file.write_bytes(content)
    assert inspect_audio(file).seconds == 1.0


def test_chunk_of_odd_size_without_padding(tmp_path: Path) -> None:
    file = tmp_path / "clip.wav"
    soundfile.write(file, SAMPLES[1:], RATE, subtype="PCM_U8")
    file.write_bytes(file.read_bytes()[: 44 + 7_999] + b"LIST" + struct.pack("<I", 800) + b"x" * 800)
    assert inspect_audio(file).seconds == 7_999 / RATE


def test_joined_wavs(tmp_path: Path) -> None:
    file = tmp_path / "clip.wav"
    file.write_bytes(write(file) * 2)
    with pytest.raises(AudioError, match="16044 of 32044 bytes would be lost; convert it: ffmpeg -ignore_length 1"):
        inspect_audio(file)


def test_header_alone_has_no_samples(tmp_path: Path) -> None:
    file = tmp_path / "clip.wav"
    content = write(file)[:44]
    set_size(file, content, b"data", "<I", 0)
    with pytest.raises(AudioError, match="no samples"):
        inspect_audio(file)


@pytest.mark.parametrize("length", range(0, 60, 4))
def test_cut_header(tmp_path: Path, length: int) -> None:
    for name in [container[0] for container in CONTAINERS]:
        file = tmp_path / name
        file.write_bytes(write(file, name)[:length])
        with pytest.raises(AudioError, match=r"broken|empty|no samples|truncated"):
            inspect_audio(file)


@pytest.mark.parametrize("step", [1, 3, 100])
def test_patched_file(tmp_path: Path, step: int) -> None:
    (tmp_path / "file").write_bytes(b"0123456789")
    with PatchedFile(tmp_path / "file", {4: b"abc", 9: b"z"}, start=2, prefix=b"head") as file:
        assert b"".join(iter(lambda: file.read(step), b"")) == b"head23abc78z"
        assert file.seek(-3, 2) == 9
        assert file.read(9) == b"78z"
