import io
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from helpers import tone
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.download.dataset import synthetic_music
from stages.download.dataset.kept_results import KeptResults
from stages.download.dataset.repetitions import (
    SAMPLING_RATE,
    coincide,
    expand,
    find_candidates,
    find_peaks,
    fingerprint,
    number_recordings,
)

CLIP_RATE = synthetic_music.SAMPLING_RATE
SECONDS = 10


def compose(genre: str, number: int, seconds: float = SECONDS) -> np.ndarray:
    """float32, shape (samples,), in [-1, 1]."""
    return (synthetic_music.compose(genre, seconds, [0, synthetic_music.GENRES.index(genre), number]) / 2**15).astype(
        np.float32
    )


def recode(samples: np.ndarray, sampling_rate: int, codec: str) -> np.ndarray:
    file = io.BytesIO()
    soundfile.write(file, samples, sampling_rate, format=codec)
    file.seek(0)
    return soundfile.read(file, dtype="float32")[0]


ALTERED: dict[str, tuple[Callable[[np.ndarray], np.ndarray], int]] = {
    "level": (lambda clip: 0.2 * clip, CLIP_RATE),
    "offset": (lambda clip: clip[31_234:], CLIP_RATE),
    "part": (lambda clip: clip[77_777:-50_000], CLIP_RATE),
    "ogg": (lambda clip: recode(clip, CLIP_RATE, "OGG"), CLIP_RATE),
    "mp3": (lambda clip: recode(soxr.resample(clip, CLIP_RATE, 8_000), 8_000, "MP3"), 8_000),
    "sampling rate": (lambda clip: soxr.resample(clip, CLIP_RATE, 16_000), 16_000),
    "all": (lambda clip: recode(0.5 * soxr.resample(clip[31_234:], CLIP_RATE, 8_000), 8_000, "MP3"), 8_000),
}


def write(folder: Path, clips: list[tuple[np.ndarray, int]]) -> list[Path]:
    files = [folder / f"{number}.wav" for number in range(len(clips))]
    for file, (samples, sampling_rate) in zip(files, clips):
        soundfile.write(file, samples, sampling_rate)
    return files


def groups_of(files: list[Path]) -> set[frozenset[int]]:
    """Return the positions of the files of each recording that occurs several times."""
    numbers = number_recordings(files, [str(file) for file in files], KeptResults(Path(os.devnull)))
    assert sorted(set(numbers.values())) == list(range(len(set(numbers.values()))))
    return {frozenset(i for i in numbers if numbers[i] == number) for number in numbers.values()}


@pytest.mark.slow
def test_altered_copies_are_found(tmp_path: Path) -> None:
    clips = [(compose(genre, number), CLIP_RATE) for genre in synthetic_music.GENRES for number in range(4)]
    planted, altered = set(), []
    for number, (alter, sampling_rate) in enumerate([*ALTERED.values()] * 5):
        planted.add(frozenset([number, len(clips) + len(altered)]))
        altered.append((alter(clips[number][0]), sampling_rate))
    found = groups_of(write(tmp_path, clips + altered))
    assert found <= planted
    assert len(found) >= 0.95 * len(planted)


@pytest.mark.slow
def test_real_clips_do_not_match(shared: Path) -> None:
    files = sorted((shared / "data/gtzan-sample").rglob("*.flac"))
    assert len(files) == 50
    assert groups_of(files) == set()


