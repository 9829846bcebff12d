from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import tone
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.common.audio import AudioError, inspect, load


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3", "aiff", "au"])
def test_every_format_is_decoded_to_its_end(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"clip.{suffix}"
    soundfile.write(file, np.stack([tone(), tone()], axis=1), 22_050)
    facts = inspect(file)
    assert (facts.sampling_rate, facts.channels) == (22_050, 2)
    assert facts.seconds == pytest.approx(1.0, abs=0.06)


# An OGG stream carries no length up front: cut between two pages, it is a shorter whole one.
@pytest.mark.parametrize("suffix", ["wav", "flac", "mp3", "aiff", "au"])
def test_a_file_cut_off_is_told_from_a_whole_one(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"clip.{suffix}"
    soundfile.write(file, tone(2.0), 22_050)
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(AudioError, match=r"truncated|broken"):
        inspect(file)


def test_a_wav_written_to_a_pipe_does_not_know_its_size_and_is_whole(tmp_path: Path) -> None:
    file = tmp_path / "clip.wav"
    soundfile.write(file, tone(), 22_050)
    content = bytearray(file.read_bytes())
    at = content.index(b"data") + 4
    content[at : at + 4] = content[4:8] = b"\xff\xff\xff\xff"
    file.write_bytes(content)
    assert inspect(file).seconds == pytest.approx(1.0)


def test_junk_behind_the_samples_does_not_matter(tmp_path: Path) -> None:
    file = tmp_path / "clip.wav"
    soundfile.write(file, tone(), 22_050)
    with file.open("ab") as content:
        content.write(b"LIST and more")
    assert inspect(file).seconds == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty file"),
        (b"this is no sound\n" * 9, "broken"),
        (np.zeros(100), "silent"),
        (np.zeros(0), "no samples"),
    ],
)
def test_what_holds_no_sound_says_why(tmp_path: Path, content: bytes | np.ndarray, reason: str) -> None:
    file = tmp_path / "clip.wav"
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        soundfile.write(file, content, 22_050)
    with pytest.raises(AudioError, match=reason):
        inspect(file)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_sample_that_is_no_number_is_found(tmp_path: Path, value: float) -> None:
    samples = tone()
    samples[-1] = value
    soundfile.write(tmp_path / "clip.wav", samples, 22_050, subtype="FLOAT")
    with pytest.raises(AudioError, match="NaN or infinite"):
        inspect(tmp_path / "clip.wav")


def test_stereo_becomes_the_mean_of_its_channels(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "clip.wav", np.stack([tone(), 0 * tone()], axis=1), 22_050, subtype="FLOAT")
    np.testing.assert_allclose(load(tmp_path / "clip.wav", 22_050), tone() / 2, atol=1e-7)


@settings(max_examples=30, deadline=None)
@given(seconds=st.floats(0.05, 2.0), rate=st.sampled_from([8_000, 22_050, 44_100]), cut=st.floats(0.05, 1.0))
def test_a_cut_clip_is_the_start_of_the_whole_clip(
    tmp_path_factory: pytest.TempPathFactory, seconds: float, rate: int, cut: float
) -> None:
    file = tmp_path_factory.mktemp("cut") / "clip.wav"
    soundfile.write(file, tone(seconds, rate), rate, subtype="FLOAT")
    whole, start = load(file, 16_000), load(file, 16_000, cut)
    assert len(start) == min(len(whole), round(cut * 16_000))
    np.testing.assert_allclose(start, whole[: len(start)], atol=2e-3)
    assert len(whole) == pytest.approx(seconds * 16_000, abs=2)
    assert whole.dtype == np.float32


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT", "ULAW"])
@pytest.mark.parametrize("channels", [1, 2])
def test_samples_are_libsndfile_s_own_floats(tmp_path: Path, subtype: str, channels: int) -> None:
    samples = np.random.default_rng(0).uniform(-1, 1, (4_000, channels))
    soundfile.write(tmp_path / "clip.wav", samples, 16_000, subtype=subtype)
    own = soundfile.read(tmp_path / "clip.wav", dtype="float32", always_2d=True)[0].mean(axis=1)
    np.testing.assert_array_equal(load(tmp_path / "clip.wav", 16_000), own)
