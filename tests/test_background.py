"""Clips that have none of the labels, from a folder through all stages to tools.classify."""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from helpers import set_params
from transformers import AutoConfig

from stages.common.answers import NONE
from stages.common.paths import ENCODED, METRICS, PREDICTIONS, PUBLISHED, RAW, REPORT, TRAINING
from stages.common.tables import read_json
from stages.download.__main__ import download_dataset
from stages.evaluate.__main__ import main as evaluate
from stages.evaluate.baselines import main as measure_baselines
from stages.publish.__main__ import main as publish
from stages.resample_encode.__main__ import main as resample_encode
from stages.split.__main__ import main as split
from stages.train.__main__ import main as train
from tools.classify.__main__ import main as classify

LABEL = "none_of_these"


def write_noise(folder: Path, number: int) -> None:
    folder.mkdir()
    rng = np.random.default_rng(0)
    for n in range(number):
        soundfile.write(folder / f"{n}.wav", rng.normal(0, 0.1, 22_050), 22_050)


@pytest.mark.slow
def test_background_in_all_stages(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (RAW / "audio").rename("clips")
    write_noise(Path("noise"), 12)
    set_params(copied, {"download.dataset": {"source": "folder", "path": "clips", "background": "./noise"}})
    set_params(copied, {"split.name_groups": {"number": "([0-9]$)"}})  # not of the background
    set_params(copied, {"train.epochs": 2, "evaluate.calibrate": True, "evaluate.max_background": 0.4})
    for stage in (download_dataset, split, resample_encode, measure_baselines, train, evaluate, publish):
        stage()
    splits = pd.read_csv("data/splits.csv")
    numbers = splits[splits["label"] == LABEL]["split"].value_counts().to_dict()
    assert numbers == {"train": 6, "validation": 3, "test": 3}
    assert splits[splits["label"] == LABEL]["group"].nunique() == 12
    assert read_json(ENCODED / "encoding.json")["background"] == LABEL
    assert read_json(TRAINING)["resample_encode"]["background"] == LABEL
    # Kept out of all that is measured on clips of the labels, also of the accuracy that selects the best epoch.
    table, metrics = pd.read_csv(PREDICTIONS), read_json(METRICS)
    assert sorted(table["clip"]) == sorted(splits.query("split == 'test' and label != @LABEL")["clip"])
    assert LABEL in table.columns
    assert metrics["n_clips"] == len(table) == 10
    assert metrics["accuracy"] == (table["label"] == table["prediction"]).mean()
    assert metrics["baselines"]["majority"] == 0.1
    assert LABEL not in {row["label"] for row in metrics["per_label"]}
    assert len(metrics["per_label"]) == 10
    assert metrics["selection_accuracy"] * 10 == pytest.approx(round(metrics["selection_accuracy"] * 10))
    answer = metrics["answer"]
    assert answer["temperature"] != 1
    assert (answer["validation_clips"], answer["validation_background_clips"], answer["background_clips"]) == (10, 3, 3)
    # The published model answers as it was measured.
    expected = {key: answer[key] for key in ("temperature", "threshold", "background")}
    assert read_json(PUBLISHED / "config.json")["answer"] == expected
    assert AutoConfig.from_pretrained(PUBLISHED).answer == expected
    tests = splits[splits["split"] == "test"]["clip"]
    files = pd.read_csv(RAW / "clips.csv").set_index("clip").loc[tests]
    monkeypatch.setattr(sys, "argv", ["classify", *(str(RAW / path) for path in files["path"]), "--out", "p.json"])
    classify()
    rows = pd.DataFrame(map(json.loads, Path("p.json").read_text().splitlines())).set_index("file")
    labels = rows.loc[[str(RAW / path) for path in files["path"]], "label"].to_numpy()
    is_background = (files["label"] == LABEL).to_numpy()
    assert (labels[~is_background] != NONE).mean() == pytest.approx(answer["coverage"])
    assert (labels[is_background] != NONE).mean() == pytest.approx(answer["let_through"], abs=1e-6)
    page, card = REPORT.read_text(encoding="utf-8"), (PUBLISHED / "README.md").read_text(encoding="utf-8")
    assert "<strong>Of 3 such test clips, " in page
    assert "Of 3 such test clips, " in card
    assert f"temperature {answer['temperature']:.3f}" in page
    assert f"temperature {answer['temperature']:.3f}" in card
