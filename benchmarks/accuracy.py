"""Measure the effect of the faster settings on accuracy: each setting with several seeds.

The seeds draw the split and the order of training. One benchmark uses synthetic music and the demo's model; the other
uses real clips and a pretrained checkpoint from `../shared`, which is not part of the project.
"""

import shutil
import sys
import tempfile
from math import sqrt
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from benchmarks.common import CLIP_SECONDS, ROOT, Benchmark, Result, run_module, set_params
from stages.common.paths import FINETUNED, METRICS, RAW
from stages.common.tables import read_json

SHARED = ROOT.parent / "shared"
TABLES = "data/tables"
SYNTHETIC_SEEDS, SYNTHETIC_EPOCHS, CLIPS_PER_LABEL = 5, 10, 100
REAL_SEEDS, REAL_EPOCHS = 3, 6
Params = dict[str, Any]  # dotted keys of params.yaml

COURSE: Params = {
    "resample_encode.cache": "input",
    "train.freeze": "none",
    "train.precision": "fp32",
    "train.window_seconds": None,
    "train.attention_dropout": None,
    "train.label_smoothing": 0.0,
    "train.weight_decay": 0.0,
}
RECOMMENDED: Params = {
    "train.precision": "auto",
    "train.attention_dropout": 0.0,
    "train.label_smoothing": 0.1,
    "train.weight_decay": 0.01,
}
CACHED_FEATURE_ENCODER: Params = {
    "resample_encode.cache": "feature_encoder",
    "resample_encode.precision": "auto",
    "train.freeze": "feature_encoder",
    "train.window_seconds": 10,
}
HEAD_ONLY: Params = {
    "resample_encode.cache": "base",
    "train.freeze": "base",
    "train.attention_dropout": None,
    "train.learning_rate": 3e-3,
}


def measure_settings(
    preset: str, settings: dict[str, Params], seeds: int, values: Params, metric: str = "accuracy"
) -> dict[str, list[float]]:
    """Run the pipeline for each setting and seed: download once, and encode once for each setting.

    Args:
        settings: changes to the course settings, by name.
        values: changes to the preset that all settings share.
        metric: of metrics.json.

    Returns:
        The metric of each setting on the test clips, for the seeds from 0.
    """
    scores: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as top:
        folder = Path(top)
        shutil.copytree(ROOT / TABLES, folder / TABLES)
        set_params(folder, preset, values)
        run_module("stages.download", "dataset", folder=folder)
        run_module("stages.download", "model", folder=folder)
        for name, setting in settings.items():
            for seed in range(seeds):
                drawn = {"split.seed": seed, "train.seed": seed, "train.threads": 2, "evaluate.threads": 2}
                set_params(folder, preset, values | COURSE | setting | drawn)
                run_module("stages.split", folder=folder)
                if seed == 0:
                    run_module("stages.resample_encode", folder=folder)
                run_module("stages.train", folder=folder)
                run_module("stages.evaluate.baselines", folder=folder)
                run_module("stages.evaluate", folder=folder)
                score = read_json(folder / METRICS)[metric]
                scores.setdefault(name, []).append(score)
                print(f"{name}, seed {seed}: {score:.3f}", file=sys.stderr, flush=True)
    return scores


def make_rows(accuracies: dict[str, list[float]]) -> list[list[str]]:
    """Make a row for each setting, with its mean difference to the first one over the seeds."""
    course, rows = next(iter(accuracies.values())), []
    for name, values in accuracies.items():
        differences = [value - reference for value, reference in zip(values, course)]
        error = stdev(differences) / sqrt(len(differences))
        difference = "" if values is course else f"{mean(differences):+.3f} ± {error:.3f}"
        each = " ".join(f"{value:.2f}" for value in values)
        rows.append([name, f"{mean(values):.3f}", f"{stdev(values):.3f}", difference, each])
    return rows


def pretrain(folder: Path, clips: Path) -> Path:
    """Train the demo's model on a folder of clips, and return its checkpoint."""
    folder.mkdir()
    shutil.copytree(ROOT / TABLES, folder / TABLES)
    values = {"download.dataset": folder_source(clips), "train.window_seconds": 3, "train.epochs": 7}
    set_params(folder, "demo.yaml", values)
    run_module("stages.download", "dataset", folder=folder)
    run_module("stages.download", "model", folder=folder)
    for stage in ("split", "resample_encode", "train"):
        run_module(f"stages.{stage}", folder=folder)
    return folder / FINETUNED


