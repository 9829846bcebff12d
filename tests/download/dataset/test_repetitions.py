import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from conftest import tone
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.common import composer
from stages.common.fingerprints import RATE, coincide, expand, find_candidates, find_peaks, number_recordings

RATE_OF_CLIPS = composer.SAMPLING_RATE
SECONDS = 10


def compose(genre: str, number: int, seconds: float = SECONDS) -> np.ndarray:
    """float32, shape (samples,), in [-1, 1]."""
    return (composer.compose(genre, seconds, [0, composer.GENRES.index(genre), number]) / 2**15).astype(np.float32)


def recode(samples: np.ndarray, sampling_rate: int, codec: str) -> np.ndarray:
    file = io.BytesIO()
    soundfile.write(file, samples, sampling_rate, format=codec)
    file.seek(0)
    return soundfile.read(file, dtype="float32")[0]


ALTERED: dict[str, tuple[Callable[[np.ndarray], np.ndarray], int]] = {
    "level": (lambda clip: 0.2 * clip, RATE_OF_CLIPS),
    "offset": (lambda clip: clip[31_234:], RATE_OF_CLIPS),
    "part": (lambda clip: clip[77_777:-50_000], RATE_OF_CLIPS),
    "ogg": (lambda clip: recode(clip, RATE_OF_CLIPS, "OGG"), RATE_OF_CLIPS),
    "mp3": (lambda clip: recode(soxr.resample(clip, RATE_OF_CLIPS, 8_000), 8_000, "MP3"), 8_000),
    "sampling rate": (lambda clip: soxr.resample(clip, RATE_OF_CLIPS, 16_000), 16_000),
    "all": (lambda clip: recode(0.5 * soxr.resample(clip[31_234:], RATE_OF_CLIPS, 8_000), 8_000, "MP3"), 8_000),
}


def write(folder: Path, clips: list[tuple[np.ndarray, int]]) -> list[Path]:
    files = [folder / f"{number}.wav" for number in range(len(clips))]
    for file, (samples, sampling_rate) in zip(files, clips):
        soundfile.write(file, samples, sampling_rate)
    return files


def groups_of(files: list[Path]) -> set[frozenset[int]]:
    """Positions of the files of each recording that comes twice or more."""
    numbers = number_recordings(files, [str(file) for file in files])
    assert sorted(set(numbers.values())) == list(range(len(set(numbers.values()))))
    return {frozenset(i for i in numbers if numbers[i] == number) for number in numbers.values()}


def test_altered_copies_are_found_and_no_other_pair(tmp_path: Path) -> None:
    clips = [(compose(genre, number), RATE_OF_CLIPS) for genre in composer.GENRES for number in range(4)]
    planted, altered = set(), []
    for number, (alter, sampling_rate) in enumerate([*ALTERED.values()] * 5):
        planted.add(frozenset([number, len(clips) + len(altered)]))
        altered.append((alter(clips[number][0]), sampling_rate))
    found = groups_of(write(tmp_path, clips + altered))
    assert found <= planted
    assert len(found) >= 0.95 * len(planted)


def test_no_two_clips_of_real_music_are_taken_for_one(shared: Path) -> None:
    files = sorted((shared / "data/gtzan-sample").rglob("*.flac"))
    assert len(files) == 50
    assert groups_of(files) == set()


