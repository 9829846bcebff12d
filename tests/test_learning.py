"""The accuracy is that of chance if there is nothing to learn, and too high if test clips leak."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
from helpers import set_params

from stages.common.paths import CLIPS, METRICS, SPLITS
from stages.common.tables import read_json, read_table, write_table
from stages.download.__main__ import download_dataset, download_model
from stages.evaluate import __main__ as evaluate
from stages.evaluate import baselines
from stages.resample_encode import __main__ as resample_encode
from stages.split import __main__ as split
from stages.train import __main__ as train

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_figures")]

LABELS = ("a", "b", "c", "d")
SAMPLING_RATE = 16_000
# A filter bank over 25 ms, every 5 ms; then eight of those to a frame. The squared ReLU pools signal energy.
HUBERT = {
    "conv_dim": [64, 64],
    "conv_kernel": [400, 8],
    "conv_stride": [80, 8],
    "conv_bias": True,
    "feat_extract_norm": "layer",
    "feat_extract_activation": "relu2",
    "do_stable_layer_norm": True,
    "hidden_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "classifier_proj_size": 64,
    "apply_spec_augment": False,
    "layerdrop": 0.0,
    "hidden_dropout": 0.05,
    "feat_proj_dropout": 0.05,
    "attention_dropout": 0.0,
    "activation_dropout": 0.0,
    "final_dropout": 0.0,
}
TONES = 300 + 150 * np.arange(40)  # Hz


def write_chords(folder: Path, learnable: bool) -> None:
    """Write 24 clips per label of six random tones each. learnable: with a seventh tone that depends on the label."""
    rng = np.random.default_rng(0)
    times = np.arange(SAMPLING_RATE // 4) / SAMPLING_RATE
    for number, label in enumerate(LABELS):
        (folder / label).mkdir(parents=True)
        for n in range(24):
            hz = rng.choice(TONES, 6, replace=False)
            clip = 0.1 * np.sin(2 * np.pi * hz[:, None] * times + rng.uniform(0, 7, (6, 1))).sum(axis=0)
            clip += 0.12 * learnable * np.sin(2 * np.pi * (375 + 1500 * number) * times)
            soundfile.write(folder / label / f"{label}{n:02d}.wav", clip, SAMPLING_RATE)


def prepare(workspace: Path, learnable: bool) -> None:
    """Run download and split on chords: of each label 8 clips to train, 4 to validate, 12 to test."""
    write_chords(workspace / "clips", learnable)
    values = {
        "download.dataset": {"source": "folder", "path": "clips", "max_rejected": 0},
        "download.model": {"source": "random_weights", "config": HUBERT},
        "resample_encode.cache": "input",
        "train.freeze": "none",
        "train.learning_rate": 3e-3,
        "train.head_learning_rate": None,
        "split.test_size": 1 / 2,
        "split.validation_size": 1 / 6,
        "train.window_seconds": None,
        "train.epochs": 12,
        "train.batch_size": 8,
        "train.warmup_ratio": 0,
    }
    set_params(workspace, values)
    for main in (download_dataset, download_model, split.main):
        main()


def learn() -> dict[str, Any]:
    """Train and evaluate, and return the content of metrics.json."""
    for main in (resample_encode.main, train.main, baselines.main, evaluate.main):
        main()
    return read_json(METRICS)


def test_learnable_clips(workspace: Path) -> None:
    prepare(workspace, learnable=True)
    metrics = learn()
    assert metrics["accuracy_low"] > 0.4
    assert metrics["baselines"]["majority"] == 0.25


@pytest.mark.rare
def test_shuffled_labels(workspace: Path) -> None:
    prepare(workspace, learnable=True)
    clips, splits = read_table(CLIPS), read_table(SPLITS)
    # The clips of each label get all labels equally often: else the model could predict the most frequent one.
    for _, group in splits.query("split != 'test'").groupby(["split", "label"]):
        shuffled = np.random.default_rng(1).permutation(group["clip"])
        clips.loc[clips.set_index("clip").index.get_indexer(shuffled), "label"] = np.resize(LABELS, len(shuffled))
    write_table(CLIPS, clips)
    write_table(SPLITS, splits.assign(label=splits["clip"].map(clips.set_index("clip")["label"])))
    metrics = learn()
    low, high = metrics["accuracy_low"], metrics["accuracy_high"]
    assert low < 0.25 < high


@pytest.mark.rare
def test_leaked_test_clips(workspace: Path) -> None:
    prepare(workspace, learnable=False)
    metrics = learn()
    low, high = metrics["accuracy_low"], metrics["accuracy_high"]
    assert low < 0.25 < high
    clips, splits = read_table(CLIPS), read_table(SPLITS)
    write_table(CLIPS, pd.concat([clips, clips.assign(clip="copy of " + clips["clip"])]))
    copies = splits.assign(clip="copy of " + splits["clip"], split="train")
    write_table(SPLITS, pd.concat([splits, copies]))
    leaked = learn()
    assert leaked["accuracy"] > 0.9
    assert leaked["accuracy_low"] > high
    assert leaked["baselines"]["spectrum"] > 0.9
