from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from helpers import count_blas_threads, sha256_of, tone, user_error, write_clips
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

from stages.common.audio import load_audio
from stages.common.paths import BASELINES, CLIPS, DATASET_SOURCE, RAW, SPLITS
from stages.common.tables import read_json, write_json
from stages.evaluate import baselines
from stages.evaluate.baselines import (
    BANDS,
    FRAME,
    SAMPLING_RATE,
    main,
    measure_baselines,
    summarize_files,
    summarize_spectrum,
)
from stages.evaluate.metrics import accuracy


def list_clips(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return clips.csv and splits.csv of a folder of clips: every fourth clip of each label is a test clip."""
    paths = sorted(folder.rglob("*.wav"))
    clips = pd.DataFrame(
        {"clip": [p.stem for p in paths], "label": [p.parent.name for p in paths], "path": [str(p) for p in paths]}
    ).assign(sha256=[sha256_of(p) for p in paths])
    number = clips.groupby("label").cumcount()
    return clips, clips[["clip", "label"]].assign(split=np.where(number % 4 == 1, "test", "train"))


@settings(deadline=None)
@given(st.integers(0, 3 * FRAME))
def test_any_length_has_spectrum(length: int) -> None:
    summary = summarize_spectrum(tone(1, SAMPLING_RATE)[:length])
    assert summary.shape == (2 * BANDS,)
    assert summary.dtype == np.float32
    assert np.isfinite(summary).all()


def test_higher_tone_has_higher_band() -> None:
    low, high = (summarize_spectrum(tone(1, SAMPLING_RATE, hz)) for hz in (440, 3000))
    assert low[:BANDS].argmax() < high[:BANDS].argmax()


def test_steady_tone_has_no_deviation() -> None:
    steady = summarize_spectrum(tone(1, SAMPLING_RATE, 440))
    band = steady[:BANDS].argmax()
    assert steady[BANDS + band] < 0.1
    on_off = tone(1, SAMPLING_RATE, 440) * (np.arange(SAMPLING_RATE) % 8000 < 4000)
    assert summarize_spectrum(on_off)[BANDS + band] > 1


def test_long_clip_is_summarized_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    samples = np.random.default_rng(0).uniform(-1, 1, 60_000).astype(np.float32)
    expected = summarize_spectrum(samples)
    monkeypatch.setattr(baselines, "FRAMES", 10)
    np.testing.assert_allclose(summarize_spectrum(samples), expected, rtol=1e-5)


def test_spectrum_classifies_tones(tmp_path: Path) -> None:
    clips, splits = list_clips(write_clips(tmp_path, number=8))
    assert measure_baselines(Path(), clips, splits, 30) == {"majority": 0.5, "spectrum": 1.0}


def test_files_keep_their_order(tmp_path: Path) -> None:
    clips, _ = list_clips(write_clips(tmp_path, number=8))
    paths = [Path(path) for path in clips["path"]]
    with threadpool_limits(1, "blas"):  # several threads round differently
        one_by_one = np.stack([summarize_spectrum(load_audio(path, SAMPLING_RATE, 30)) for path in paths])
    np.testing.assert_array_equal(summarize_files(list(zip(paths, clips["sha256"])), 30), one_by_one)


def test_validation_clips_are_unused(tmp_path: Path) -> None:
    """Their labels are wrong and their files do not exist."""
    clips, splits = list_clips(write_clips(tmp_path, number=8))
    unusable = pd.DataFrame({"clip": [f"v{n}" for n in range(20)], "label": "b", "path": "nowhere.wav"})
    clips = pd.concat([clips, unusable])
    splits = pd.concat([splits, unusable[["clip", "label"]].assign(split="validation")])
    assert measure_baselines(Path(), clips, splits, 30) == {"majority": 0.5, "spectrum": 1.0}


def test_majority_is_that_of_train(tmp_path: Path) -> None:
    clips, _ = list_clips(write_clips(tmp_path, number=4))
    train, test = ["a.00000", "a.00001", "b.00000"], ["a.00002", "b.00001", "b.00002", "b.00003"]
    splits = clips.set_index("clip").loc[[*train, *test], ["label"]].reset_index()
    splits["split"] = ["train"] * 3 + ["test"] * 4
    assert measure_baselines(Path(), clips, splits, 30)["majority"] == 0.25


def test_random_labels_stay_at_chance(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for n in range(80):
        (tmp_path / "ab"[n % 2]).mkdir(exist_ok=True)
        soundfile.write(tmp_path / "ab"[n % 2] / f"{n}.wav", 0.1 * rng.standard_normal(4000), SAMPLING_RATE)
    accuracies = measure_baselines(Path(), *list_clips(tmp_path), 30)
    assert accuracies["majority"] == 0.5
    assert 0.25 < accuracies["spectrum"] < 0.75


@pytest.mark.slow
def test_only_first_seconds_count(tmp_path: Path) -> None:
    """The labels differ after the first second only."""
    for label, hz in (("a", 500), ("b", 3000)):
        (tmp_path / label).mkdir()
        for n in range(8):
            samples = np.concatenate([tone(1, SAMPLING_RATE, 440), tone(1, SAMPLING_RATE, hz + n)])
            soundfile.write(tmp_path / label / f"{label}{n}.wav", samples, SAMPLING_RATE)
    assert measure_baselines(Path(), *list_clips(tmp_path), 2)["spectrum"] == 1.0
    assert measure_baselines(Path(), *list_clips(tmp_path), 1)["spectrum"] == 0.5


def test_unknown_clip_is_named() -> None:
    clips = pd.DataFrame({"clip": ["a"], "label": ["x"], "path": ["a.wav"]})
    splits = pd.DataFrame({"clip": ["a", "b"], "label": ["x", "x"], "split": ["train", "test"]})
    assert "clip b, " in str(user_error(lambda: measure_baselines(Path(), clips, splits, 30)))


def test_missing_table_is_named(workspace: Path) -> None:
    assert user_error(main).file == str(CLIPS)


def test_written_accuracy_is_exact(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A rounded third would be less than the accuracy of a model that is equally good."""
    clips, _ = list_clips(write_clips(RAW, number=4))
    clips["path"] = [str(Path(path).relative_to(RAW)) for path in clips["path"]]
    test = ["a.00003", "b.00002", "b.00003"]
    clips.assign(sampling_rate=22_050, channels=1, seconds=1.0).to_csv(CLIPS, index=False)
    split = np.where(clips["clip"].isin(test), "test", "train")
    clips[["clip", "label"]].assign(split=split, group=clips["clip"]).to_csv(SPLITS, index=False)
    write_json(DATASET_SOURCE, {"source": "folder", "id": "x", "licence": "unknown"})
    main()
    baselines = read_json(BASELINES)
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.9, 0.1]])
    assert baselines["majority"] == accuracy(probabilities, np.array([0, 1, 1]))
    assert "majority 0.333" in capsys.readouterr().out


