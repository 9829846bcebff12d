import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from helpers import ROOT, tone
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.common.audio import STEP, AudioError, inspect_audio, load_audio, power_spectrogram, resample


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


def test_case_files(shared: Path) -> None:
    """Complete files of sox, arecord and a killed recorder, and files that become silence."""
    for file in (shared / "cases/wav-pipe-sizes").glob("*.wav"):
        assert inspect_audio(file).seconds == 1.0
        assert len(load_audio(file, 8_000)) == 8_000
    for file in (shared / "cases/mono-silence").glob("*.wav"):
        with pytest.raises(AudioError, match="silent"):
            inspect_audio(file)


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


NOISE = np.random.default_rng(0).integers(0, 2, 4_000)


@pytest.mark.parametrize(
    ("samples", "subtype"),
    [
        (np.stack([tone(), -tone()], axis=1), "FLOAT"),
        (np.stack([tone(), -tone()], axis=1), "PCM_16"),
        (np.full((9_000, 2), (0.5, -0.25)), "PCM_24"),
        (np.full(9_000, 0.25), "PCM_16"),
        (0.25 + NOISE * STEP, "PCM_16"),
        (tone() * 1e-30, "DOUBLE"),
        ((2 * NOISE - 1) * 8 * STEP, "ALAW"),
        ((2 * NOISE - 1) * 8 * STEP, "ULAW"),
        (NOISE / 128, "PCM_U8"),
    ],
    ids=["antiphase", "antiphase 16", "constants", "constant", "last bit", "tiny", "A-law", "mu-law", "8 bits"],
)
def test_silence(tmp_path: Path, samples: np.ndarray, subtype: str) -> None:
    soundfile.write(tmp_path / "clip.wav", samples, 22_050, subtype=subtype)
    with pytest.raises(AudioError, match="silent"):
        inspect_audio(tmp_path / "clip.wav")


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT"])
def test_quiet_recording_is_no_silence(tmp_path: Path, subtype: str) -> None:
    soundfile.write(tmp_path / "clip.wav", tone() * 8 * STEP, 22_050, subtype=subtype)
    assert inspect_audio(tmp_path / "clip.wav").seconds == 1.0


@pytest.mark.parametrize(("rate", "valid"), [(999, False), (1_000, True), (400_000, True), (400_001, False)])
def test_sampling_rates(tmp_path: Path, rate: int, valid: bool) -> None:
    soundfile.write(tmp_path / "clip.wav", tone(), rate)
    if valid:
        inspect_audio(tmp_path / "clip.wav")
        assert len(load_audio(tmp_path / "clip.wav", 16_000)) == round(22_050 / rate * 16_000)
    else:
        with pytest.raises(AudioError, match=f"from 1000 to 400000 Hz: {rate}; resample the clip"):
            inspect_audio(tmp_path / "clip.wav")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_non_finite_sample(tmp_path: Path, value: float) -> None:
    samples = tone()
    samples[-1] = value
    soundfile.write(tmp_path / "clip.wav", samples, 22_050, subtype="FLOAT")
    with pytest.raises(AudioError, match="NaN, infinite or too large"):
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


@settings(max_examples=30, deadline=None)
@given(
    length=st.integers(1, 30_000),
    block=st.integers(50, 5_000),
    rate=st.sampled_from([1_000, 8_000, 22_050, 44_100, 400_000]),
    channels=st.integers(1, 3),
)
def test_blocks_give_the_samples_of_one_piece(length: int, block: int, rate: int, channels: int) -> None:
    samples = np.random.default_rng(length).uniform(-1, 1, (length, channels)).astype(np.float32)
    blocks = (samples[start : start + block] for start in range(0, length, block))
    expected = soxr.resample(samples.mean(axis=1), rate, 16_000)
    np.testing.assert_array_equal(resample(blocks, rate, 16_000), expected)


MEMORY = """
import resource, sys
from pathlib import Path
from stages.common.audio import inspect_audio, load_audio
from stages.download.dataset.repetitions import fingerprint
files = [Path(name) for name in sys.argv[1:]]
load_audio(files[0], 16_000, 0.1)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for file in files:
    inspect_audio(file), fingerprint(file), load_audio(file, 16_000, 10_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_channels(tmp_path: Path) -> None:
    """The peak of a process, by the operating system: the mono clip, its spectra, and a few blocks."""
    files = [tmp_path / "100-channels.wav", tmp_path / "8-channels.wav"]
    for file, channels, seconds in zip(files, [100, 8], [10, 100]):
        with soundfile.SoundFile(file, "w", 16_000, channels, "PCM_16") as sound:
            for start in range(seconds):
                sound.write(np.full((16_000, channels), start % 2 * 1_000, np.int16))
    done = subprocess.run([sys.executable, "-c", MEMORY, *files], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 50_000  # KiB


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
