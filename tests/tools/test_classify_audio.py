"""Windows of recordings of any length."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile

from stages.common.containers import AudioError
from tools.classify.audio import Windows, read_stretches

RATE = 8_000


@pytest.fixture
def noise() -> np.ndarray:
    """Mono in 16 bits, so that a WAV file holds it exactly."""
    return np.random.default_rng(0).integers(-20_000, 20_000, 50 * RATE).astype(np.int16)


# Seconds of the recording, of a clip, a window and a hop.
@pytest.mark.parametrize(
    ("seconds", "clip", "length", "hop"),
    [
        (10, 30, 30, 30),
        (31, 30, 30, 30),
        (32, 30, 30, 30),
        (50, 10, 10, 10),
        (43.21, 10, 3, 3),
        (43.21, 10, 3, 0.7),
        (2.0, 10, 3, 1),
        (9.1, 10, 3, 3),
        (10.4, 10, 3, 2.5),
    ],
)
def test_windows_are_those_of_the_complete_recording(
    seconds: float, clip: float, length: float, hop: float, noise: np.ndarray, tmp_path: Path
) -> None:
    file = tmp_path / "x.wav"
    samples = noise[: round(seconds * RATE)]
    soundfile.write(file, samples, RATE)
    windows = Windows(RATE, round(clip * RATE), round(length * RATE), round(hop * RATE), 1)
    cut = []
    left_out = 0
    for stretch in read_stretches(file, windows):
        assert len(stretch.samples) <= windows.clip
        left_out += stretch.left_out
        cut += [(stretch.first + start, stretch.samples[start : start + windows.length]) for start in stretch.starts]
    end = windows.clip if windows.clip < len(samples) <= 1.05 * windows.clip else len(samples)
    last = max(0, end - windows.length)
    assert [start for start, _ in cut] == [*range(0, last, windows.hop), last]
    assert left_out == len(samples) - end
    for start, window in cut:
        expected = samples[start : min(start + windows.length, end)] / 2**15
        np.testing.assert_array_equal(window, expected.astype(np.float32))


@pytest.mark.slow
def test_memory_does_not_grow_with_the_recording(noise: np.ndarray, tmp_path: Path) -> None:
    file = tmp_path / "x.flac"
    with soundfile.SoundFile(file, "w", RATE, 1) as sound:
        for _ in range(24):
            sound.write(noise)
    tracemalloc.start()
    count = sum(len(stretch.starts) for stretch in read_stretches(file, Windows(RATE, 30 * RATE, RATE, RATE, 1)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 1200
    assert peak < 12e6  # the recording has 38 MB


def test_short_recording_is_refused(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "x.wav", np.linspace(-0.5, 0.5, 80), RATE)
    with pytest.raises(AudioError, match=r"too short: 0.01 s, and the model needs 0.0125 s"):
        list(read_stretches(tmp_path / "x.wav", Windows(RATE, 1000, 1000, 1000, 100)))