def test_all_segments_are_summarized(tmp_path: Path) -> None:
    file = tmp_path / "x.wav"
    samples = np.concatenate([tone(1, SAMPLING_RATE, 440), tone(1.5, SAMPLING_RATE, 3000)])
    soundfile.write(file, samples, SAMPLING_RATE)
    samples = load_audio(file, SAMPLING_RATE)
    parts = [samples[start : start + SAMPLING_RATE] for start in (0, SAMPLING_RATE, 24_000)]
    with threadpool_limits(1, "blas"):
        expected = np.mean([summarize_spectrum(part) for part in parts], axis=0)
    found = summarize_files([(file, sha256_of(file))], 1, segments=True)
    np.testing.assert_allclose(found[0], expected, rtol=1e-5)
    assert not np.allclose(found[0], summarize_files([(file, sha256_of(file))], 1)[0], atol=0.1)


def test_each_thread_multiplies_matrices_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baselines, "summarize_spectrum", lambda samples: np.array([count_blas_threads()]))
    files = [(file, sha256_of(file)) for file in sorted(write_clips(tmp_path).rglob("*.wav"))]
    with threadpool_limits(2, "blas"):
        assert count_blas_threads() == 2
        assert set(summarize_files(files, 1.0).flat) == {1}
        assert count_blas_threads() == 2
