"""Clips that repeat one recording, found in the audio itself: whatever their names, files, levels and codecs.

A clip's fingerprint is its constellation of spectral peaks (Wang, "An industrial-strength audio search algorithm",
ISMIR 2003). Hashed pairs of peaks lead to the few pairs of clips worth a closer look; there the peaks of both must
coincide at one shift in time, and far more than at any other, or else clips of one tempo, kit and key would do.

Found: the same recording at another level, moment, length, sampling rate or codec. Not found: another speed or pitch,
another performance, excerpts with little in common, sounds without events, such as a steady tone or a metronome.

No well-kept library does it with pip alone: pyacoustid needs the system's Chromaprint; pydejavu, pylastfp and qfp had
no release in years, audfprint2 is at 0.1; shazamio-core makes fingerprints for a web service and compares none.
"""

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import networkx
import numpy as np
import soundfile
import soxr
from scipy.ndimage import maximum_filter
from tqdm import tqdm

from stages.common.audio import BLOCK

RATE = 8_000  # Hz: what lies above 4 kHz does not survive every codec
LONGEST = 300  # seconds of a clip that are compared, so that an hour-long file costs little memory
WINDOW, HOP = 512, 128  # samples: 64 ms, every 16 ms
FRAMES_PER_SECOND = RATE // HOP
FLOOR = 1e-4  # of the loudest: -80 dB
RISE = 0.35  # nepers, 3 dB, by which a peak stands out from its band's mean
REACH = 6  # frames and bands around a peak that hold no higher one
PEAKS_PER_SECOND = 40

FAN = 4  # later peaks that each peak is paired with
FARTHEST = 63  # frames and bands between the two
MOST_HASHES = 20_000_000  # in the index, 0.6 GB; of a larger data set every second, third ... hash is taken
COMMON = 64  # places of one hash that are looked at, the first ones: what most clips have tells little
ROUGHLY = 8  # frames to which two clips' shift is first told
FEWEST_HASHES, HASH_SHARE = 6, 0.01  # in common at one shift, of the shorter clip's: worth a closer look

FEWEST_PEAKS, PEAK_SHARE = 30, 0.1  # that coincide, of the shorter clip's
LEAST_SHARE = 0.4  # of the peaks where both clips play; of two composed clips, 0.34 coincided at most
LEAST_LEAD = 1.15  # times the share at any other shift; 1 where nothing but a beat coincides


def number_recordings(files: list[Path], sha256s: list[str]) -> dict[int, int]:
    """Position of a file -> number of its recording, for those that share theirs with another file.

    sha256s: of each file's bytes; files of the same bytes are listened to once.
    """
    graph = networkx.Graph()
    alone: dict[str, int] = {}
    graph.add_edges_from((alone.setdefault(sha256, i), i) for i, sha256 in enumerate(sha256s))
    heard: dict[bytes, int] = {}
    peaks = []
    for (samples, own_peaks), i in zip(listen([files[i] for i in alone.values()]), alone.values()):
        graph.add_edge(heard.setdefault(samples, i), i)
        if heard[samples] == i:
            peaks.append(own_peaks)
    clips = list(heard.values())
    graph.add_edges_from((clips[a], clips[b]) for a, b in find_candidates(peaks) if coincide(peaks[a], peaks[b]))
    parts = sorted(sorted(part) for part in networkx.connected_components(graph) if len(part) > 1)
    return {i: number for number, part in enumerate(parts) for i in part}


def listen(files: list[Path]) -> Iterator[tuple[bytes, np.ndarray]]:
    """Fingerprint files in their order, on all cores (decoding and NumPy release the interpreter's lock)."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield from tqdm(pool.map(fingerprint, files), "listen", len(files), unit="clip")


def fingerprint(file: Path) -> tuple[bytes, np.ndarray]:
    """SHA-256 of a clip's samples, whatever the container, and its peaks as `find_peaks` returns them."""
    mono = []
    with soundfile.SoundFile(file) as sound:
        rate = sound.samplerate
        samples = hashlib.sha256(b"%d Hz, %d channels" % (rate, sound.channels))
        while len(block := sound.read(BLOCK, dtype="float32", always_2d=True)):
            samples.update(block)
            if len(mono) * BLOCK < LONGEST * rate:
                mono.append(block.mean(axis=1))
    return samples.digest(), find_peaks(soxr.resample(np.concatenate(mono), rate, RATE)[: LONGEST * RATE])