@pytest.mark.slow
def test_altered_copies_of_real_music(tmp_path: Path, shared: Path) -> None:
    files = sorted((shared / "data/gtzan-sample").rglob("*.flac"))[:: 50 // len(ALTERED)][: len(ALTERED)]
    copies = [(alter(soundfile.read(file)[0]), rate) for file, (alter, rate) in zip(files, ALTERED.values())]
    found = groups_of(files + write(tmp_path, copies))
    assert found == {frozenset([number, number + len(files)]) for number in range(len(files))}


def test_same_samples_in_another_container(tmp_path: Path) -> None:
    for name, hz in (("a.wav", 440), ("b.wav", 450), ("c.flac", 440), ("d.aiff", 440)):
        soundfile.write(tmp_path / name, (2**15 * tone(0.2, hz=hz)).astype(np.int16), 22_050)
    assert groups_of(sorted(tmp_path.iterdir())) == {frozenset([0, 2, 3])}


def test_wrong_length_in_header_hides_no_repetition(tmp_path: Path) -> None:
    files = [tmp_path / "a.wav", tmp_path / "b.wav"]
    soundfile.write(files[0], compose("jazz", 0, seconds=3.0), CLIP_RATE)
    content = bytearray(files[0].read_bytes())
    content[40:44] = bytes(4)  # the size of the data
    files[1].write_bytes(content)
    assert number_recordings(files, ["one", "other"], KeptResults(Path(os.devnull))) == {0: 0, 1: 0}
    assert fingerprint(files[0])[0] == fingerprint(files[1])[0]


@pytest.mark.slow
def test_many_copies_of_one_recording(tmp_path: Path) -> None:
    clip = compose("jazz", 0, 5)
    files = write(tmp_path, [(clip * 0.99**number, CLIP_RATE) for number in range(80)])
    assert groups_of(files) == {frozenset(range(80))}


@pytest.mark.slow
def test_shared_loop_is_no_repetition(tmp_path: Path) -> None:
    loop = np.tile(compose("hiphop", 0, 2), SECONDS // 2)
    clips = [(0.5 * (compose(genre, 1) + loop), CLIP_RATE) for genre in synthetic_music.GENRES]
    assert groups_of(write(tmp_path, clips)) == set()


@pytest.mark.slow
def test_shared_jingle_is_no_repetition(tmp_path: Path) -> None:
    jingle = compose("pop", 0, 1.5)
    clips = [(np.concatenate([jingle, compose(genre, 1)]), CLIP_RATE) for genre in synthetic_music.GENRES]
    assert groups_of(write(tmp_path, clips)) == set()


# Jazz repeats itself so much that the search misses a copy at some offsets.
MUSIC = soxr.resample(compose("classical", 0), CLIP_RATE, SAMPLING_RATE)
MUSIC_PEAKS = find_peaks(MUSIC)


@settings(max_examples=15, deadline=None)
@given(gain=st.floats(0.05, 20), start=st.integers(0, 4 * SAMPLING_RATE), before=st.integers(0, SAMPLING_RATE))
def test_copy_at_any_level_or_offset(gain: float, start: int, before: int) -> None:
    copy = np.concatenate([np.zeros(before), gain * MUSIC[start:]]).astype(np.float32)
    peaks = [MUSIC_PEAKS, find_peaks(copy)]
    assert list(find_candidates(peaks)) == [(0, 1)]
    assert coincide(*peaks)


def noise(samples: int) -> np.ndarray:
    return np.random.default_rng(samples).normal(0, 0.1, samples).astype(np.float32)


SOUNDS = {
    "silence": lambda samples: np.zeros(samples, np.float32),
    "constant": lambda samples: np.full(samples, 0.5, np.float32),
    "faint": lambda samples: np.full(samples, 1e-38, np.float32),
    "click": lambda samples: np.eye(1, samples, dtype=np.float32)[0],
    "tone": lambda samples: tone(samples / SAMPLING_RATE, SAMPLING_RATE),
    "noise": noise,
}


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(sorted(SOUNDS)), st.integers(1, 3 * SAMPLING_RATE)), min_size=1, max_size=6))
def test_sounds_with_few_peaks(sounds: list[tuple[str, int]]) -> None:
    peaks = [find_peaks(SOUNDS[name](samples)) for name, samples in sounds]
    for found, (_, samples) in zip(peaks, sounds):
        assert found.shape == (len(found), 2)
        assert len(found) <= 40 * (1 + samples / SAMPLING_RATE)
        assert (np.diff(found[:, 0]) >= 0).all()
    for one, other in find_candidates(peaks):
        assert one < other
        assert not coincide(peaks[one], peaks[other]) or sounds[one][0] == sounds[other][0]


@pytest.mark.parametrize("samples", [1, 100, SAMPLING_RATE // 8])
def test_very_short_files(tmp_path: Path, samples: int) -> None:
    files = write(tmp_path, [(noise(samples), SAMPLING_RATE), (noise(samples + 1), SAMPLING_RATE)])
    assert groups_of(files) == set()


@pytest.mark.slow
@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 5))))
def test_expand_lists_ranges_in_order(ranges: list[tuple[int, int]]) -> None:
    starts, sizes = np.array(ranges, int).reshape(-1, 2).T
    numbers, integers = expand(starts, starts + sizes)
    assert integers.tolist() == [i for start, size in ranges for i in range(start, start + size)]
    assert numbers.tolist() == [number for number, (_, size) in enumerate(ranges) for _ in range(size)]
