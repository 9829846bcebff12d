"""Measure the effect of the recipes that are off by default: each against the default, with the same seeds.

The seeds draw the split, the head, the order of training and the windows, for all recipes the same. One benchmark uses
synthetic music; the other uses real clips from `../shared`, which are not part of the project.
`python -m benchmarks.recipes equal SEED` (or another of DATASETS) trains each recipe in the current folder.
"""

import os
import shutil
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from math import sqrt
from pathlib import Path
from statistics import mean, median, stdev
from typing import NamedTuple

from scipy.stats import t

from benchmarks.accuracy import TABLES, Params, find_real_clips, folder_source
from benchmarks.common import ROOT, Benchmark, Result, print_measurement, run_measurement, run_module, set_params
from stages.common.params import load_params
from stages.common.paths import ENCODED, EPOCHS, RAW, SPLITS
from stages.common.tables import read_epochs, read_table

SEEDS, SYNTHETIC_EPOCHS, CLIPS_PER_LABEL, SECONDS, WINDOW = 5, 7, 30, 5, 3
FOLDS, REAL_EPOCHS, LAST_EPOCHS, REAL_BATCH = 2, 20, 5, 4
KEPT = (1.0, 0.8, 0.7, 0.6, 0.5, 0.4, 0.35, 0.3, 0.25, 0.2)  # share of the clips of each label, if they are unequal

DEFAULT: Params = {
    "resample_encode.cache": "input",  # which some recipes change
    "train.window_seconds": WINDOW,
    "train.head_learning_rate": None,
    "train.epochs": SYNTHETIC_EPOCHS,
    "train.threads": 1,
    "evaluate.calibrate": False,
}
EQUAL: dict[str, Params] = {
    "default": {},
    "cosine decay": {"train.lr_scheduler_type": "cosine"},
    "four times the learning rate for the head": {"train.head_learning_rate": 2e-3},
    "mean of the last five epochs": {"train.average_epochs": 5},
    "mixup, alpha 0.2": {"train.augment": {"mixup": 0.2}},
    "noise at 10 to 40 dB": {"train.augment": {"noise": [10, 40]}},
    "polarity": {"train.augment": {"polarity": True}},
    "shift of up to half a window": {"train.augment": {"time_shift": 0.5}},
    "weighted sum of layers": {"train.layers": "weighted"},
    "LoRA, rank 8, four times the learning rate": {"train.lora": {"r": 8}, "train.learning_rate": 2e-3},
}
UNEQUAL: dict[str, Params] = {
    "unequal labels: default": {},
    "unequal labels: class weights": {"train.class_weights": "balanced"},
    "unequal labels: balanced sampler": {"train.sampler": "balanced"},
    "unequal labels: best epoch by macro F1": {"train.select_by": "macro_f1"},
}


REAL: dict[str, Params] = {
    recipe: changes for recipe, changes in EQUAL.items() if "train.average_epochs" not in changes
}
REAL_VALUES: Params = {
    "split.folds": FOLDS,
    "split.validation_size": 0,  # the test clips are evaluated after each epoch
    "resample_encode.max_seconds": SECONDS,
    "train.epochs": REAL_EPOCHS,
    "train.batch_size": REAL_BATCH,
    "train.save_every": REAL_EPOCHS,  # which saves time, and does not change the model
}


class Dataset(NamedTuple):
    """Recipes that are compared on the same clips, by a metric.

    kept: share of the clips of each label. values: params besides DEFAULT. folds: the test clips of each, one after the
    other. last_epochs: the score is the mean of so many epochs; 0: that of the best epoch.
    """

    recipes: dict[str, Params]
    metric: str
    kept: tuple[float, ...] = (1.0,) * len(KEPT)
    values: Params = {}
    folds: int = 1
    last_epochs: int = 0


DATASETS = {
    "equal": Dataset(EQUAL, "accuracy"),
    "unequal": Dataset(UNEQUAL, "macro_f1", KEPT),
    "real": Dataset(REAL, "accuracy", values=REAL_VALUES, folds=FOLDS, last_epochs=LAST_EPOCHS),
}


