"""Read audio files with soundfile (libsndfile) and soxr, whose wheels contain their binaries: FFmpeg is not needed."""

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
import soxr

BLOCK = 1 << 18  # samples read at a time: 12 s at 22,050 Hz, so that an hour-long file needs little memory
RESAMPLER_REACH = 0.1  # seconds after a cut that still affect the samples before it
# libsndfile reads a truncated WAV, AIFF or AU without an error; only its log reports it.
TRUNCATED = re.compile(r"(?:data|SSND|Data Size)\s*:\s*(\d+) \(should be (\d+)\)")
UNKNOWN_SIZE = 0xFFFFFFFF  # the size that a program writes if its WAV goes to a pipe


class AudioError(Exception):
    """A file that cannot be used; the message is the reason, without the file's name."""


class AudioFacts(NamedTuple):
    """Properties of a file that was decoded to its end. sampling_rate: Hz."""

    sampling_rate: int
    channels: int
    seconds: float


def inspect_audio(path: Path) -> AudioFacts:
    """Decode a file from end to end.

    Raises:
        AudioError: the file is empty, broken, cut off, without samples, silent, or has NaN or infinite samples.
    """
    if path.stat().st_size == 0:
        raise AudioError("empty file")
    frames, peak = 0, 0.0
    try:
        with soundfile.SoundFile(path) as file:
            # Not file.blocks: if a file ends early, it returns uninitialised memory.
            while len(block := file.read(BLOCK, dtype="float32", always_2d=True)):
                if not np.isfinite(block).all():
                    raise AudioError(f"NaN or infinite sample after {frames / file.samplerate:.2f} s")
                frames, peak = frames + len(block), max(peak, float(np.abs(block).max()))
            facts = AudioFacts(file.samplerate, file.channels, frames / file.samplerate)
            expected, log = file.frames, file.extra_info
    except soundfile.LibsndfileError as error:
        raise AudioError(f"broken ({error.error_string.strip().rstrip('.')})") from None
    if _is_truncated(log) or frames < expected:
        raise AudioError(f"truncated: it ends after {facts.seconds:.2f} s, before the length in its header")
    if frames == 0:
        raise AudioError("no samples")
    if peak == 0.0:
        raise AudioError("silent: every sample is zero")
    return facts


def _is_truncated(log: str) -> bool:
    sizes = [(int(stated), int(actual)) for stated, actual in TRUNCATED.findall(log)]
    return any(actual < stated < UNKNOWN_SIZE - BLOCK for stated, actual in sizes)


def load_audio(path: Path, sampling_rate: int, max_seconds: float | None = None) -> np.ndarray:
    """Read a clip as mono at the given sampling rate, cut at max_seconds.

    Args:
        sampling_rate: Hz, of the result; the file may have any.

    Returns:
        float32, shape (samples,), nominally in [-1, 1].
    """
    with soundfile.SoundFile(path) as file:
        rate = file.samplerate
        frames = -1 if max_seconds is None else round((max_seconds + RESAMPLER_REACH) * rate)
        if file.subtype == "PCM_16":
            # Ten times as fast as libsndfile's conversion, with the same numbers.
            samples = file.read(frames, dtype="int16", always_2d=True).astype(np.float32)
            samples *= 1 / 2**15
        else:
            samples = file.read(frames, dtype="float32", always_2d=True)
        samples = samples[:, 0] if file.channels == 1 else samples.mean(axis=1)
    samples = soxr.resample(samples, rate, sampling_rate)
    return samples if max_seconds is None else samples[: round(max_seconds * sampling_rate)]


def power_spectrogram(samples: np.ndarray, frame: int, starts: np.ndarray | slice) -> np.ndarray:
    """Compute the power spectrum of frames, with a Hann window.

    Args:
        samples: float32, shape (samples,); zeros are added if they are fewer than a frame.
        frame: samples in a frame.
        starts: where the frames start, or a slice with their distance as its step.

    Returns:
        float32, shape (frames, frame // 2 + 1).
    """
    from scipy.fft import rfft  # six times as fast as NumPy's; imported here, because most stages do not need it

    window = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(frame) / frame)).astype(np.float32)
    samples = np.pad(samples, (0, max(0, frame - len(samples))))
    frames = np.lib.stride_tricks.sliding_window_view(samples, frame)[starts]
    spectrum = rfft(frames * window)
    return spectrum.real**2 + spectrum.imag**2
