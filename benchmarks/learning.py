"""What the faster settings do to the accuracy: each setting with several seeds, side by side.

On composed music with the demo's model, and on real clips with a pretrained checkpoint where both are at hand
(`../shared`, no part of the project). A seed draws another split and another order of training.
"""

import json
import shutil
import sys
import tempfile
from math import sqrt
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from benchmarks.common import CLIP_SECONDS, ROOT, run, set_params

SHARED = ROOT.parent / "shared"
COURSE = {
    "resample_encode.representation": "input",
    "train.frozen": "none",
    "train.precision": "fp32",
    "train.window_seconds": None,
    "train.attention_dropout": None,
    "train.label_smoothing": 0.0,
    "train.weight_decay": 0.0,
}
OURS = {
    "train.precision": "auto",
    "train.attention_dropout": 0.0,
    "train.label_smoothing": 0.1,
    "train.weight_decay": 0.01,
}
CACHED = {
    "resample_encode.representation": "feature_encoder",
    "resample_encode.precision": "auto",
    "train.frozen": "feature_encoder",
    "train.window_seconds": 10,
}
HEAD = {
    "resample_encode.representation": "base",
    "train.frozen": "base",
    "train.attention_dropout": None,
    "train.learning_rate": 3e-3,
}


def accuracies(preset: str, settings: dict[str, dict[str, Any]], seeds: int, **values: Any) -> dict[str, list[float]]:
    """Test accuracy of each setting with each seed, from 0; encoded once a setting, downloaded once."""
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as top:
        folder = Path(top)
        shutil.copytree(ROOT / "data/tables", folder / "data/tables")
        set_params(folder, preset, values)
        run("stages.download", "dataset", folder=folder)
        run("stages.download", "model", folder=folder)
        for name, setting in settings.items():
            for seed in range(seeds):
                drawn = {"split.seed": seed, "train.seed": seed, "train.threads": 2, "evaluate.threads": 2}
                set_params(folder, preset, values | COURSE | setting | drawn)
                for stage in ["split", *(["resample_encode"] if seed == 0 else []), "train", "evaluate"]:
                    run(f"stages.{stage}", folder=folder)
                accuracy = json.loads((folder / "metrics/metrics.json").read_text())["accuracy"]
                found.setdefault(name, []).append(accuracy)
                print(f"{name}, seed {seed}: {accuracy:.3f}", file=sys.stderr, flush=True)
    return found


def section(title: str, text: str, found: dict[str, list[float]]) -> dict[str, Any]:
    """A row per setting; the first is what the others are held against, seed by seed."""
    first, rows = next(iter(found.values())), []
    for name, values in found.items():
        more = [own - course for own, course in zip(values, first)]
        against = f"{mean(more):+.3f} ± {stdev(more) / sqrt(len(more)):.3f}" if values is not first else ""
        each = " ".join(f"{value:.2f}" for value in values)
        rows.append([name, f"{mean(values):.3f}", f"{stdev(values):.3f}", against, each])
    return {
        "title": title,
        "text": f"Test accuracy with {len(first)} seeds, each another split and another order of training; the mean "
        f"difference to the course's settings, seed by seed, with its standard error. {text}",
        "header": ["setting", "mean", "standard deviation", "against the course's", "each seed"],
        "rows": rows,
    }


def pretrain(folder: Path, clips: Path) -> Path:
    """The demo's model, trained on a folder of clips: the checkpoint."""
    folder.mkdir()
    shutil.copytree(ROOT / "data/tables", folder / "data/tables")
    set_params(folder, "demo.yaml", {"download.dataset": from_folder(clips)})
    run("stages.download", "dataset", folder=folder)
    run("stages.download", "model", folder=folder)
    for stage in ("split", "resample_encode", "train"):
        run(f"stages.{stage}", folder=folder)
    return folder / "models/finetuned"


def from_folder(clips: Path) -> dict[str, Any]:
    return {"source": "folder", "path": str(clips), "max_rejected": 0}


def composed(device: str) -> dict[str, Any]:
    settings = {
        "the course's": {"train.attention_dropout": 0.1},  # DistilHuBERT's own; the base here has none
        "the recommended: `presets/gtzan.yaml`": OURS | {"train.window_seconds": 5},
        "feature encoder frozen, windows of 10 s": OURS | CACHED,
    }
    with tempfile.TemporaryDirectory() as name:
        top = Path(name)
        shape = {"download.dataset.clips_per_label": 100, "download.dataset.seconds": CLIP_SECONDS}
        set_params(top, "demo.yaml", shape)
        run("stages.download", "dataset", folder=top)
        # Every second genre to learn from first, the others to fine-tune on.
        for number, genre in enumerate(sorted((top / "data/raw/audio").iterdir())):
            shutil.copytree(genre, top / ("first", "then")[number % 2] / genre.name)
        base = pretrain(top / "pretraining", top / "first")
        model = {"source": "folder", "path": str(base)}
        values = {"download.dataset": from_folder(top / "then"), "download.model": model, "train.epochs": 10}
        found = accuracies("demo.yaml", settings, 5, **values)
    return section(
        "What it does to the accuracy: composed music",
        "The demo's model, trained on five of its genres as the demo trains, then fine-tuned on the other five for 10 "
        "epochs with the demo's learning rate; 100 clips of 30 s a genre, as in GTZAN. The recommended settings: "
        "windows of 5 s, bf16, attention without dropout (the course's side has 0.1), label smoothing and weight "
        "decay.",
        found,
    )


def real(device: str) -> dict[str, Any]:
    if not SHARED.is_dir():
        raise SystemExit(f"error: no {SHARED}, with real clips and a checkpoint (see benchmarks/learning.py)")
    settings = {"the course's": {}, "the recommended": OURS, "only the head, base cached": OURS | HEAD}
    values = {
        "download.dataset.path": str(SHARED / "data/gtzan-sample"),
        "download.model.path": str(SHARED / "models/whisper-tiny-en"),
        "split.test": 0.4,
        "train.epochs": 6,
    }
    return section(
        "What it does to the accuracy: real music",
        "50 clips of GTZAN of 15 to 20 s, of which 20 are tested on, and Whisper (tiny, English), fine-tuned for 6 "
        "epochs; the best is chosen on the test clips, with every setting. Whisper takes spectrograms of one length "
        "and has no feature encoder to cache, and this checkpoint has no dropout in attention, so that the recommended "
        "settings are bf16, label smoothing and weight decay alone. The head alone has a learning rate of 3e-3.",
        accuracies("folder.yaml", settings, 3, **values),
    )
