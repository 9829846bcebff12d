"""Read audio files with soundfile (libsndfile) and soxr, whose wheels contain their binaries: FFmpeg is not needed."""

import mmap
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
import soxr

from stages.common.containers import CONVERT, SLACK, PatchedFile
from stages.common.containers import AudioError as AudioError
from stages.common.sampling_rate import find_rate_problem
from stages.common.streams import find_change, forget_length

BLOCK = 1 << 18  # samples of all channels that are read at a time: a long file, or one of 100 channels, needs no more
RESAMPLER_REACH = 0.1  # seconds after a cut that still affect the samples before it
STEP = 2**-15  # of a 16-bit sample, relative to full scale
UNKNOWN_FRAMES = 1 << 60  # libsndfile's length of a file that does not state one is larger
# Recordings without sound toggle between the two values around zero, which are further apart in formats of 8 bits.
STEPS = {"ALAW": 16 * STEP, "ULAW": 16 * STEP, "PCM_U8": 2**-7, "PCM_S8": 2**-7}


class AudioFacts(NamedTuple):
    """Properties of a file that was decoded to its end. sampling_rate: Hz."""

    sampling_rate: int
    channels: int
    seconds: float


class Sound(soundfile.SoundFile):
    """A file that is read from its start to its end. soundfile seeks after each block, which fails at some ends."""

    def seekable(self) -> bool:
        """Return False."""
        return False


def open_audio(path: Path) -> Sound:
    """Open a file to read it to its end, also if its header has a wrong length.

    Raises:
        AudioError: the file is cut off, or libsndfile would read only its first part.
        soundfile.LibsndfileError: it cannot be read.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        change = find_change(content)
    return Sound(PatchedFile(path, *change) if change else path)


def read_blocks(sound: Sound, frames: int | None = None) -> Iterator[np.ndarray]:
    """Yield a file's samples in blocks of at most BLOCK samples: float32, shape (frames, channels).

    Args:
        frames: to read at most.
    """
    left = min(sound.frames, sound.frames if frames is None else frames)
    size = max(1, BLOCK // sound.channels)
    while left > 0:
        if sound.subtype == "PCM_16":
            # Ten times as fast as libsndfile's conversion, with the same numbers.
            block = sound.read(min(size, left), dtype="int16", always_2d=True).astype(np.float32)
            block *= STEP
        else:
            block = sound.read(min(size, left), dtype="float32", always_2d=True)
        if not len(block):
            return
        yield block
        left -= len(block)


def mix(block: np.ndarray) -> np.ndarray:
    """Return the mean of the channels, shape (frames,). block: shape (frames, channels)."""
    return block[:, 0] if block.shape[1] == 1 else block.mean(axis=1)


def inspect_audio(path: Path) -> AudioFacts:
    """Decode a file from end to end.

    Raises:
        AudioError: the file is empty, broken, cut off, without samples, silent, or has NaN or infinite samples; it has
            more data than its header states; or its sampling rate is outside the limits.
    """
    if path.stat().st_size == 0:
        raise AudioError("empty file")
    frames, low, high = 0, np.inf, -np.inf
    try:
        with open_audio(path) as sound:
            rate, step = sound.samplerate, STEPS.get(sound.subtype, STEP)
            if problem := find_rate_problem(rate):
                raise AudioError(f"{problem}; resample the clip, or correct its header")
            for block in read_blocks(sound):
                with np.errstate(over="ignore"):
                    mono = mix(block)
                if not np.isfinite(block).all() or not np.isfinite(mono).all():
                    raise AudioError(f"NaN, infinite or too large sample after {frames / rate:.2f} s")
                frames, low, high = frames + len(block), min(low, float(mono.min())), max(high, float(mono.max()))
            facts, expected = AudioFacts(rate, sound.channels, frames / rate), sound.frames
    except soundfile.LibsndfileError as error:
        reason = error.error_string.removeprefix("Error : ").strip().rstrip(".")
        raise AudioError(f"broken ({reason}); if a player plays it, {CONVERT}") from None
    if frames == 0:
        raise AudioError("no samples")
    if frames + SLACK < expected < UNKNOWN_FRAMES:
        raise AudioError(f"truncated: it ends after {frames / rate:.2f} s of the {expected / rate:.2f} s in its header")
    if more := count_more_frames(path, frames):
        total = (frames + more) / rate
        raise AudioError(
            f"more data than its header states: {more / rate:.2f} of {total:.2f} s would be lost; {CONVERT}"
        )
    if high - low <= step:
        raise AudioError("silent: the mean of its channels does not change, apart from the last bit")
    return facts


def count_more_frames(path: Path, frames: int) -> int:
    """Count the samples of a FLAC file after the end that its header states; 0 for at most SLACK, and other formats."""
    with path.open("rb") as file:
        change = forget_length(file.read(BLOCK))
    if change is None:
        return 0
    more = -frames
    with Sound(PatchedFile(path, *change)) as sound:
        try:
            for part in (frames, None):
                for block in read_blocks(sound, part):
                    more += len(block)
        except soundfile.LibsndfileError:
            pass  # at a tag after the end
    return more if more > SLACK else 0


def load_audio(path: Path, sampling_rate: int, max_seconds: float | None = None) -> np.ndarray:
    """Read a clip as mono at the given sampling rate, cut at max_seconds.

    Args:
        sampling_rate: Hz, of the result; the file may have any.

    Returns:
        float32, shape (samples,), nominally in [-1, 1].
    """
    with open_audio(path) as sound:
        rate = sound.samplerate
        frames = None if max_seconds is None else round((max_seconds + RESAMPLER_REACH) * rate)
        samples = resample(read_blocks(sound, frames), rate, sampling_rate)
    return samples if max_seconds is None else samples[: round(max_seconds * sampling_rate)]


def resample(blocks: Iterable[np.ndarray], rate: int, sampling_rate: int) -> np.ndarray:
    """Mix blocks of shape (frames, channels) to mono, and resample them: float32, shape (samples,)."""
    samples = bytearray()  # grows in place, so that a long clip is in memory once
    for chunk in resample_chunks(blocks, rate, sampling_rate):
        samples += chunk.data
    return np.frombuffer(samples, np.float32)


def resample_chunks(blocks: Iterable[np.ndarray], rate: int, sampling_rate: int) -> Iterator[np.ndarray]:
    """Do as `resample`, and yield the samples as they come, so that memory does not grow with them."""
    resampler = soxr.ResampleStream(rate, sampling_rate, 1, dtype="float32")
    for block in blocks:
        yield resampler.resample_chunk(mix(block))
    yield resampler.resample_chunk(np.empty(0, np.float32), last=True)


def is_silent(samples: np.ndarray) -> bool:
    """Return whether mono samples are constant, apart from the last of 16 bits, and from a hundredth of the samples.

    A sound that is too high for the sampling rate leaves rounding noise, and clicks at its start and end.
    """
    return bool(np.mean(np.abs(samples - samples.mean()) > STEP) < 0.01)


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
