"""Measure how the time of the stage train grows with the number of clips.

`python -m benchmarks.growth` trains on the clips of the current folder.
"""

import tempfile
from pathlib import Path

import yaml
from transformers import HubertConfig, HubertForSequenceClassification

from benchmarks.common import (
    Benchmark,
    Result,
    print_measurement,
    run_measurement,
    run_module,
    set_params,
    time_call,
    write_base,
    write_clips,
)
from stages.common.paths import CLIPS, PARAMS, SPLITS
from stages.common.tables import read_table, write_table

SIZES = (100, 1000)
SECONDS, WINDOW_SECONDS, EPOCHS = 5, 3, 2


def measure(device: str) -> Result:
    """Run the stage train with the demo's model for each number of clips, each in a new process."""
    numbers: dict[int, dict[str, float]] = {}
    for clips in SIZES:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            set_params(folder, "demo.yaml", {"train.epochs": EPOCHS, "train.window_seconds": WINDOW_SECONDS})
            config = yaml.safe_load((folder / PARAMS).read_text())["download"]["model"]["config"]
            write_clips(folder, clips, SECONDS)
            write_base(folder, HubertForSequenceClassification(HubertConfig(**config)))
            run_module("stages.resample_encode", folder=folder)
            numbers[clips] = run_measurement("benchmarks.growth", folder=folder)
    first = numbers[SIZES[0]]["seconds"]
    return {
        "rows": [
            [str(clips), f"{row['seconds']:.1f}", f"{row['seconds'] / first:.1f}", f"{row['peak']:.0f}"]
            for clips, row in numbers.items()
        ]
    }


def train() -> None:
    """Train on the clips of the current folder, with every tenth for validation."""
    # `main` imports the libraries that it needs; they are imported here, so that only training is timed.
    from stages.train import model, trainer  # noqa: F401
    from stages.train.__main__ import main

    clips = read_table(CLIPS)
    clips["split"] = ["validation" if number % 10 == 0 else "train" for number in range(len(clips))]
    write_table(SPLITS, clips)
    print_measurement(seconds=time_call(main))


BENCHMARK = Benchmark(
    title=f"Training time from {SIZES[0]} to {SIZES[1]} clips",
    text=f"The stage train runs {EPOCHS} epochs with the demo's model and settings on clips of {SECONDS} s, in windows "
    f"of {WINDOW_SECONDS} s, and evaluates a tenth of the clips after each epoch. The first table shows how encoding "
    "grows.",
    header=["clips", "training (s)", "ratio", "peak memory (MB)"],
    measure=measure,
)


if __name__ == "__main__":
    train()
