"""Find clips that repeat one recording from the audio itself, whatever their names, files, levels and codecs.

The fingerprint of a clip is its constellation of spectral peaks (Wang, "An industrial-strength audio search algorithm",
ISMIR 2003). Hashed pairs of peaks give the few pairs of clips that may match. Of these, the peaks must coincide at one
shift in time, and clearly more than at any other shift, or clips with the same tempo, drums and key would match too.

It finds the same recording at another level, offset, length, sampling rate or codec. It does not find another speed or
pitch, another performance, excerpts with little overlap, or sounds without events, such as a steady tone or a
metronome.
"""

import base64
import hashlib
from collections.abc import Iterator
from pathlib import Path

import networkx
import numpy as np
from scipy.ndimage import maximum_filter
from tqdm import tqdm

from stages.common.audio import RESAMPLER_REACH, Sound, open_audio, power_spectrogram, read_blocks, resample
from stages.common.threads import map_in_threads
from stages.download.dataset.kept_results import ANALYSIS, KeptResults

SAMPLING_RATE = 8_000  # Hz; not every codec keeps frequencies above 4 kHz
MAX_SECONDS = 300  # seconds of a clip that are compared, so that an hour-long file needs little memory
WINDOW, HOP = 512, 128  # samples: 64 ms, every 16 ms
FRAMES_PER_SECOND = SAMPLING_RATE // HOP
FLOOR = 1e-4  # relative to the loudest, -80 dB
PEAK_THRESHOLD = 0.35  # nepers above the mean of the band, 3 dB
PEAK_NEIGHBOURHOOD = 6  # frames and bands around a peak that have no higher one
PEAKS_PER_SECOND = 40

PAIRS_PER_PEAK = 4  # with later peaks
MAX_PAIR_DISTANCE = 63  # frames and bands
MAX_HASHES = 20_000_000  # in the index, 0.6 GB; a larger data set uses every second, third ... hash
MAX_MATCHES_PER_HASH = 64  # the first ones; a hash that most clips have is no evidence
SHIFT_TOLERANCE = 8  # frames, in the search by hashes
MIN_SHARED_HASHES, MIN_SHARED_HASH_SHARE = 6, 0.01  # at one shift; the share is of the shorter clip's hashes

MIN_PEAKS, MIN_PEAK_SHARE = 30, 0.1  # that coincide; the share is of the shorter clip's peaks
MIN_OVERLAP_SHARE = 0.4  # of the peaks in the overlap; at most 0.34 for two synthetic clips
MIN_LEAD = 1.15  # times the share at any other shift; 1 if only a beat coincides


def number_recordings(files: list[Path], sha256s: list[str], kept: KeptResults) -> dict[int, int]:
    """Number the recordings that occur in several files.

    Args:
        sha256s: of each file's bytes; identical files are analysed once. kept: results of an earlier run.

    Returns:
        Position of a file -> number of its recording, for files that share their recording with another.
    """
    graph = networkx.Graph()
    by_bytes: dict[str, int] = {}
    graph.add_edges_from((by_bytes.setdefault(sha256, i), i) for i, sha256 in enumerate(sha256s))
    by_samples: dict[str, int] = {}
    peaks = []
    packed = map_in_threads(lambda i: kept.compute(ANALYSIS, pack_fingerprint, files[i], sha256s[i]), by_bytes.values())
    for (samples, coded), i in zip(tqdm(packed, "analyse", len(by_bytes), unit="clip"), by_bytes.values()):
        graph.add_edge(by_samples.setdefault(samples, i), i)
        if by_samples[samples] == i:
            peaks.append(np.frombuffer(base64.b64decode(coded), np.int16).reshape(-1, 2).astype(np.int32))
    clips = list(by_samples.values())
    graph.add_edges_from((clips[a], clips[b]) for a, b in find_candidates(peaks) if coincide(peaks[a], peaks[b]))
    parts = sorted(sorted(part) for part in networkx.connected_components(graph) if len(part) > 1)
    return {i: number for number, part in enumerate(parts) for i in part}


def pack_fingerprint(file: Path) -> list[str]:
    """Return what `fingerprint` returns as texts. All peaks of MAX_SECONDS fit in 16 bits."""
    samples, peaks = fingerprint(file)
    return [samples.hex(), base64.b64encode(peaks.astype(np.int16).tobytes()).decode()]


def fingerprint(file: Path) -> tuple[bytes, np.ndarray]:
    """Return the SHA-256 of a clip's samples, whatever the container, and its peaks as `find_peaks` returns them."""
    with open_audio(file) as sound:
        rate = sound.samplerate
        samples = hashlib.sha256(b"%d Hz, %d channels" % (rate, sound.channels))
        mono = resample(
            _hash_blocks(sound, samples, round((MAX_SECONDS + RESAMPLER_REACH) * rate)), rate, SAMPLING_RATE
        )
    return samples.digest(), find_peaks(mono[: MAX_SECONDS * SAMPLING_RATE])


def _hash_blocks(sound: Sound, samples: "hashlib._Hash", frames: int) -> Iterator[np.ndarray]:
    """Hash all of a file, and yield the blocks of the first frames."""
    for block in read_blocks(sound):
        samples.update(block.data)
        if frames > 0:
            yield block[:frames]
        frames -= len(block)


