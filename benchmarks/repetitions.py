"""How many altered copies of a recording the search finds, what it takes for one by mistake, and how long it takes.

Composed clips of 30 s and of 5 s, each with one altered copy; and the time for 1000 clips of GTZAN's length.
"""

import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from itertools import combinations
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import soundfile
import soxr
from tqdm import tqdm

from benchmarks.common import figures_of, report
from stages.common import composer
from stages.common.fingerprints import number_recordings

RATE = composer.SAMPLING_RATE
RECORDINGS, MANY = 500, 1000
LENGTHS = (30, 5)  # seconds: GTZAN's clips and the demo's
ALTERATIONS = {
    "quieter or louder, to clipping": "level",
    "begins later, by up to a fifth": "later",
    "a part, two fifths of it": "part",
    "MP3 at 8 kHz": "mp3",
    "OGG": "ogg",
    "at 16 kHz": "16 kHz",
    "such a part, quieter or louder, as MP3 at 8 kHz": "part level mp3",
}


def compose(folder: Path, number: int, seconds: float) -> Path:
    genre = composer.GENRES[number % len(composer.GENRES)]
    soundfile.write(folder / f"{number}.wav", composer.compose(genre, seconds, number), RATE)
    return folder / f"{number}.wav"


def alter(file: Path, how: str) -> Path:
    """Write a copy of a clip beside it, altered at random in one or several ways."""
    rng = np.random.default_rng(int(file.stem))
    samples, sampling_rate = soundfile.read(file, dtype="float32")
    whole, suffix = len(samples), ".wav"
    if "later" in how:
        samples = samples[int(rng.uniform(0.01, 0.2) * whole) :]
    if "part" in how:
        start = int(rng.uniform(0, 0.6) * whole)
        samples = samples[start : start + int(0.4 * whole)]
    if "level" in how:
        samples = np.clip(samples * 10 ** (rng.choice([-20, -10, 6]) / 20), -1, 1)
    if "mp3" in how:
        samples, sampling_rate, suffix = soxr.resample(samples, sampling_rate, 8_000), 8_000, ".mp3"
    if "16 kHz" in how:
        samples, sampling_rate = soxr.resample(samples, sampling_rate, 16_000), 16_000
    if "ogg" in how:
        suffix = ".ogg"
    copy = file.with_name(f"{file.stem} {how}{suffix}")
    soundfile.write(copy, samples, sampling_rate)
    return copy


def spread(work: Any, *arguments: Any) -> list[Path]:
    """Files made on all cores."""
    with ProcessPoolExecutor() as pool:
        return list(tqdm(pool.map(work, *arguments, chunksize=8), work.__name__, len(arguments[1]), unit="clip"))


def find(files: list[Path]) -> dict[int, int]:
    return number_recordings(files, [str(file) for file in files])


def measure_recall(originals: list[Path]) -> tuple[Counter[str], Counter[str], int]:
    """Copies found and planted, by alteration, and pairs of clips wrongly taken for one recording."""
    hows = [list(ALTERATIONS.values())[i % len(ALTERATIONS)] for i in range(len(originals))]
    copies = spread(alter, originals, hows)
    numbers = find(originals + copies)
    found = Counter(how for i, how in enumerate(hows) if i in numbers and numbers[i] == numbers.get(i + len(originals)))
    false = sum(
        numbers[one] == numbers[other] and (other - one) % len(originals) != 0
        for one, other in combinations(numbers, 2)
    )
    return found, Counter(hows), false


def measure(device: str) -> dict[str, Any]:
    found, false = [], []
    with TemporaryDirectory() as folder:
        for seconds in LENGTHS:
            place = Path(folder, str(seconds))
            place.mkdir()
            number = MANY if seconds == LENGTHS[0] else RECORDINGS
            originals = spread(compose, [place] * number, range(number), [seconds] * number)
            if number == MANY:
                search = figures_of("benchmarks.repetitions", folder=place)
            own, planted, mistaken = measure_recall(originals[:RECORDINGS])
            found.append(own)
            false.append(mistaken)
    rows = [[name, *(f"{own[how]} of {planted[how]}" for own in found)] for name, how in ALTERATIONS.items()]
    rows.append(["all", *(f"{sum(own.values())} of {RECORDINGS} ({own.total() / RECORDINGS:.1%})" for own in found)])
    rows.append(["pairs of other clips taken for one", *map(str, false)])
    text = (
        f"{RECORDINGS} composed clips with an altered copy each: how many copies were found. The search through {MANY} "
        f"clips of {LENGTHS[0]} s took {search['seconds']:.0f} s, with at most {search['peak']:.0f} MB of memory; "
        f"it took {search['found']:.0f} of them for repetitions, and there were none."
    )
    header = ["the copy is", *(f"clips of {seconds} s" for seconds in LENGTHS)]
    return {"title": "Repetitions found in the audio", "text": text, "header": header, "rows": rows}


def search_here() -> None:
    start = time.perf_counter()
    found = find(sorted(Path().glob("*.wav")))
    report(seconds=time.perf_counter() - start, found=len(found))


if __name__ == "__main__":
    search_here()