def make_rows(scores: dict[str, list[float]], metric: str) -> list[list[str]]:
    """Make a row for each recipe, with its mean difference to the first one. scores: one for each seed, by recipe."""
    default, rows = next(iter(scores.values())), []
    for name, values in scores.items():
        each = " ".join(f"{value:.2f}" for value in values)
        difference = "" if values is default else describe_difference(values, default)
        rows.append([name, metric, f"{mean(values):.3f}", difference, each])
    return rows


def describe_difference(values: list[float], default: list[float]) -> str:
    """Return the mean difference with its 95% interval over the seeds, by Student's t; with one seed, without."""
    differences = [value - reference for value, reference in zip(values, default)]
    middle, seeds = mean(differences), len(differences)
    if seeds < 2:
        return f"{middle:+.3f}"
    half = float(t.ppf(0.975, seeds - 1)) * stdev(differences) / sqrt(seeds)
    return f"{middle:+.3f} ({middle - half:+.3f} to {middle + half:+.3f})"


def keep_shares(clips: Path, folder: Path, kept: tuple[float, ...]) -> None:
    """Copy a folder of labels with a share of the clips of each."""
    for share, label in zip(kept, sorted(clips.iterdir()), strict=True):
        files = sorted(label.iterdir())
        (folder / label.name).mkdir(parents=True)
        for file in files[: round(share * len(files))]:
            shutil.copyfile(file, folder / label.name / file.name)


def list_values(dataset: Dataset, clips: Path, seed: int) -> Params:
    """Return the params that the recipes of a seed share."""
    drawn = {"download.dataset": folder_source(clips), "split.seed": seed, "train.seed": seed}
    return DEFAULT | dataset.values | drawn


def measure_test(metric: str) -> float:
    """Return accuracy or macro F1 of models/finetuned on the test clips, without what else `evaluate` computes."""
    from sklearn.metrics import accuracy_score, f1_score

    from stages.common.encoded_clips import open_encoded_clips
    from stages.evaluate.params import EvaluateParams
    from stages.evaluate.prediction import predict_splits, select_predictions

    encoded, params = open_encoded_clips(ENCODED), load_params("evaluate", EvaluateParams)
    logits = predict_splits(encoded, read_table(SPLITS), params)["test"]
    table = select_predictions(logits, encoded, 1.0, False).to_table()
    labels, predictions = table["label"], table["prediction"]
    return (
        accuracy_score(labels, predictions) if metric == "accuracy" else f1_score(labels, predictions, average="macro")
    )


def measure_last_epochs(number: int, metric: str) -> float:
    """Return the mean of a metric over the last epochs, on the clips that were evaluated after each."""
    return float(read_epochs(EPOCHS)[f"eval_{metric}"].tail(number).mean())


def train_recipes(dataset: Dataset, seed: int) -> None:
    """Train and evaluate each recipe in the current folder, which has data/encoded, and print the scores."""
    from stages.split.__main__ import main as split
    from stages.train.__main__ import main as train

    folder, scores = Path(), dict[str, list[float]]()
    values = list_values(dataset, folder.resolve() / "clips", seed)
    for fold in range(dataset.folds):
        set_params(folder, "demo.yaml", values | {"split.fold": fold})
        split()
        for recipe, changes in dataset.recipes.items():
            set_params(folder, "demo.yaml", values | {"split.fold": fold} | changes)
            train()
            last, metric = dataset.last_epochs, dataset.metric
            score = measure_last_epochs(last, metric) if last else measure_test(metric)
            scores.setdefault(recipe, []).append(score)
            print(f"{recipe}, seed {seed}, fold {fold}: {score:.3f}", file=sys.stderr, flush=True)
    print_measurement(**{recipe: mean(of_fold) for recipe, of_fold in scores.items()})


def measure_dataset(name: str, clips: Path, seeds: int) -> dict[str, list[float]]:
    """Return the score of each recipe on the test clips, for the seeds from 0. clips: a folder of labels."""
    dataset = DATASETS[name]
    with tempfile.TemporaryDirectory() as top:
        encoded = Path(top, "encoded")
        keep_shares(clips, encoded / "clips", dataset.kept)
        shutil.copytree(ROOT / TABLES, encoded / TABLES)
        set_params(encoded, "demo.yaml", list_values(dataset, encoded / "clips", 0))
        for stage in (["download", "dataset"], ["download", "model"], ["resample_encode"]):
            run_module(f"stages.{stage[0]}", *stage[1:], folder=encoded)

        def measure_seed(seed: int) -> dict[str, float]:
            folder = Path(top, str(seed))
            shutil.copytree(encoded, folder)
            return run_measurement("benchmarks.recipes", name, str(seed), folder=folder)

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            scores = list(pool.map(measure_seed, range(seeds)))
    return {recipe: [of_seed[recipe] for of_seed in scores] for recipe in dataset.recipes}


