"""Measure the search for wrong labels: labels of the composed music are changed at random, then searched for."""

import shutil
import sys
import tempfile
from contextlib import chdir
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from benchmarks.accuracy import SHARED
from benchmarks.common import ROOT, Benchmark, Result, run_module, set_params
from stages.common.paths import CLIPS, PREDICTIONS
from stages.common.tables import read_table, write_table
from tools.audit import probabilities
from tools.audit.probabilities import OutOfFold
from tools.audit.suspects import CONFIDENT, find_wrong_labels
from tools.crossval import pool_predictions
from tools.revisions import read_predictions

CLIPS_PER_LABEL, EPOCHS = 120, 7  # those of the demo when the results were measured
SHARES = (0.05, 0.1)  # of wrong labels
FOLDS = 5
SEEDS = 5  # of the planted labels, for the regression; the fine-tuned models, which take a training a fold, get one
REAL_SHARE, REAL_SEEDS = 0.1, 40
MARGIN = 1.5  # suspects that are looked at, for each planted label
TABLE = "data/labels/planted.csv"


class Found(NamedTuple):
    """Shares: planted labels among the first suspects, and precision and recall of confident learning."""

    first: float
    precision: float
    recall: float


def plant(labels: pd.Series, share: float, seed: int) -> pd.Series:
    """Return new labels for a share of the clips, by clip. labels: indexed by clip."""
    rng = np.random.default_rng(seed)
    names = sorted(set(labels))
    chosen = rng.choice(len(labels), round(share * len(labels)), replace=False)
    shifts = rng.integers(1, len(names), len(chosen))
    new = [names[(names.index(labels.iloc[i]) + shift) % len(names)] for i, shift in zip(chosen, shifts)]
    return pd.Series(new, labels.index[chosen])


def judge(folds: OutOfFold, planted: set[str]) -> Found:
    """Compare the suspects with the planted labels."""
    ranked = find_wrong_labels(folds)
    first = [one.clip for one in ranked][: round(MARGIN * len(planted))]
    confident = [one.clip for one in ranked if one.reason == CONFIDENT]
    hits = len(planted & set(confident))
    return Found(len(planted & set(first)) / len(planted), hits / max(len(confident), 1), hits / len(planted))


def search_with_regression(clips: pd.DataFrame, features: np.ndarray, share: float, seeds: int = SEEDS) -> list[Found]:
    """Plant labels with each seed, and judge by the cross-validated regression on these features."""
    results = []
    for seed in range(seeds):
        new = plant(clips.set_index("clip")["label"], share, seed)
        planted = clips.assign(label=clips["clip"].map(new).fillna(clips["label"]))
        folds = probabilities.cross_validate(planted, features, np.arange(len(clips)), FOLDS)
        results.append(judge(folds, set(new.index)))
    return results


def search_with_folds(clips: pd.DataFrame, folder: Path, share: float) -> Found:
    """Plant labels once, by a table of corrections, and judge by the models of a cross-validation."""
    new = plant(clips.set_index("clip")["label"], share, 0)
    table = pd.DataFrame({"clip": new.index, "action": "change", "label": new.to_numpy()})
    write_table(folder / TABLE, table)
    values = {
        "download.dataset.corrections": TABLE,
        "download.dataset.clips_per_label": CLIPS_PER_LABEL,
        "train.epochs": EPOCHS,
    }
    set_params(folder, "demo.yaml", values)
    for part in ("dataset", "model"):
        run_module("stages.download", part, folder=folder)
    predictions = {str(fold): train_fold(folder, values, fold) for fold in range(FOLDS)}
    pooled = pool_predictions(predictions)
    labels = [str(name) for name in pooled.columns[2:]]
    given = np.array([labels.index(label) for label in pooled["label"]])
    chances = probabilities.read_probabilities(pooled[labels])
    return judge(OutOfFold(list(pooled.index), labels, given, chances), set(new.index))