def test_an_altered_copy_of_real_music_is_found(tmp_path: Path, shared: Path) -> None:
    files = sorted((shared / "data/gtzan-sample").rglob("*.flac"))[:: 50 // len(ALTERED)][: len(ALTERED)]
    copies = [(alter(soundfile.read(file)[0]), rate) for file, (alter, rate) in zip(files, ALTERED.values())]
    found = groups_of(files + write(tmp_path, copies))
    assert found == {frozenset([number, number + len(files)]) for number in range(len(files))}


def test_the_same_samples_in_another_container_are_found_even_without_events(tmp_path: Path) -> None:
    for name, hz in (("a.wav", 440), ("b.wav", 450), ("c.flac", 440), ("d.aiff", 440)):
        soundfile.write(tmp_path / name, (2**15 * tone(0.2, hz=hz)).astype(np.int16), 22_050)
    assert groups_of(sorted(tmp_path.iterdir())) == {frozenset([0, 2, 3])}


def test_many_copies_of_one_recording_are_all_found(tmp_path: Path) -> None:
    clip = compose("jazz", 0, 5)
    files = write(tmp_path, [(clip * 0.99**number, RATE_OF_CLIPS) for number in range(80)])
    assert groups_of(files) == {frozenset(range(80))}


def test_a_loop_that_clips_share_makes_them_no_repetition(tmp_path: Path) -> None:
    loop = np.tile(compose("hiphop", 0, 2), SECONDS // 2)
    clips = [(0.5 * (compose(genre, 1) + loop), RATE_OF_CLIPS) for genre in composer.GENRES]
    assert groups_of(write(tmp_path, clips)) == set()


def test_a_jingle_that_clips_begin_with_makes_them_no_repetition(tmp_path: Path) -> None:
    jingle = compose("pop", 0, 1.5)
    clips = [(np.concatenate([jingle, compose(genre, 1)]), RATE_OF_CLIPS) for genre in composer.GENRES]
    assert groups_of(write(tmp_path, clips)) == set()


JAZZ = soxr.resample(compose("jazz", 1), RATE_OF_CLIPS, RATE)
JAZZ_PEAKS = find_peaks(JAZZ)


@settings(max_examples=15, deadline=None)
@given(gain=st.floats(0.05, 20), start=st.integers(0, 4 * RATE), before=st.integers(0, RATE))
def test_level_and_moment_do_not_matter(gain: float, start: int, before: int) -> None:
    copy = np.concatenate([np.zeros(before), gain * JAZZ[start:]]).astype(np.float32)
    peaks = [JAZZ_PEAKS, find_peaks(copy)]
    assert list(find_candidates(peaks)) == [(0, 1)]
    assert coincide(*peaks)


def noise(samples: int) -> np.ndarray:
    return np.random.default_rng(samples).normal(0, 0.1, samples).astype(np.float32)


SOUNDS = {
    "silence": lambda samples: np.zeros(samples, np.float32),
    "constant": lambda samples: np.full(samples, 0.5, np.float32),
    "faint": lambda samples: np.full(samples, 1e-38, np.float32),
    "click": lambda samples: np.eye(1, samples, dtype=np.float32)[0],
    "tone": lambda samples: tone(samples / RATE, RATE),
    "noise": noise,
}


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(sorted(SOUNDS)), st.integers(1, 3 * RATE)), min_size=1, max_size=6))
def test_clips_with_few_peaks_or_none_are_no_trouble(sounds: list[tuple[str, int]]) -> None:
    peaks = [find_peaks(SOUNDS[name](samples)) for name, samples in sounds]
    for own, (_, samples) in zip(peaks, sounds):
        assert own.shape == (len(own), 2)
        assert len(own) <= 40 * (1 + samples / RATE)
        assert (np.diff(own[:, 0]) >= 0).all()
    for one, other in find_candidates(peaks):
        assert one < other
        assert not coincide(peaks[one], peaks[other]) or sounds[one][0] == sounds[other][0]


@pytest.mark.parametrize("samples", [1, 100, RATE // 8])
def test_very_short_files_are_no_trouble(tmp_path: Path, samples: int) -> None:
    files = write(tmp_path, [(noise(samples), RATE), (noise(samples + 1), RATE)])
    assert groups_of(files) == set()


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 5))))
def test_expand_is_the_ranges_one_after_the_other(ranges: list[tuple[int, int]]) -> None:
    starts, sizes = np.array(ranges, int).reshape(-1, 2).T
    numbers, integers = expand(starts, starts + sizes)
    assert integers.tolist() == [i for start, size in ranges for i in range(start, start + size)]
    assert numbers.tolist() == [number for number, (_, size) in enumerate(ranges) for _ in range(size)]
