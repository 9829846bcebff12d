"""Recordings that are longer than max_seconds, from download to classify."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from datasets import load_from_disk
from helpers import set_params

from stages.common.paths import BASELINES, CLIPS, ENCODED, METRICS, PREDICTIONS, PUBLISHED, RAW, SPLITS
from stages.common.tables import read_json, read_table
from stages.download.__main__ import download_dataset, download_model
from stages.evaluate import __main__ as evaluate
from stages.evaluate import baselines
from stages.publish import __main__ as publish
from stages.resample_encode import __main__ as resample_encode
from stages.split import __main__ as split
from stages.train import __main__ as train
from tools import export
from tools.classify import __main__ as classify

RATE = 16_000


def write_recordings(folder: Path) -> None:
    """Write 8 recordings of each label, of 0.4 to 2.5 s: noise, and from 0.5 s on a tone by which labels differ."""
    rng = np.random.default_rng(0)
    for label, hz in {"low": 500, "high": 3000}.items():
        (folder / label).mkdir(parents=True)
        for n in range(8):
            times = np.arange(round((0.4 + 0.3 * n) * RATE)) / RATE
            samples = 0.1 * rng.normal(size=len(times)) + 0.3 * (times > 0.5) * np.sin(2 * np.pi * hz * times)
            soundfile.write(folder / label / f"{n}.wav", samples, RATE)


@pytest.mark.slow
@pytest.mark.usefixtures("quick_figures")
def test_long_recordings_are_used_to_their_end(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_recordings(workspace / "clips")
    values = {
        "download.dataset": {"source": "folder", "path": "clips", "max_rejected": 0},
        "split.test_size": 0.5,
        "split.validation_size": 0,
        "resample_encode.max_seconds": 0.5,
        "resample_encode.segments": True,
        "train.window_seconds": None,
        "train.epochs": 2,
    }
    set_params(workspace, values)
    for main in (download_dataset, download_model, split.main, resample_encode.main, train.main):
        main()
    for main in (baselines.main, evaluate.main, publish.main):
        main()
    test = read_table(SPLITS).query("split == 'test'")
    predictions = read_table(PREDICTIONS)
    assert sorted(predictions["clip"]) == sorted(test["clip"])
    assert len(read_table(SPLITS)) == len(read_table(CLIPS)) == 16
    assert len(load_from_disk(ENCODED)) == 2 * sum([1, 2, 2, 3, 4, 4, 5, 5])
    metrics = read_json(METRICS)
    assert metrics["n_clips"] == 8
    # The epoch was selected by the same clips, so by the same numbers.
    assert metrics["selection_accuracy"] == metrics["accuracy"]
    clips, splits = read_table(CLIPS), read_table(SPLITS)
    assert read_json(BASELINES) == baselines.measure_baselines(RAW, clips, splits, 0.5, segments=True)
    assert "all segments of this length" in (PUBLISHED / "README.md").read_text()
    tested = clips.set_index("clip").loc[predictions["clip"]]
    files = [str(RAW / path) for path in tested["path"]]
    monkeypatch.setattr("sys.argv", ["classify", *files, "--threads", "1", "--out", "found.csv"])
    classify.main()
    found = pd.read_csv("found.csv").set_index("file").loc[files]
    assert found["label"].tolist() == predictions["prediction"].tolist()
    expected = predictions[["high", "low"]].astype(float).max(axis=1)
    np.testing.assert_allclose(found["probability"], expected, atol=2e-6)
    np.testing.assert_allclose(found["seconds"], tested["seconds"].astype(float), atol=1e-3)
    report = export.classify_clips({"PyTorch": PUBLISHED}, export.list_test_clips(), 1)[0]
    paths = [str(RAW / path) for path in clips.set_index("clip").loc[test["clip"]]["path"]]
    assert report.tolist() == [found["label"].loc[paths].tolist()]