def compose_genres(top: Path, clips_per_label: int, seconds: float) -> Path:
    """Compose the demo's genres, leave five of them in the folder `clips`, and pretrain the demo's model on the others.

    Returns:
        The checkpoint.
    """
    size = {"download.dataset.clips_per_label": clips_per_label, "download.dataset.seconds": seconds}
    set_params(top, "demo.yaml", size)
    run_module("stages.download", "dataset", folder=top)
    for number, genre in enumerate(sorted((top / RAW / "audio").iterdir())):
        shutil.copytree(genre, top / ("pretraining_clips", "clips")[number % 2] / genre.name)
    return pretrain(top / "pretraining", top / "pretraining_clips")


def folder_source(clips: Path) -> Params:
    """Return download.dataset of params.yaml for a folder of clips."""
    return {"source": "folder", "path": str(clips), "max_rejected": 0}


def find_real_clips() -> Path:
    """Return the folder of the real clips, 50 of GTZAN: ten labels of five clips.

    Raises:
        SystemExit: it is missing.
    """
    clips = SHARED / "data/gtzan-sample"
    if not clips.is_dir():
        raise SystemExit(f"error: {clips} is missing; it holds real clips (see {__name__})")
    return clips


def measure_synthetic(device: str) -> Result:
    """Pretrain the demo's model on five genres, and fine-tune it on the other five with each setting."""
    settings = {
        "course settings": {"train.attention_dropout": 0.1},  # DistilHuBERT's default; the demo's model has none
        "recommended settings (`presets/gtzan.yaml`)": RECOMMENDED | {"train.window_seconds": 5},
        "recommended settings, feature encoder frozen, windows of 10 s": RECOMMENDED | CACHED_FEATURE_ENCODER,
    }
    with tempfile.TemporaryDirectory() as name:
        top = Path(name)
        base = compose_genres(top, CLIPS_PER_LABEL, CLIP_SECONDS)
        values = {
            "download.dataset": folder_source(top / "clips"),
            "download.model": {"source": "folder", "path": str(base)},
            "train.epochs": SYNTHETIC_EPOCHS,
        }
        return {"rows": make_rows(measure_settings("demo.yaml", settings, SYNTHETIC_SEEDS, values))}


def measure_real(device: str) -> Result:
    """Fine-tune Whisper on real clips with each setting."""
    clips = find_real_clips()
    settings = {
        "course settings": {},
        "recommended settings": RECOMMENDED,
        "recommended settings, head only, base model's output cached": RECOMMENDED | HEAD_ONLY,
    }
    values = {
        "download.dataset.path": str(clips),
        "download.model.path": str(SHARED / "models/whisper-tiny-en"),
        "split.test_size": 0.4,
        "train.epochs": REAL_EPOCHS,
    }
    return {"rows": make_rows(measure_settings("folder.yaml", settings, REAL_SEEDS, values))}


def _describe_seeds(seeds: int) -> str:
    return (
        f"Test accuracy with {seeds} seeds, which draw the split and the order of training. The difference to the "
        "course settings is the mean over the seeds, with its standard error. "
    )


HEADER = ["setting", "mean", "standard deviation", "difference to course", "each seed"]
SYNTHETIC = Benchmark(
    title="Effect on accuracy: synthetic music",
    text=_describe_seeds(SYNTHETIC_SEEDS)
    + "The demo's model is trained on five of the demo's genres with the demo's settings and windows of 3 s, then "
    f"fine-tuned on the other five for {SYNTHETIC_EPOCHS} epochs with the demo's learning rate. Each genre has "
    f"{CLIPS_PER_LABEL} clips of {CLIP_SECONDS} s, as in GTZAN. The recommended settings are windows of 5 s, bf16, no "
    "attention dropout (it is 0.1 in the course settings), label smoothing and weight decay. The "
    "results are of an earlier demo, whose genres were others and whose model had random weights.",
    header=HEADER,
    measure=measure_synthetic,
)
REAL = Benchmark(
    title="Effect on accuracy: real music",
    text=_describe_seeds(REAL_SEEDS)
    + f"Whisper (tiny, English) is fine-tuned for {REAL_EPOCHS} epochs on 50 clips of GTZAN of 15 to 20 s. 20 of them "
    "are the test clips, which also select the best epoch, with every setting. Whisper takes spectrograms of a fixed "
    "length and has no feature encoder to cache, and this checkpoint has no attention dropout, so the recommended "
    "settings are only bf16, label smoothing and weight decay. The learning rate of the head alone is 3e-3.",
    header=HEADER,
    measure=measure_real,
)