def find_peaks(samples: np.ndarray) -> np.ndarray:
    """The strongest local maxima of each second's spectrogram: int32, shape (peaks, 2), rising (frame, band).

    Args:
        samples: float32, shape (samples,), mono at 8 kHz.
    """
    if len(samples) < WINDOW or not samples.any():
        return np.empty((0, 2), np.int32)
    frames = np.lib.stride_tricks.sliding_window_view(samples, WINDOW)[::HOP]
    level = np.abs(np.fft.rfft(frames * np.hanning(WINDOW).astype(np.float32)))[:, 1:-1]
    level = np.log(np.maximum(level, max(level.max() * FLOOR, np.finfo(np.float32).tiny)))
    # Less each band's mean: what equalisers and codecs do to a band is gone, and so are steady tones.
    level -= level.mean(axis=0)
    frame, band = np.nonzero((maximum_filter(level, 2 * REACH + 1) == level) & (level > RISE))
    second = frame // FRAMES_PER_SECOND
    strongest = np.lexsort((-level[frame, band], second))
    rank = np.arange(len(second)) - np.searchsorted(second, second)
    kept = np.sort(strongest[rank < PEAKS_PER_SECOND])
    return np.stack([frame[kept], band[kept]], axis=1).astype(np.int32)


def hash_pairs(peaks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A hash of each pair of near peaks, and the first one's frame: both int32, shape (pairs,)."""
    frame, band = peaks.T
    hashes, frames = [frame[:0]], [frame[:0]]
    paired = np.zeros(len(peaks), int)
    for lag in range(1, len(peaks)):
        later, higher = frame[lag:] - frame[:-lag], band[lag:] - band[:-lag]
        near = (later > 0) & (later <= FARTHEST) & (np.abs(higher) <= FARTHEST) & (paired[:-lag] < FAN)
        if later.min() > FARTHEST:
            break
        paired[:-lag] += near
        hashes.append(((band[:-lag] << 13) + ((higher + FARTHEST) << 6) + later)[near])
        frames.append(frame[:-lag][near])
    return np.concatenate(hashes), np.concatenate(frames)


def find_candidates(peaks: list[np.ndarray]) -> Iterator[tuple[int, int]]:
    """Pairs of clips, by their positions, that have some hashes in common at about one shift in time."""
    pairs = [hash_pairs(own) for own in peaks]
    every = 1 + sum(len(hashes) for hashes, _ in pairs) // MOST_HASHES
    # A part is taken by value, and so is the same in all clips.
    pairs = [(hashes[hashes % every == 0], frames[hashes % every == 0]) for hashes, frames in pairs]
    sizes = np.array([len(hashes) for hashes, _ in pairs])
    index, frames = (np.concatenate(column) for column in zip(*pairs))
    order = np.argsort(index, kind="stable")
    index, frames = index[order], frames[order]
    clips = np.repeat(np.arange(len(peaks)), sizes)[order].astype(np.int32)
    del order
    span = 2 * (LONGEST * RATE // HOP // ROUGHLY + 1)
    for clip, (own, own_frames) in enumerate(tqdm(pairs, "compare", unit="clip")):
        starts, stops = np.searchsorted(index, own, "left"), np.searchsorted(index, own, "right")
        ones, others = expand(starts, np.minimum(stops, starts + COMMON))
        earlier = clips[others] < clip
        ones, others = ones[earlier], others[earlier]
        shifts = (frames[others] - own_frames[ones]) // ROUGHLY + span // 2
        places, common = np.unique(clips[others].astype(np.int64) * span + shifts, return_counts=True)
        found = places // span
        enough = np.maximum(FEWEST_HASHES, HASH_SHARE * np.minimum(sizes[clip], sizes[found]))
        yield from ((int(other), clip) for other in np.unique(found[common >= enough]))


def expand(starts: np.ndarray, stops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All integers of many ranges: each one's range and the integer itself, both int64, shape (integers,)."""
    sizes = stops - starts
    ranges = np.repeat(np.arange(len(sizes)), sizes)
    return ranges, np.arange(len(ranges)) + np.repeat(starts - np.cumsum(sizes) + sizes, sizes)


def coincide(peaks: np.ndarray, others: np.ndarray) -> bool:
    """Whether two clips' peaks lie on each other, to a frame and a band, at one shift in time and less at any other."""
    frame, band = peaks.T
    other_frame, other_band = others[np.argsort(others[:, 1], kind="stable")].T
    ones, near = expand(np.searchsorted(other_band, band - 1, "left"), np.searchsorted(other_band, band + 1, "right"))
    zero = frame[-1] + 1  # where a shift of zero is counted
    hits = np.bincount(other_frame[near] - frame[ones] + zero, minlength=zero + others[-1, 0] + 2)
    hits[1:-1] += hits[:-2] + hits[2:]
    shifts = np.arange(len(hits)) - zero
    start, stop = np.maximum(0, -shifts), np.minimum(frame[-1], others[-1, 0] - shifts)
    own = np.searchsorted(frame, stop, "right") - np.searchsorted(frame, start)
    their = np.searchsorted(others[:, 0], stop + shifts, "right") - np.searchsorted(others[:, 0], start + shifts)
    together = np.maximum(1, np.minimum(own, their))
    share = hits / together
    enough = hits >= max(FEWEST_PEAKS, PEAK_SHARE * min(len(peaks), len(others)))
    best = np.argmax(np.where(enough, hits * share, 0))
    elsewhere = (np.abs(shifts - shifts[best]) > REACH) & (together >= together[best] / 2)
    return bool(enough[best] and share[best] >= max(LEAST_SHARE, LEAST_LEAD * share[elsewhere].max(initial=0)))
