"""Measure the search for repetitions: how many altered copies it finds, its false positives, its time and memory.

`python -m benchmarks.repetitions` searches the WAV files of the current folder.
"""

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from itertools import combinations
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import soundfile
import soxr
from tqdm import tqdm

from benchmarks.common import Benchmark, Result, print_measurement, run_measurement, time_call
from stages.download.dataset.kept_results import KeptResults
from stages.download.dataset.repetitions import number_recordings
from stages.download.dataset.synthetic_music import GENRES, SAMPLING_RATE, compose

RECORDINGS = 500  # with a copy each
SEARCHED = 1000  # without copies, in the measurement of time and memory
LENGTHS = (30, 5)  # seconds: GTZAN's clips and the demo's
# What the table calls an alteration -> what `alter` applies.
ALTERATIONS = {
    "quieter, or louder and clipped": "level",
    "up to a fifth cut off at the start": "start",
    "excerpt of two fifths": "excerpt",
    "MP3 at 8 kHz": "mp3",
    "OGG": "ogg",
    "resampled to 16 kHz": "16 kHz",
    "excerpt of two fifths, quieter or louder, MP3 at 8 kHz": "excerpt level mp3",
}
# Results that hold a `text` have these numbers only there.
NUMBERS_IN_TEXT = re.compile(
    r"took (?P<seconds>\d+) s, with at most (?P<peak>\d+) MB of memory; it took (?P<found>\d+)"
)


def write_clip(folder: Path, number: int, seconds: float) -> Path:
    """Write a synthetic clip whose seed is its number."""
    genre = GENRES[number % len(GENRES)]
    soundfile.write(folder / f"{number}.wav", compose(genre, seconds, number), SAMPLING_RATE)
    return folder / f"{number}.wav"


def alter(file: Path, alteration: str) -> Path:
    """Write a copy of a clip beside it, altered at random in one or several ways."""
    rng = np.random.default_rng(int(file.stem))
    samples, sampling_rate = soundfile.read(file, dtype="float32")
    length, suffix = len(samples), ".wav"
    if "start" in alteration:
        samples = samples[int(rng.uniform(0.01, 0.2) * length) :]
    if "excerpt" in alteration:
        start = int(rng.uniform(0, 0.6) * length)
        samples = samples[start : start + int(0.4 * length)]
    if "level" in alteration:
        samples = np.clip(samples * 10 ** (rng.choice([-20, -10, 6]) / 20), -1, 1)
    if "mp3" in alteration:
        samples, sampling_rate, suffix = soxr.resample(samples, sampling_rate, 8_000), 8_000, ".mp3"
    if "16 kHz" in alteration:
        samples, sampling_rate = soxr.resample(samples, sampling_rate, 16_000), 16_000
    if "ogg" in alteration:
        suffix = ".ogg"
    copy = file.with_name(f"{file.stem} {alteration}{suffix}")
    soundfile.write(copy, samples, sampling_rate)
    return copy


def map_in_processes(function: Callable[..., Path], *arguments: Iterable[Any], total: int) -> list[Path]:
    """Write files on all cores."""
    with ProcessPoolExecutor() as pool:
        results = pool.map(function, *arguments, chunksize=8)
        return list(tqdm(results, function.__name__, total, unit="clip"))


def search(files: list[Path]) -> dict[int, int]:
    """Return position -> number of its recording, for the files that the search reports as repetitions."""
    return number_recordings(files, [str(file) for file in files], KeptResults(Path(os.devnull)))


def measure_recall(originals: list[Path]) -> tuple[Counter[str], Counter[str], int]:
    """Alter each clip in one way, and search.

    Returns:
        The copies found and the copies written, by alteration, and the pairs of different clips that were mistaken for
        one recording.
    """
    ways = [list(ALTERATIONS.values())[i % len(ALTERATIONS)] for i in range(len(originals))]
    copies = map_in_processes(alter, originals, ways, total=len(originals))
    numbers = search(originals + copies)
    found = Counter(way for i, way in enumerate(ways) if i in numbers and numbers[i] == numbers.get(i + len(originals)))
    mistaken = sum(
        numbers[one] == numbers[other] and (other - one) % len(originals) != 0
        for one, other in combinations(numbers, 2)
    )
    return found, Counter(ways), mistaken


def measure(device: str) -> Result:
    """Search clips of each length, and time the search of the longer ones."""
    found: list[Counter[str]] = []
    mistaken: list[int] = []
    numbers: dict[str, float] = {}
    written: Counter[str] = Counter()
    with TemporaryDirectory() as name:
        for seconds in LENGTHS:
            folder = Path(name, str(seconds))
            folder.mkdir()
            clips = SEARCHED if seconds == LENGTHS[0] else RECORDINGS
            originals = map_in_processes(write_clip, [folder] * clips, range(clips), [seconds] * clips, total=clips)
            if seconds == LENGTHS[0]:
                numbers = run_measurement("benchmarks.repetitions", folder=folder)
            counts, written, pairs = measure_recall(originals[:RECORDINGS])
            found.append(counts)
            mistaken.append(pairs)
    rows = [[name, *(f"{one[way]} of {written[way]}" for one in found)] for name, way in ALTERATIONS.items()]
    rows.append(["all", *(f"{one.total()} of {RECORDINGS} ({one.total() / RECORDINGS:.1%})" for one in found)])
    rows.append(["false positives (pairs of different clips)", *map(str, mistaken)])
    return {"search": numbers, "rows": rows}


def measure_search() -> None:
    """Time the search of the clips in the current folder."""
    found: dict[int, int] = {}
    seconds = time_call(lambda: found.update(search(sorted(Path().glob("*.wav")))))
    print_measurement(seconds=seconds, found=len(found))


def describe(result: Result) -> str:
    """Describe the time, memory and false positives of the search of clips without copies."""
    numbers = result.get("search")
    if numbers is None:
        found_in_text = NUMBERS_IN_TEXT.search(result["text"])
        assert found_in_text
        numbers = found_in_text.groupdict()
    seconds, peak, found = (float(numbers[key]) for key in ("seconds", "peak", "found"))
    return (
        f"The search of {SEARCHED} clips of {LENGTHS[0]} s without copies took {seconds:.0f} s and at most {peak:.0f} "
        f"MB of memory, with {f'{found:.0f} false positives' if found else 'no false positives'}."
    )


BENCHMARK = Benchmark(
    title="Search for repetitions",
    text=f"For each clip length, {RECORDINGS} synthetic clips have an altered copy each. The table shows how many "
    "copies the search finds. The results are of the music of an earlier demo.",
    header=["alteration of the copy", *(f"clips of {seconds} s" for seconds in LENGTHS)],
    measure=measure,
    describe=describe,
)


if __name__ == "__main__":
    measure_search()
