"""The clips are deterministic; the genres are audible, varied and distinct."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from stages.download.dataset.synthetic_music import GENRES, GROOVES, SAMPLING_RATE, STYLES, compose, parse_chord


def loudness(clip: np.ndarray) -> float:
    """Compute the root mean square of an int16 clip, in dB of full scale."""
    return float(20 * np.log10(np.sqrt(np.mean((clip / 32768) ** 2))))


def spectrum(clip: np.ndarray) -> np.ndarray:
    """Compute the mean log energy in 32 bands, independent of the loudness: float64 (32,)."""
    frames = clip[: len(clip) // 1024 * 1024].reshape(-1, 1024) / clip.std()
    power = np.abs(np.fft.rfft(frames * np.hanning(1024))[:, 1:]) ** 2
    edges = np.unique(np.geomspace(1, 512, 40).astype(int))[:32]
    return np.log(np.add.reduceat(power, edges - 1, axis=1) + 1e-3).mean(axis=0)


@pytest.mark.parametrize("genre", GENRES)
def test_seed_determines_clip(genre: str) -> None:
    clip = compose(genre, 1.5, [0, 1, 2])
    assert clip.tobytes() == compose(genre, 1.5, [0, 1, 2]).tobytes()
    assert not np.array_equal(clip, compose(genre, 1.5, [0, 1, 3]))
    assert not np.array_equal(clip, compose(genre, 1.5, [1, 1, 2]))


def test_clip_is_independent_of_others() -> None:
    alone = compose("jazz", 1.0, [7, 5, 3])
    assert np.array_equal(alone, [compose("jazz", 1.0, [7, 5, k]) for k in range(5)][3])


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(st.sampled_from(GENRES), st.floats(0.0, 3.0), st.integers(0, 2**32))
def test_any_length(genre: str, seconds: float, seed: int) -> None:
    clip = compose(genre, seconds, seed)
    assert clip.dtype == np.int16
    assert clip.shape == (round(seconds * SAMPLING_RATE),)


@pytest.mark.parametrize("genre", GENRES)
def test_loudness_of_every_genre(genre: str) -> None:
    clips = [compose(genre, 2.0, [0, k]) for k in range(8)]
    levels = [loudness(clip) for clip in clips]
    assert min(levels) > -35
    assert max(levels) - min(levels) > 3
    assert max(np.abs(clip.astype(int)).max() for clip in clips) < 32_767


@pytest.mark.parametrize("genre", GENRES)
def test_patterns_are_bars_of_one_metre(genre: str) -> None:
    style = STYLES[genre]
    drums = [pattern for groove in style.grooves for pattern in GROOVES[groove] if pattern]
    assert len({len(pattern) for pattern in [*style.bass, *style.comp, *drums]}) == 1


def test_unknown_genre() -> None:
    with pytest.raises(ValueError, match="polka"):
        compose("polka", 1.0, 0)


@pytest.mark.parametrize(
    ("name", "semitones"),
    [("I", [0, 4, 7]), ("bVII", [10, 14, 17]), ("ii7", [2, 5, 9, 12]), ("V5", [7, 14, 19])],
)
def test_parse_chord(name: str, semitones: list[int]) -> None:
    assert parse_chord(name).tolist() == semitones


@pytest.mark.slow
def test_genres_are_distinct_but_overlap() -> None:
    per_genre = 12
    clips = [compose(genre, 2.0, [0, g, k]) for g, genre in enumerate(GENRES) for k in range(per_genre)]
    labels = np.repeat(np.arange(len(GENRES)), per_genre)
    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=500))
    by_spectrum = cross_val_score(classifier, [spectrum(clip) for clip in clips], labels, cv=4).mean()
    by_loudness = cross_val_score(classifier, [[loudness(clip)] for clip in clips], labels, cv=4).mean()
    assert 0.4 < by_spectrum < 0.98  # chance is 0.1
    assert by_loudness < 0.3
