from pathlib import Path

import numpy as np
import pytest
import soundfile
from helpers import tone
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.common.audio import AudioError, inspect_audio, load_audio, power_spectrogram


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3", "aiff", "au"])
def test_inspect_every_format(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"clip.{suffix}"
    soundfile.write(file, np.stack([tone(), tone()], axis=1), 22_050)
    facts = inspect_audio(file)
    assert (facts.sampling_rate, facts.channels) == (22_050, 2)
    assert facts.seconds == pytest.approx(1.0, abs=0.06)


# An OGG stream does not state its length: cut between two pages, it is a complete shorter one.
@pytest.mark.parametrize("suffix", ["wav", "flac", "mp3", "aiff", "au"])
def test_truncated_file(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"clip.{suffix}"
    soundfile.write(file, tone(2.0), 22_050)
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(AudioError, match=r"truncated|broken"):
        inspect_audio(file)


def test_wav_written_to_pipe(tmp_path: Path) -> None:
    """Such a file states the largest possible size, and is complete."""
    file = tmp_path / "clip.wav"
    soundfile.write(file, tone(), 22_050)
    content = bytearray(file.read_bytes())
    at = content.index(b"data") + 4
    content[at : at + 4] = content[4:8] = b"\xff\xff\xff\xff"
    file.write_bytes(content)
    assert inspect_audio(file).seconds == pytest.approx(1.0)


def test_extra_bytes_after_samples(tmp_path: Path) -> None:
    file = tmp_path / "clip.wav"
    soundfile.write(file, tone(), 22_050)
    with file.open("ab") as content:
        content.write(b"LIST and more")
    assert inspect_audio(file).seconds == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty file"),
        (b"this is not audio\n" * 9, "broken"),
        (np.zeros(100), "silent"),
        (np.zeros(0), "no samples"),
    ],
)
def test_unusable_file(tmp_path: Path, content: bytes | np.ndarray, reason: str) -> None:
    file = tmp_path / "clip.wav"
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        soundfile.write(file, content, 22_050)
    with pytest.raises(AudioError, match=reason):
        inspect_audio(file)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_non_finite_sample(tmp_path: Path, value: float) -> None:
    samples = tone()
    samples[-1] = value
    soundfile.write(tmp_path / "clip.wav", samples, 22_050, subtype="FLOAT")
    with pytest.raises(AudioError, match="NaN or infinite"):
        inspect_audio(tmp_path / "clip.wav")


def test_stereo_is_averaged(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "clip.wav", np.stack([tone(), 0 * tone()], axis=1), 22_050, subtype="FLOAT")
    np.testing.assert_allclose(load_audio(tmp_path / "clip.wav", 22_050), tone() / 2, atol=1e-7)


@settings(max_examples=30, deadline=None)
@given(seconds=st.floats(0.05, 2.0), sampling_rate=st.sampled_from([8_000, 22_050, 44_100]), limit=st.floats(0.05, 1.0))
def test_max_seconds_equals_cut_afterwards(
    tmp_path_factory: pytest.TempPathFactory, seconds: float, sampling_rate: int, limit: float
) -> None:
    file = tmp_path_factory.mktemp("cut") / "clip.wav"
    soundfile.write(file, tone(seconds, sampling_rate), sampling_rate, subtype="FLOAT")
    complete, start = load_audio(file, 16_000), load_audio(file, 16_000, limit)
    assert len(start) == min(len(complete), round(limit * 16_000))
    np.testing.assert_allclose(start, complete[: len(start)], atol=2e-3)
    assert len(complete) == pytest.approx(seconds * 16_000, abs=2)
    assert complete.dtype == np.float32


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT", "ULAW"])
@pytest.mark.parametrize("channels", [1, 2])
def test_samples_equal_libsndfile_floats(tmp_path: Path, subtype: str, channels: int) -> None:
    samples = np.random.default_rng(0).uniform(-1, 1, (4_000, channels))
    soundfile.write(tmp_path / "clip.wav", samples, 16_000, subtype=subtype)
    expected = soundfile.read(tmp_path / "clip.wav", dtype="float32", always_2d=True)[0].mean(axis=1)
    np.testing.assert_array_equal(load_audio(tmp_path / "clip.wav", 16_000), expected)


def test_power_spectrogram_peaks_at_tone() -> None:
    power = power_spectrogram(tone(1.0, 16_000, hz=1_000), 512, slice(None, None, 128))
    assert power.shape == (1 + (16_000 - 512) // 128, 257)
    assert power.dtype == np.float32
    assert (power.argmax(axis=1) == 1_000 * 512 // 16_000).all()


def test_power_spectrogram_of_single_frames() -> None:
    samples = tone(1.0, 16_000)
    selected = power_spectrogram(samples, 512, np.array([0, 256]))
    np.testing.assert_array_equal(selected, power_spectrogram(samples, 512, slice(None, None, 128))[[0, 2]])


def test_power_spectrogram_pads_short_clip() -> None:
    samples = tone(0.01, 16_000)
    padded = np.pad(samples, (0, 512 - len(samples)))
    expected = power_spectrogram(padded, 512, slice(None, None, 128))
    np.testing.assert_array_equal(power_spectrogram(samples, 512, slice(None, None, 128)), expected)
