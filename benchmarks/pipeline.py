"""Time `dvc repro` on a data set of GTZAN's size. On a CPU it takes more than an hour; `course` needs a GPU."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile

from benchmarks.accuracy import folder_source
from benchmarks.common import (
    CLIP_SECONDS,
    GTZAN_SAMPLING_RATE,
    Benchmark,
    Result,
    make_distilhubert,
    make_feature_extractor,
)
from benchmarks.repro import make_project

LABELS = ["blues", "classical", "country", "disco", "hiphop", "jazz", "metal", "pop", "reggae", "rock"]
BROKEN = "jazz.00054"  # of GTZAN's 1000 clips; its tables list the others
CLIPS_PER_LABEL, QUIET = 100, 20  # noise is QUIET times softer than the loudest possible


def write_noise(folder: Path) -> None:
    """Write 999 clips of noise with GTZAN's names, lengths, sampling rate and sample format."""
    generator = np.random.default_rng(0)
    for label in LABELS:
        (folder / label).mkdir(parents=True)
        for number in range(CLIPS_PER_LABEL):
            name = f"{label}.{number:05d}"
            if name != BROKEN:
                noise = generator.integers(-32768, 32768, CLIP_SECONDS * GTZAN_SAMPLING_RATE, np.int16) // QUIET
                soundfile.write(folder / label / f"{name}.wav", noise, GTZAN_SAMPLING_RATE)


def time_stages(folder: Path) -> dict[str, float]:
    """Run `dvc repro`, and return the seconds of each stage that it ran, and of the whole as `total`."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = os.environ | {"PATH": path, "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "dvc", "repro"]
    start = time.perf_counter()
    starts = {}
    with subprocess.Popen(command, cwd=folder, env=env, stdout=subprocess.PIPE, text=True) as process:
        for stage in _started_stages(process.stdout or []):
            starts[stage] = time.perf_counter()
    if process.returncode:
        raise SystemExit(f"error: dvc repro failed in {folder}")
    end = time.perf_counter()
    ends = [*list(starts.values())[1:], end]
    return {stage: stop - begin for (stage, begin), stop in zip(starts.items(), ends)} | {"total": end - start}


def _started_stages(lines: Iterator[str] | list[str]) -> Iterator[str]:
    for line in lines:
        print(line, end="", file=sys.stderr, flush=True)
        if line.startswith("Running stage "):
            yield line.split("'")[1]


def measure(preset: str) -> Result:
    """Run the whole pipeline once."""
    with tempfile.TemporaryDirectory() as name:
        top = Path(name)
        write_noise(top / "clips")
        make_distilhubert().save_pretrained(top / "base")
        make_feature_extractor().save_pretrained(top / "base")
        source = folder_source(top / "clips") | {"originals": None}
        values = {"download.dataset": source, "download.model": {"source": "folder", "path": str(top / "base")}}
        make_project(top / "project", f"{preset}.yaml", values)
        seconds = time_stages(top / "project")
    return {"rows": [[stage, f"{value:.0f}"] for stage, value in seconds.items()]}


def make_benchmark(preset: str) -> Benchmark:
    """Make the benchmark of a preset."""
    return Benchmark(
        title=f"The whole pipeline with `presets/{preset}.yaml`",
        text=f"`dvc repro` runs once on a data set of GTZAN's size: {10 * CLIPS_PER_LABEL - 1} clips of noise of "
        f"{CLIP_SECONDS} s at {GTZAN_SAMPLING_RATE} Hz from a folder, and a model of DistilHuBERT's size with random "
        "weights. Nothing comes from the Hub, and the model learns nothing from noise. The time of a stage includes "
        "the start of Python and DVC's work.",
        header=["stage", "time (s)"],
        measure=lambda device: measure(preset),
    )
