"""Cut long recordings into segments, in bounded memory."""

from collections.abc import Iterable, Iterator
from math import ceil
from pathlib import Path
from typing import NamedTuple

import numpy as np

from stages.common.audio import open_audio, read_blocks, resample_chunks

# A recording that is up to this share longer than a segment is cut there: clips that are named after a round number of
# seconds often have a few samples more, and a second segment would count most of them twice.
SLACK = 0.05


class Segment(NamedTuple):
    """A section of a recording. All numbers in samples.

    samples: float32, (samples,). start: where they start in the recording.
    planned: where they would start if the recording went on; after `start` only in the last segment.
    is_last: whether the recording ends with it. left_out: at the end of the recording, in no segment.
    """

    samples: np.ndarray
    start: int
    planned: int
    is_last: bool = False
    left_out: int = 0


def cut_segments(chunks: Iterable[np.ndarray], length: int, step: int) -> Iterator[Segment]:
    """Cut a recording into segments of one length.

    The last segment ends with the recording, so it may overlap the one before. A recording that is shorter than a
    segment is one segment; one that is up to SLACK longer, too, without its end.

    Args:
        chunks: of the recording, float32, each (samples,).
        length: samples in a segment. step: from the start of a segment to that of the next.
    """
    held, origin, first = np.empty(0, np.float32), 0, 0  # origin: of the recording, where the held samples start
    for chunk in chunks:
        held = np.concatenate([held, chunk])
        # The end of the recording decides where its last segment starts, so a segment waits until there is more.
        while origin + len(held) > first + length + (0 if first else round(SLACK * length)):
            start = first - origin
            yield Segment(held[start : start + length], first, first)
            first += step
            drop = max(0, min(first - origin, len(held) - length))
            held, origin = held[drop:], origin + drop
    total = origin + len(held)
    end = total if first else min(total, length)
    start = max(0, end - length)
    yield Segment(held[start - origin : end - origin], start, first, True, total - end)


def read_segments(file: Path, sampling_rate: int, seconds: float) -> Iterator[Segment]:
    """Read a file in segments, one after the other. sampling_rate: Hz, of the segments. seconds: their length."""
    length = round(seconds * sampling_rate)
    with open_audio(file) as sound:
        chunks = resample_chunks(read_blocks(sound), sound.samplerate, sampling_rate)
        yield from cut_segments(chunks, length, length)


def count_segments(recording: float, seconds: float) -> int:
    """Return how many segments a recording has; off by one if it ends within a sample of the end of a segment.

    Args:
        recording: its length in seconds. seconds: the length of a segment.
    """
    return 1 if recording <= (1 + SLACK) * seconds else ceil(recording / seconds)
