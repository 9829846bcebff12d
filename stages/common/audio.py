"""Audio files to samples, by soundfile (libsndfile) and soxr, which bring their own binaries: no FFmpeg needed."""

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
import soxr

EXTENSIONS = {".wav", ".flac", ".ogg", ".mp3", ".au", ".aif", ".aiff"}
BLOCK = 1 << 18  # samples read at a time: 12 s at 22,050 Hz, so that an hour-long file costs no memory
RESAMPLER_REACH = 0.1  # seconds beyond a cut that still shape the samples before it
# libsndfile reads a cut-off WAV, AIFF or AU as if it were whole and says so only in its log.
CUT_OFF = re.compile(r"(?:data|SSND|Data Size)\s*:\s*(\d+) \(should be (\d+)\)")
UNKNOWN_SIZE = 0xFFFFFFFF  # what a program that writes WAV to a pipe puts for the size


class AudioError(Exception):
    """A file that cannot be used; the message is the reason, without the file's name."""


class Facts(NamedTuple):
    """What is known of a clip once it was decoded to its end. sampling_rate in Hz."""

    sampling_rate: int
    channels: int
    seconds: float


def inspect(path: Path) -> Facts:
    """Decode a file from end to end.

    Raises:
        AudioError: the file is empty, broken, cut off, without samples, silent, or has NaN or infinite samples.
    """
    if path.stat().st_size == 0:
        raise AudioError("empty file")
    frames, peak = 0, 0.0
    try:
        with soundfile.SoundFile(path) as file:
            # Not file.blocks: where a file ends early, it hands out memory that was never filled.
            while len(block := file.read(BLOCK, dtype="float32", always_2d=True)):
                if not np.isfinite(block).all():
                    raise AudioError(f"NaN or infinite sample after {frames / file.samplerate:.2f} s")
                frames, peak = frames + len(block), max(peak, float(np.abs(block).max()))
            facts = Facts(file.samplerate, file.channels, frames / file.samplerate)
            expected, log = file.frames, file.extra_info
    except soundfile.LibsndfileError as error:
        raise AudioError(f"broken ({error.error_string.strip().rstrip('.')})") from None
    if _is_cut_off(log) or frames < expected:
        raise AudioError(f"truncated: only {facts.seconds:.2f} s of what its header announces")
    if frames == 0:
        raise AudioError("no samples")
    if peak == 0.0:
        raise AudioError("silent: every sample is zero")
    return facts


def _is_cut_off(log: str) -> bool:
    sizes = [(int(said), int(there)) for said, there in CUT_OFF.findall(log)]
    return any(there < said < UNKNOWN_SIZE - BLOCK for said, there in sizes)


def receptive_field(conv_kernel: list[int], conv_stride: list[int]) -> int:
    """Samples that convolutions need for one frame: DistilHuBERT's seven layers take 400, 25 ms at 16 kHz."""
    samples = 1
    for kernel, stride in zip(reversed(conv_kernel), reversed(conv_stride)):
        samples = (samples - 1) * stride + kernel
    return samples


def load(path: Path, sampling_rate: int, max_seconds: float | None = None) -> np.ndarray:
    """Read a clip as mono at the wanted sampling rate, cut at max_seconds.

    Args:
        sampling_rate: Hz, of the result; the file's own may be any.

    Returns:
        float32, shape (samples,), nominally in [-1, 1].
    """
    with soundfile.SoundFile(path) as file:
        rate = file.samplerate
        frames = -1 if max_seconds is None else round((max_seconds + RESAMPLER_REACH) * rate)
        if file.subtype == "PCM_16":
            # Ten times as fast as libsndfile's own conversion, and the same numbers.
            samples = file.read(frames, dtype="int16", always_2d=True).astype(np.float32)
            samples *= 1 / 2**15
        else:
            samples = file.read(frames, dtype="float32", always_2d=True)
        samples = samples[:, 0] if file.channels == 1 else samples.mean(axis=1)
    samples = soxr.resample(samples, rate, sampling_rate)
    return samples if max_seconds is None else samples[: round(max_seconds * sampling_rate)]