def train_fold(folder: Path, values: dict[str, Any], fold: int) -> pd.DataFrame:
    """Train on the other folds, and return the predictions of this one. values: changes to the demo preset."""
    set_params(folder, "demo.yaml", values | {"split.folds": FOLDS, "split.fold": fold})
    run_module("stages.split", folder=folder)
    if fold == 0:
        run_module("stages.resample_encode", folder=folder)
        run_module("stages.evaluate.baselines", folder=folder)  # which evaluate reads; their values do not matter
    run_module("stages.train", folder=folder)
    run_module("stages.evaluate", folder=folder)
    print(f"fold {fold} done", file=sys.stderr, flush=True)
    return read_predictions(str(folder / PREDICTIONS), probabilities=True)


def make_row(name: str, share: float, results: list[Found]) -> list[str]:
    """Make a row of the table, with the mean over the seeds."""
    return [name, f"{share:.0%}", *(f"{mean(values):.2f}" for values in zip(*results))]


def measure(device: str) -> Result:
    """Search with both kinds of out-of-fold probabilities."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in ("data/tables", "data/labels"):
            shutil.copytree(ROOT / part, folder / part)
        set_params(folder, "demo.yaml", {"download.dataset.clips_per_label": CLIPS_PER_LABEL})
        run_module("stages.download", "dataset", folder=folder)
        clips = read_table(folder / CLIPS)
        with chdir(folder):
            features = probabilities.summarize_clips(clips)
        for share in SHARES:
            found = search_with_regression(clips, features, share)
            rows.append(make_row("logistic regression on the spectrum (`tools.audit`)", share, found))
        for share in SHARES:
            found = [search_with_folds(clips, folder, share)]
            rows.append(make_row("fine-tuned models of five folds (`tools.audit --crossval`)", share, found))
            print(rows[-1], file=sys.stderr, flush=True)
    return {"rows": rows}


def measure_real(device: str) -> Result:
    """Search on real clips, with the regression on the spectrum, and with Whisper's output as well."""
    if not SHARED.is_dir():
        raise SystemExit(f"error: {SHARED} is missing; it holds real clips and a checkpoint")
    values = {
        "download.dataset.path": str(SHARED / "data/gtzan-sample"),
        "download.model.path": str(SHARED / "models/whisper-tiny-en"),
        "resample_encode.cache": "base",
        "train.freeze": "base",  # nothing is trained, but params.yaml has to be valid
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in ("data/tables", "data/labels"):
            shutil.copytree(ROOT / part, folder / part)
        set_params(folder, "folder.yaml", values)
        for part in ("dataset", "model"):
            run_module("stages.download", part, folder=folder)
        run_module("stages.resample_encode", folder=folder)
        clips = read_table(folder / CLIPS)
        with chdir(folder):
            spectrum = probabilities.summarize_clips(clips)
            base = np.hstack([spectrum, probabilities.embed_clips(clips)])
    return {
        "rows": [
            make_row(name, REAL_SHARE, search_with_regression(clips, features, REAL_SHARE, REAL_SEEDS))
            for name, features in (
                ("logistic regression on the spectrum (`tools.audit`)", spectrum),
                ("... and on the output of Whisper (`tools.audit --base`)", base),
            )
        ]
    }


HEADER = ["out-of-fold probabilities by", "wrong labels", "among the first suspects", "precision", "recall"]
BENCHMARK = Benchmark(
    title="Search for wrong labels",
    text=f"A share of the labels of {10 * CLIPS_PER_LABEL} synthetic clips, drawn at random, was replaced by other "
    f"labels. The table shows the share of these that is among the first {MARGIN} times as many suspects, and "
    f"precision and recall of the clips that confident learning names. The regression has the mean of {SEEDS} draws, "
    f"the fine-tuned models, with the settings of the demo and {EPOCHS} epochs, have one.",
    header=HEADER,
    measure=measure,
)
REAL = Benchmark(
    title="Search for wrong labels: real music",
    text=f"As above, with 50 clips of GTZAN of 15 to 20 s, five of each genre. {REAL_SHARE:.0%} are five wrong labels, "
    f"so the first suspects are {round(MARGIN * 5)}. Mean of {REAL_SEEDS} draws. Wrong labels that GTZAN itself has "
    "count as correct. The Whisper checkpoint is tiny, English; it is not trained.",
    header=HEADER,
    measure=measure_real,
)
