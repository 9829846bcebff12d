"""Measure the effect of the recipes that are off by default: each against the default, with the same seeds.

The seeds draw the split, the head, the order of training and the windows, for all recipes the same.
"""

import shutil
import tempfile
from math import sqrt
from pathlib import Path
from statistics import mean, stdev

from scipy.stats import t

from benchmarks.accuracy import Params, compose_genres, folder_source, measure_settings
from benchmarks.common import Benchmark, Result

SEEDS, EPOCHS, CLIPS_PER_LABEL, SECONDS, WINDOW = 5, 10, 100, 10, 3
KEPT = (1.0, 0.5, 0.25, 0.12, 0.06)  # share of the clips of each label, if labels are unequal
MIN_KEPT = 5  # clips, for three splits

DEFAULT: Params = {
    "resample_encode.cache": "input",  # some recipes change the input
    "train.precision": "auto",
    "train.window_seconds": WINDOW,
    "train.weight_decay": 0.01,
}
RECIPES: dict[str, Params] = {
    "default": {},
    "cosine decay": {"train.lr_scheduler_type": "cosine"},
    "ten times the learning rate for the head": {"train.head_learning_rate": 3e-2},
    "mean of the last five epochs": {"train.average_epochs": 5},
    "mixup, alpha 0.2": {"train.augment": {"mixup": 0.2}},
    "noise at 10 to 40 dB": {"train.augment": {"noise": [10, 40]}},
    "polarity": {"train.augment": {"polarity": True}},
    "shift of up to half a window": {"train.augment": {"time_shift": 0.5}},
    "weighted sum of layers": {"train.layers": "weighted"},
    "LoRA, rank 8": {"train.lora": {"r": 8}},
}
UNEQUAL: dict[str, Params] = {
    "unequal labels: default": {},
    "unequal labels: class weights": {"train.class_weights": "balanced"},
    "unequal labels: balanced sampler": {"train.sampler": "balanced"},
    "unequal labels: best epoch by macro F1": {"train.select_by": "macro_f1"},
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


def keep_shares(clips: Path, folder: Path) -> None:
    """Copy a folder of labels with fewer clips of each label than of the one before."""
    for share, label in zip(KEPT, sorted(clips.iterdir())):
        files = sorted(label.iterdir())
        (folder / label.name).mkdir(parents=True)
        for file in files[: max(MIN_KEPT, round(share * len(files)))]:
            shutil.copyfile(file, folder / label.name / file.name)


def measure(
    device: str, seeds: int = SEEDS, epochs: int = EPOCHS, clips: int = CLIPS_PER_LABEL, seconds: float = SECONDS
) -> Result:
    """Pretrain the demo's model on five genres, and fine-tune it on the other five with each recipe."""
    with tempfile.TemporaryDirectory() as name:
        top = Path(name)
        base = compose_genres(top, clips, seconds)
        keep_shares(top / "clips", top / "unequal")
        rows = []
        for folder, recipes, metric in (("clips", RECIPES, "accuracy"), ("unequal", UNEQUAL, "macro_f1")):
            values = DEFAULT | {
                "download.dataset": folder_source(top / folder),
                "download.model": {"source": "folder", "path": str(base)},
                "train.epochs": epochs,
            }
            settings = {recipe: DEFAULT | changes for recipe, changes in recipes.items()}
            scores = measure_settings("demo.yaml", settings, seeds, values, metric)
            rows += make_rows(scores, metric.replace("_", " "))
    return {"rows": rows}


BENCHMARK = Benchmark(
    title="Effect of the recipes: synthetic music",
    text=f"Test scores with {SEEDS} seeds, which draw the split, the head and the order of training. The difference to "
    "the default is paired by seed, with its 95% interval by Student's t over the seeds. With so many rows, one or two "
    "intervals may exclude zero by chance. The demo's model is trained on five genres, then fine-tuned on the other "
    f"five for {EPOCHS} epochs with windows of {WINDOW} s and the demo's learning rate. Each genre has "
    f"{CLIPS_PER_LABEL} clips of {SECONDS} s; the unequal labels have {KEPT[0]:.0%} to {KEPT[-1]:.0%} of "
    "them.",
    header=["recipe", "metric", "mean", "difference to the default", "each seed"],
    measure=measure,
)
