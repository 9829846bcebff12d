"""How training grows with the clips."""

import tempfile
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from transformers import HubertConfig, HubertForSequenceClassification

from benchmarks.common import figures_of, report, run, set_params, timed, write_base, write_clips
from stages import train as train_stage

SIZES = (100, 1000)
SECONDS, EPOCHS = 5, 2


def measure(device: str) -> dict[str, Any]:
    """The stage train on 100 and on 1000 clips, with the demo's model."""
    rows = []
    for clips in SIZES:
        with tempfile.TemporaryDirectory() as top:
            folder = Path(top)
            set_params(folder, "demo.yaml", {"train.epochs": EPOCHS})
            config = yaml.safe_load((folder / "params.yaml").read_text())["download"]["model"]["config"]
            write_clips(folder, clips, SECONDS)
            write_base(folder, HubertForSequenceClassification(HubertConfig(**config)))
            run("stages.resample_encode", folder=folder)
            rows.append((clips, figures_of("benchmarks.growth", folder=folder)))
    first = rows[0][1]["seconds"]
    return {
        "title": "From 100 to 1000 clips",
        "text": f"The demo's model and settings, clips of {SECONDS} s: {EPOCHS} epochs of the stage train, a tenth of "
        "the clips evaluated after each. How encoding grows stands above.",
        "header": ["clips", "train, seconds", "ratio", "peak memory, MB"],
        "rows": [
            [str(clips), f"{own['seconds']:.1f}", f"{own['seconds'] / first:.1f}", f"{own['peak']:.0f}"]
            for clips, own in rows
        ],
    }


def train() -> None:
    clips = pd.read_csv("data/raw/clips.csv", dtype=str)
    clips["split"] = ["validation" if number % 10 == 0 else "train" for number in range(len(clips))]
    clips.to_csv("data/splits.csv", index=False)
    report(seconds=timed(train_stage.main))


if __name__ == "__main__":
    train()