def find_peaks(samples: np.ndarray) -> np.ndarray:
    """Find the strongest local maxima in each second of the spectrogram.

    Args:
        samples: float32, shape (samples,), mono at 8 kHz.

    Returns:
        int32, shape (peaks, 2), sorted (frame, band).
    """
    if len(samples) < WINDOW or not samples.any():
        return np.empty((0, 2), np.int32)
    power = power_spectrogram(samples, WINDOW, slice(None, None, HOP))[:, 1:-1]
    level = 0.5 * np.log(np.maximum(power, max(power.max() * FLOOR**2, np.finfo(np.float32).tiny)))
    # Subtracting the mean of each band removes the effect of equalisers and codecs, and steady tones.
    level -= level.mean(axis=0)
    frame, band = np.nonzero((maximum_filter(level, 2 * PEAK_NEIGHBOURHOOD + 1) == level) & (level > PEAK_THRESHOLD))
    second = frame // FRAMES_PER_SECOND
    strongest = np.lexsort((-level[frame, band], second))
    rank = np.arange(len(second)) - np.searchsorted(second, second)
    selected = np.sort(strongest[rank < PEAKS_PER_SECOND])
    return np.stack([frame[selected], band[selected]], axis=1).astype(np.int32)


def hash_pairs(peaks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a hash of each pair of near peaks, and the frame of the first one: both int32, shape (pairs,)."""
    frame, band = peaks.T
    hashes, frames = [frame[:0]], [frame[:0]]
    paired = np.zeros(len(peaks), int)
    for lag in range(1, len(peaks)):
        later, higher = frame[lag:] - frame[:-lag], band[lag:] - band[:-lag]
        near = (
            (later > 0)
            & (later <= MAX_PAIR_DISTANCE)
            & (np.abs(higher) <= MAX_PAIR_DISTANCE)
            & (paired[:-lag] < PAIRS_PER_PEAK)
        )
        if later.min() > MAX_PAIR_DISTANCE:
            break
        paired[:-lag] += near
        hashes.append(((band[:-lag] << 13) + ((higher + MAX_PAIR_DISTANCE) << 6) + later)[near])
        frames.append(frame[:-lag][near])
    return np.concatenate(hashes), np.concatenate(frames)


def find_candidates(peaks: list[np.ndarray]) -> Iterator[tuple[int, int]]:
    """Yield pairs of clips, by their positions, that share hashes at about one shift in time."""
    pairs = [hash_pairs(clip_peaks) for clip_peaks in peaks]
    every = 1 + sum(len(hashes) for hashes, _ in pairs) // MAX_HASHES
    # Selected by value, so that the same hashes remain in all clips.
    pairs = [(hashes[hashes % every == 0], frames[hashes % every == 0]) for hashes, frames in pairs]
    sizes = np.array([len(hashes) for hashes, _ in pairs])
    index, frames = (np.concatenate(column) for column in zip(*pairs))
    order = np.argsort(index, kind="stable")
    index, frames = index[order], frames[order]
    clips = np.repeat(np.arange(len(peaks)), sizes)[order].astype(np.int32)
    del order
    span = 2 * (MAX_SECONDS * SAMPLING_RATE // HOP // SHIFT_TOLERANCE + 1)
    for clip, (hashes, clip_frames) in enumerate(tqdm(pairs, "compare", unit="clip")):
        starts, stops = np.searchsorted(index, hashes, "left"), np.searchsorted(index, hashes, "right")
        ones, others = expand(starts, np.minimum(stops, starts + MAX_MATCHES_PER_HASH))
        earlier = clips[others] < clip
        ones, others = ones[earlier], others[earlier]
        shifts = (frames[others] - clip_frames[ones]) // SHIFT_TOLERANCE + span // 2
        places, shared = np.unique(clips[others].astype(np.int64) * span + shifts, return_counts=True)
        found = places // span
        enough = np.maximum(MIN_SHARED_HASHES, MIN_SHARED_HASH_SHARE * np.minimum(sizes[clip], sizes[found]))
        yield from ((int(other), clip) for other in np.unique(found[shared >= enough]))


def expand(starts: np.ndarray, stops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """List all integers of many ranges: the index of the range and the integer, both int64, shape (integers,)."""
    sizes = stops - starts
    ranges = np.repeat(np.arange(len(sizes)), sizes)
    return ranges, np.arange(len(ranges)) + np.repeat(starts - np.cumsum(sizes) + sizes, sizes)


def coincide(peaks: np.ndarray, others: np.ndarray) -> bool:
    """Return whether the peaks of two clips coincide, to a frame and a band, at one shift and less at others."""
    frame, band = peaks.T
    other_frame, other_band = others[np.argsort(others[:, 1], kind="stable")].T
    ones, near = expand(np.searchsorted(other_band, band - 1, "left"), np.searchsorted(other_band, band + 1, "right"))
    zero = frame[-1] + 1  # index of a shift of zero
    hits = np.bincount(other_frame[near] - frame[ones] + zero, minlength=zero + others[-1, 0] + 2)
    hits[1:-1] += hits[:-2] + hits[2:]
    shifts = np.arange(len(hits)) - zero
    start, stop = np.maximum(0, -shifts), np.minimum(frame[-1], others[-1, 0] - shifts)
    first = np.searchsorted(frame, stop, "right") - np.searchsorted(frame, start)
    second = np.searchsorted(others[:, 0], stop + shifts, "right") - np.searchsorted(others[:, 0], start + shifts)
    together = np.maximum(1, np.minimum(first, second))
    share = hits / together
    enough = hits >= max(MIN_PEAKS, MIN_PEAK_SHARE * min(len(peaks), len(others)))
    best = np.argmax(np.where(enough, hits * share, 0))
    elsewhere = (np.abs(shifts - shifts[best]) > PEAK_NEIGHBOURHOOD) & (together >= together[best] / 2)
    return bool(enough[best] and share[best] >= max(MIN_OVERLAP_SHARE, MIN_LEAD * share[elsewhere].max(initial=0)))
