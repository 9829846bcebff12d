"""Measure how time and memory of each stage grow with the number of clips.

`python -m benchmarks.growth` opens data/encoded of the current folder, and reads the training clips once.
"""

import json
import os
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from benchmarks.accuracy import folder_source
from benchmarks.common import SAMPLING_RATE, Benchmark, Result, print_measurement, run_measurement, time_call
from benchmarks.repro import make_project
from stages.common.paths import ENCODED, SPLITS
from stages.common.tables import read_table

SIZES = (1000, 10_000, 100_000)
SECONDS, BATCH_SIZE = 0.3, 64
READER = "open data/encoded and read it"
STAGES = ["download dataset", "download model", "split", "resample_encode", "evaluate.baselines", "train", "evaluate"]
# A small process starts each program, because the peak memory of a child includes that of the process that starts it.
LAUNCHER = """
import json, resource, subprocess, sys, time
start = time.perf_counter()
subprocess.run(sys.argv[1:], check=True, stdout=sys.stderr)
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
print(json.dumps({"seconds": time.perf_counter() - start, "peak": peak}))
"""


def write_short_clips(folder: Path, clips: int) -> None:
    """Write <label>/<clip>.wav: other noise in each, in PCM 16, ten labels."""
    generator = np.random.default_rng(0)
    for number in range(clips):
        file = folder / str(number % 10) / f"{number % 10}.{number:06d}.wav"
        file.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(file, generator.normal(0, 0.1, round(SECONDS * SAMPLING_RATE)), SAMPLING_RATE, subtype="PCM_16")


def measure_program(folder: Path, *command: str) -> dict[str, float]:
    """Run a program beside this Python in a folder: its seconds, and its peak memory in MB."""
    program = str(Path(sys.executable).parent / command[0])
    env = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    env.pop("PYTHONPATH", None)  # the folder has a copy of the stages
    launcher = [sys.executable, "-c", LAUNCHER, program, *command[1:]]
    done = subprocess.run(launcher, cwd=folder, env=env, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def measure_size(clips: int) -> dict[str, dict[str, float]]:
    """Run each stage once on a number of clips, then let DVC record them, and run `dvc repro` without changes."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "project"
        folder.mkdir()
        write_short_clips(Path(name) / "clips", clips)
        values: dict[str, Any] = {f"train.{key}": value for key, value in TRAIN.items()}
        values = values | {"download.dataset": folder_source(Path(name) / "clips"), "evaluate.batch_size": BATCH_SIZE}
        make_project(folder, "demo.yaml", values)
        measure_program(folder, "python", "-m", "stages.check")
        found = {}
        for stage in STAGES:
            found[stage] = measure_program(folder, "python", "-m", *f"stages.{stage}".split())
            if stage == "resample_encode":
                found[READER] = run_measurement("benchmarks.growth", folder=folder)
            print(clips, stage, found[stage], file=sys.stderr, flush=True)
        measure_program(folder, "python", "-m", "stages.publish")
        found["`dvc commit`: hash and store"] = measure_program(folder, "dvc", "commit", "--quiet", "--force")
        found["`dvc repro` without changes"] = measure_program(folder, "dvc", "repro", "--quiet")
        print(clips, found, file=sys.stderr, flush=True)
    return found


TRAIN = {"epochs": 1, "batch_size": BATCH_SIZE, "eval_batch_size": BATCH_SIZE, "window_seconds": 0.2}


def measure(device: str) -> Result:
    """Measure each number of clips."""
    numbers = {clips: measure_size(clips) for clips in SIZES}
    return {"rows": [make_row(name, numbers) for name in numbers[SIZES[0]]]}


def make_row(name: str, numbers: dict[int, dict[str, dict[str, float]]]) -> list[str]:
    """Return the cells of a row: seconds, milliseconds for each further clip, and peak memory."""
    runs = {clips: found[name] for clips, found in numbers.items()}
    steps = [
        1000 * (runs[more]["seconds"] - runs[fewer]["seconds"]) / (more - fewer) for fewer, more in pairwise(SIZES)
    ]
    seconds = [f"{run['seconds']:.1f}" for run in runs.values()]
    return [name, *seconds, *[f"{step:.2f}" for step in steps], *[f"{run['peak']:.0f}" for run in runs.values()]]


def read() -> None:
    """Open data/encoded of the current folder, and read the training clips in a random order."""
    from stages.common.encoded_clips import open_encoded_clips, select_split

    def read_all() -> None:
        clips = select_split(open_encoded_clips(ENCODED), read_table(SPLITS), "train")
        for number in np.random.default_rng(0).permutation(len(clips.features)):
            clips.features[number].sum()

    print_measurement(seconds=time_call(read_all))


BENCHMARK = Benchmark(
    title="Growth with the number of clips",
    text=f"Clips of {SECONDS} s at 16 kHz (noise, WAV) from a folder, with the demo's model.",
    header=[
        "step",
        *[f"{clips} clips (s)" for clips in SIZES],
        *[f"each further clip to {clips} (ms)" for clips in SIZES[1:]],
        *[f"peak memory, {clips} clips (MB)" for clips in SIZES],
    ],
    measure=measure,
)


if __name__ == "__main__":
    read()
