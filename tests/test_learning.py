"""What the accuracy means: nothing where there is nothing to learn, too much where test clips leak."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import soundfile
import yaml
from conftest import ROOT, set_params

from stages import evaluate, resample_encode, split, train
from stages.common.tables import read_table
from stages.download import download_dataset, download_model

LABELS = ("a", "b", "c", "d")
RATE = 16_000
TONES = 300 + 150 * np.arange(40)  # Hz


def write_chords(folder: Path, told: bool) -> None:
    """24 clips per label, each of six tones drawn at random; where told, a seventh names the label."""
    rng = np.random.default_rng(0)
    times = np.arange(RATE // 4) / RATE
    for number, label in enumerate(LABELS):
        (folder / label).mkdir(parents=True)
        for n in range(24):
            hz = rng.choice(TONES, 6, replace=False)
            clip = 0.1 * np.sin(2 * np.pi * hz[:, None] * times + rng.uniform(0, 7, (6, 1))).sum(axis=0)
            clip += 0.12 * told * np.sin(2 * np.pi * (375 + 1500 * number) * times)
            soundfile.write(folder / label / f"{label}{n:02d}.wav", clip, RATE)


def prepare(workspace: Path, told: bool) -> None:
    """Run all up to the split on chords: of each label 8 clips to train, 4 to validate, 12 to test."""
    write_chords(workspace / "clips", told)
    demo = yaml.safe_load((ROOT / "params.yaml").read_text())["download"]["model"]["config"]
    values = {
        "download.dataset": {"source": "folder", "path": "clips", "max_rejected": 0},
        "download.model.config": demo | {"conv_dim": [64, 64]},
        "split.test": 1 / 2,
        "split.validation": 1 / 6,
        "train.window_seconds": None,
        "train.epochs": 12,
        "train.batch_size": 8,
        "train.warmup": 0,
    }
    set_params(workspace, values)
    for main in (download_dataset, download_model, split.main):
        main()


def learn() -> dict[str, Any]:
    """Train and evaluate; metrics.json."""
    for main in (resample_encode.main, train.main, evaluate.main):
        main()
    return json.loads(Path("metrics/metrics.json").read_text())


def test_from_shuffled_labels_nothing_is_learnt(workspace: Path) -> None:
    prepare(workspace, told=True)
    metrics = learn()
    assert metrics["accuracy_interval_95"][0] > 0.4
    assert metrics["baseline"]["majority"] == 0.25
    clips = read_table(Path("data/raw/clips.csv"))
    splits = read_table(Path("data/splits.csv")).query("split != 'test'")
    # What was one label gets every label equally often: else all of its test clips would follow the commonest one.
    for _, group in splits.groupby(["split", "label"]):
        shuffled = np.random.default_rng(1).permutation(group["clip"])
        clips.loc[clips.set_index("clip").index.get_indexer(shuffled), "label"] = np.resize(LABELS, len(shuffled))
    clips.to_csv("data/raw/clips.csv", index=False)
    metrics = learn()
    low, high = metrics["accuracy_interval_95"]
    assert low < 0.25 < high


def test_what_cannot_be_learnt_is_known_only_where_the_test_clips_leak(workspace: Path) -> None:
    prepare(workspace, told=False)
    metrics = learn()
    low, high = metrics["accuracy_interval_95"]
    assert low < 0.25 < high
    splits = pd.read_csv("data/splits.csv")
    pd.concat([splits, splits.assign(split="train")]).to_csv("data/splits.csv", index=False)
    leaked = learn()
    assert leaked["accuracy"] > 0.9
    assert leaked["accuracy_interval_95"][0] > high
    assert leaked["baseline"]["spectrum"] > 0.9
