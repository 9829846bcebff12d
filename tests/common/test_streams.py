import io
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
from helpers import tone

from stages.common.audio import AudioError, inspect_audio, load_audio
from stages.common.streams import FLAC_TOTAL

RATE = 8_000


def encode(name: str, subtype: str | None = None, hz: float = 440.0, seconds: float = 1.0) -> bytes:
    content = io.BytesIO()
    soundfile.write(content, tone(seconds, RATE, hz), RATE, format=name, subtype=subtype)
    return content.getvalue()


def set_flac_total(content: bytes, total: int) -> bytes:
    return content[: FLAC_TOTAL + 1] + struct.pack(">I", total) + content[FLAC_TOTAL + 5 :]


def set_xing(content: bytes, frames: int) -> bytes:
    at = content.index(b"Xing") + 8
    return content[:at] + struct.pack(">I", frames) + content[at + 4 :]


def without_xing(content: bytes) -> bytes:
    """Remove the first frame, which has the number of frames."""
    return content[content.index(content[:2], 4) :]


@pytest.mark.parametrize("tag", [b"", b"ID3\x03\0\0\0\0\0\x0a" + bytes(10)], ids=["plain", "ID3"])
def test_flac_of_unknown_length(tmp_path: Path, tag: bytes) -> None:
    """As flac writes it to a pipe."""
    content = encode("FLAC")
    (tmp_path / "whole.flac").write_bytes(content)
    (tmp_path / "pipe.flac").write_bytes(tag + set_flac_total(content, 0))
    assert inspect_audio(tmp_path / "pipe.flac").seconds == 1.0
    np.testing.assert_array_equal(*(load_audio(tmp_path / f"{name}.flac", RATE) for name in ("whole", "pipe")))


@pytest.mark.parametrize(
    ("total", "reason"),
    [
        (4_000, "more data than its header states: 0.50 of 1.00 s would be lost"),
        (16_000, "truncated: it ends after 1.00 s of the 2.00 s"),
        (7_990, None),
        (8_010, None),
    ],
)
def test_flac_of_wrong_length(tmp_path: Path, total: int, reason: str | None) -> None:
    file = tmp_path / "clip.flac"
    file.write_bytes(set_flac_total(encode("FLAC"), total))
    if reason is None:
        assert inspect_audio(file).seconds == pytest.approx(1.0, abs=0.01)
    else:
        with pytest.raises(AudioError, match=reason):
            inspect_audio(file)


def test_flac_with_tag_at_its_end(tmp_path: Path) -> None:
    (tmp_path / "clip.flac").write_bytes(encode("FLAC") + b"TAG" + b"a" * 125)
    assert inspect_audio(tmp_path / "clip.flac").seconds == 1.0


@pytest.mark.parametrize(
    ("name", "subtype"), [("OGG", "VORBIS"), ("OGG", "OPUS"), ("FLAC", "PCM_16")], ids=["Vorbis", "Opus", "FLAC"]
)
def test_joined_streams(tmp_path: Path, name: str, subtype: str) -> None:
    first, second = encode(name, subtype), encode(name, subtype, hz=880)
    (tmp_path / "clip").write_bytes(first + second)
    lost = f"{len(second)} of {len(first + second)} bytes would be lost; convert it: ffmpeg"
    with pytest.raises(AudioError, match=lost):
        inspect_audio(tmp_path / "clip")


@pytest.mark.parametrize("frames", [0, 3, 9, 15])
def test_mp3_with_wrong_number_of_frames(tmp_path: Path, frames: int) -> None:
    content = encode("MP3")
    (tmp_path / "right.mp3").write_bytes(content)
    (tmp_path / "wrong.mp3").write_bytes(set_xing(content, frames))
    assert inspect_audio(tmp_path / "wrong.mp3").seconds == 1.0
    np.testing.assert_array_equal(*(load_audio(tmp_path / f"{name}.mp3", RATE) for name in ("right", "wrong")))


@pytest.mark.parametrize("tag", [b"", b"ID3\x03\0\0\0\0\x01\x0a" + b"\xff" * 138], ids=["plain", "ID3"])
def test_mp3_without_number_of_frames(tmp_path: Path, tag: bytes) -> None:
    """The first frames of a variable bitrate give a wrong estimate."""
    content = without_xing(encode("MP3", seconds=0.2)) + without_xing(encode("MP3", seconds=3.0))
    (tmp_path / "clip.mp3").write_bytes(tag + content)
    assert inspect_audio(tmp_path / "clip.mp3").seconds == pytest.approx(3.2, abs=0.4)


def test_joined_mp3s(tmp_path: Path) -> None:
    file = tmp_path / "clip.mp3"
    file.write_bytes(encode("MP3") + b"TAG" + b"a" * 125 + encode("MP3", hz=880, seconds=2.0))
    assert inspect_audio(file).seconds == pytest.approx(3.0, abs=0.4)
    spectrum = np.abs(np.fft.rfft(load_audio(file, RATE)[-RATE:]))
    assert spectrum.argmax() == pytest.approx(880, abs=2)


def test_cut_mp3(tmp_path: Path) -> None:
    content = encode("MP3", seconds=3.0)
    (tmp_path / "clip.mp3").write_bytes(content[: len(content) // 2])
    with pytest.raises(AudioError, match=r"truncated: \d+ of the \d+ frames in its header are missing"):
        inspect_audio(tmp_path / "clip.mp3")


@pytest.mark.parametrize(
    ("name", "subtype", "missing"),
    [
        ("OGG", "VORBIS", "200 bytes of its last page"),
        ("OGG", "OPUS", "200 bytes"),
        ("NIST", "PCM_16", "200 bytes of its samples"),
    ],
)
def test_cut_file(tmp_path: Path, name: str, subtype: str, missing: str) -> None:
    """The header of NIST, the format of TIMIT, states the length; a page of Ogg its size."""
    content = encode(name, subtype)
    (tmp_path / "a").write_bytes(content)
    assert inspect_audio(tmp_path / "a").seconds == pytest.approx(1.0, abs=0.01)
    (tmp_path / "a").write_bytes(content[:-200])
    with pytest.raises(AudioError, match=f"truncated: {missing}"):
        inspect_audio(tmp_path / "a")