def measure_synthetic(device: str, seeds: int = SEEDS, clips: int = CLIPS_PER_LABEL) -> Result:
    """Fine-tune the demo's model on the demo's genres with each recipe."""
    with tempfile.TemporaryDirectory() as name:
        top, rows = Path(name), []
        set_params(top, "demo.yaml", {"download.dataset.clips_per_label": clips, "download.dataset.seconds": SECONDS})
        run_module("stages.download", "dataset", folder=top)
        for dataset in ("equal", "unequal"):
            scores = measure_dataset(dataset, top / RAW / "audio", seeds)
            rows += make_rows(scores, DATASETS[dataset].metric.replace("_", " "))
    return {"rows": rows}


def measure_real(device: str, seeds: int = SEEDS) -> Result:
    """Fine-tune the demo's model on real clips with each recipe."""
    return {"rows": make_rows(measure_dataset("real", find_real_clips(), seeds), "accuracy")}


def describe_widths(result: Result) -> str:
    """Return how wide the intervals are. result: of `measure_real`."""
    limits = [cell.split("(")[1].rstrip(")").split(" to ") for _, _, _, cell, _ in result["rows"] if cell]
    halves = [(float(high) - float(low)) / 2 for low, high in limits]
    return f"The median interval is the difference ± {median(halves):.2f}, the widest ± {max(halves):.2f}."


HEADER = ["recipe", "metric", "mean", "difference to the default", "each seed"]
SYNTHETIC_MUSIC = Benchmark(
    title="Effect of the recipes: synthetic music",
    text=f"Test scores with {SEEDS} seeds, which draw the split, the head and the order of training. The difference to "
    "the default is paired by seed, with its 95% interval by Student's t over the seeds. With so many rows, one or two "
    "intervals may exclude zero by chance. The demo's pretrained model is fine-tuned on the demo's ten genres for "
    f"{SYNTHETIC_EPOCHS} epochs with windows of {WINDOW} s. Each genre has {CLIPS_PER_LABEL} clips of {SECONDS} s, "
    f"of which the training gets 70%; the unequal labels have {KEPT[0]:.0%} to {KEPT[-1]:.0%} of them. The feature "
    "encoder is frozen but not cached, and the head has the learning rate of the base model, but for the rows "
    "that change it.",
    header=HEADER,
    measure=measure_synthetic,
)
REAL_MUSIC = Benchmark(
    title="Effect of the recipes: real music",
    text="The demo's pretrained model, which knows only synthetic music, is fine-tuned on 50 clips of GTZAN, five of "
    "each genre. The accuracies say nothing about GTZAN: the clips are few, and those of most genres are of one "
    "artist, who is in the training and in the test clips. Only the paired difference to the default is of "
    f"interest. Each of {SEEDS} seeds draws {FOLDS} folds, and each fold is tested with the model that was trained "
    "on the other, so each clip is tested once. The seed also draws the head and the order of training. No clips "
    f"are left to select an epoch, so a score is the mean of the last {LAST_EPOCHS} of {REAL_EPOCHS} epochs. The "
    "mean of the last epochs' weights is left out, because it is one more candidate in that selection, and so are "
    "unequal labels, because of five clips most cannot be removed. The 95% interval by Student's t is over the "
    "seeds; it does not include the choice of the clips, and one of them may exclude zero by chance. Batches have "
    f"{REAL_BATCH} clips, of which the first {SECONDS} s are used. The other settings are those of synthetic "
    "music.",
    header=HEADER,
    measure=measure_real,
    describe=describe_widths,
)


if __name__ == "__main__":
    train_recipes(DATASETS[sys.argv[1]], int(sys.argv[2]))
