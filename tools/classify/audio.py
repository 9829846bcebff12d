"""Read recordings of any length in windows, in bounded memory. FFmpeg decodes what libsndfile cannot."""

import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from stages.common.audio import BLOCK, inspect_audio, open_audio, read_blocks, resample_chunks
from stages.common.containers import AudioError
from stages.common.extensions import UNDECODABLE
from stages.common.sampling_rate import find_rate_problem
from stages.common.segments import cut_segments

AU_HEADER = struct.Struct(">4s5I")  # magic, offset of the samples, their size, encoding, Hz, channels


class Windows(NamedTuple):
    """How recordings are cut. All lengths in samples at `sampling_rate`, in Hz.

    clip: what the feature extractor gets at a time, at most, as when the clips of the training were encoded.
    length: of a window, at most `clip`. hop: from the start of a window to that of the next, at most `length`.
    shortest: what the model needs.
    """

    sampling_rate: int
    clip: int
    length: int
    hop: int
    shortest: int


class Stretch(NamedTuple):
    """A section of a recording that is encoded at once.

    samples: float32, (samples,). first: where they start in the recording, in samples.
    starts: of its windows, in samples after `first`.
    left_out: samples at the end of the recording that no window has.
    """

    samples: np.ndarray
    first: int
    starts: list[int]
    left_out: int = 0


def read_stretches(file: Path, windows: Windows) -> Iterator[Stretch]:
    """Read a recording from its start to its end, each window in exactly one stretch.

    The last window ends with the recording, so it may overlap the one before. A recording that is shorter than a window
    is one window.

    Raises:
        AudioError: it is broken or too short, or needs FFmpeg, which is not installed.
    """
    clip, length, hop, shortest = windows[1:]
    step = (clip - length) // hop * hop + hop  # from a stretch to the next
    for segment in cut_segments(_resample(file, windows.sampling_rate), clip, step):
        starts = list(range(0, clip - length + 1, hop))
        if segment.is_last:
            end = segment.start + len(segment.samples)
            if end < shortest:
                needed = shortest / windows.sampling_rate
                raise AudioError(f"too short: {end / windows.sampling_rate:.3g} s, and the model needs {needed:.3g} s")
            last = max(0, end - length)
            starts = [start - segment.start for start in (*range(segment.planned, last, hop), last)]
        yield Stretch(segment.samples, segment.start, starts, segment.left_out)


def _resample(file: Path, sampling_rate: int) -> Iterator[np.ndarray]:
    """Yield a recording as mono at a sampling rate: float32, (samples,)."""
    if file.suffix.lower() in UNDECODABLE:
        with _decode(file) as (rate, blocks):
            yield from resample_chunks(blocks, rate, sampling_rate)
        return
    inspect_audio(file)  # to its end, by the rules of download: a broken file has no result, instead of a part of it
    with open_audio(file) as sound:
        yield from resample_chunks(read_blocks(sound), sound.samplerate, sampling_rate)


@contextmanager
def _decode(file: Path) -> Iterator[tuple[int, Iterator[np.ndarray]]]:
    """Run the program ffmpeg; yield the sampling rate in Hz and blocks of samples, float32, (frames, channels).

    It decodes at the sampling rate of the file, because it resamples differently.

    Raises:
        AudioError: FFmpeg is not installed, or cannot decode the file.
    """
    program = shutil.which("ffmpeg")
    if program is None:
        raise AudioError(
            f"{file.suffix} needs FFmpeg, which is not installed; install it, e.g. apt install ffmpeg, or convert the "
            f"file elsewhere: ffmpeg -i x{file.suffix} x.flac"
        )
    # Of the network and other files, a playlist could ask for anything.
    source = ["-protocol_whitelist", "file", "-i", f"file:{file.absolute()}", "-map", "0:a:0"]
    command = [program, "-nostdin", "-v", "error", "-xerror", *source, "-c:a", "pcm_f32be", "-f", "au", "-"]
    with (
        tempfile.TemporaryFile() as messages,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=messages) as process,
    ):
        try:
            assert process.stdout is not None
            header = process.stdout.read(AU_HEADER.size)
            if len(header) < AU_HEADER.size:
                _require_success(process, messages)
                raise AudioError("FFmpeg finds no audio in it")
            _, offset, _, _, rate, channels = AU_HEADER.unpack(header)
            if problem := find_rate_problem(rate):
                raise AudioError(problem)
            process.stdout.read(offset - AU_HEADER.size)
            yield rate, _read_floats(process.stdout, channels)
            _require_success(process, messages)
        finally:
            process.kill()


def _read_floats(output: IO[bytes], channels: int) -> Iterator[np.ndarray]:
    """Yield blocks of float32, (frames, channels), from a stream of big-endian numbers."""
    frame = 4 * channels  # bytes
    empty = True
    while content := output.read(max(1, BLOCK // channels) * frame):
        block = np.frombuffer(content, ">f4", len(content) // frame * channels).astype(np.float32)
        if not np.isfinite(block).all():
            raise AudioError("NaN or infinite sample")
        empty = empty and not len(block)
        yield block.reshape(-1, channels)
    if empty:
        raise AudioError("no samples")


def _require_success(process: "subprocess.Popen[bytes]", messages: IO[bytes]) -> None:
    """Raise AudioError if FFmpeg ended with an error."""
    if process.wait():
        messages.seek(0)
        lines = [line for line in messages.read().decode("utf-8", "replace").split("\n") if line.strip()]
        raise AudioError(f"FFmpeg cannot decode it: {lines[0] if lines else 'no reason given'}")
