from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from conftest import tone, write_clips
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.common.baseline import BANDS, FRAME, RATE, baseline, spectra, spectrum
from stages.common.stage import StageError


def listed(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """clips.csv and splits.csv of a folder of clips: every fourth of each label is for the test."""
    paths = sorted(folder.rglob("*.wav"))
    clips = pd.DataFrame(
        {"clip": [p.stem for p in paths], "label": [p.parent.name for p in paths], "path": [str(p) for p in paths]}
    )
    place = clips.groupby("label").cumcount()
    return clips, clips[["clip"]].assign(split=np.where(place % 4 == 1, "test", "train"))


@settings(deadline=None)
@given(st.integers(0, 3 * FRAME))
def test_a_clip_of_any_length_has_a_spectrum(length: int) -> None:
    found = spectrum(tone(1, RATE)[:length])
    assert found.shape == (2 * BANDS,)
    assert found.dtype == np.float32
    assert np.isfinite(found).all()


def test_a_higher_tone_has_a_higher_band_and_a_steady_one_no_spread() -> None:
    low, high = (spectrum(tone(1, RATE, hz)) for hz in (440, 3000))
    assert low[:BANDS].argmax() < high[:BANDS].argmax()
    assert low[BANDS + low[:BANDS].argmax()] < 0.1
    on_off = tone(1, RATE, 440) * (np.arange(RATE) % 8000 < 4000)
    assert spectrum(on_off)[BANDS + low[:BANDS].argmax()] > 1


def test_tones_are_told_apart_by_their_spectrum_and_the_threads_change_nothing(tmp_path: Path) -> None:
    clips, splits = listed(write_clips(tmp_path, number=8))
    assert baseline(Path(), clips, splits, 30, 1) == {"majority": 0.5, "spectrum": 1.0}
    paths = [Path(path) for path in clips["path"]]
    np.testing.assert_array_equal(spectra(paths, 30, 1), spectra(paths, 30, 4))


def test_nothing_is_learnt_from_validation(tmp_path: Path) -> None:
    """Clips to validate with wrong labels, and files that are not there: neither is looked at."""
    clips, splits = listed(write_clips(tmp_path, number=8))
    odd = pd.DataFrame({"clip": [f"v{n}" for n in range(20)], "label": "b", "path": "nowhere.wav"})
    clips, splits = pd.concat([clips, odd]), pd.concat([splits, odd[["clip"]].assign(split="validation")])
    assert baseline(Path(), clips, splits, 30, 1) == {"majority": 0.5, "spectrum": 1.0}


def test_random_labels_are_not_learnt_from_other_clips(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for n in range(80):
        (tmp_path / "ab"[n % 2]).mkdir(exist_ok=True)
        soundfile.write(tmp_path / "ab"[n % 2] / f"{n}.wav", 0.1 * rng.standard_normal(4000), RATE)
    found = baseline(Path(), *listed(tmp_path), 30, 1)
    assert found["majority"] == 0.5
    assert 0.25 < found["spectrum"] < 0.75


def test_it_hears_no_more_of_a_clip_than_the_model(tmp_path: Path) -> None:
    """Labels that differ after the first second alone."""
    for label, hz in (("a", 500), ("b", 3000)):
        (tmp_path / label).mkdir()
        for n in range(8):
            samples = np.concatenate([tone(1, RATE, 440), tone(1, RATE, hz + n)])
            soundfile.write(tmp_path / label / f"{label}{n}.wav", samples, RATE)
    assert baseline(Path(), *listed(tmp_path), 2, 1)["spectrum"] == 1.0
    assert baseline(Path(), *listed(tmp_path), 1, 1)["spectrum"] == 0.5


def test_a_clip_that_is_not_there_is_named() -> None:
    clips = pd.DataFrame({"clip": ["a"], "label": ["x"], "path": ["a.wav"]})
    with pytest.raises(StageError, match="clip b, "):
        baseline(Path(), clips, pd.DataFrame({"clip": ["a", "b"], "split": ["train", "test"]}), 30, 1)
