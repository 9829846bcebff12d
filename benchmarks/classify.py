"""Compare the use of a model on files: Transformers' pipeline(), and tools.classify.

`python -m benchmarks.classify pipeline` (or `fp32`, `bf16`) classifies the files in clips/ of the current folder.
"""

import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile

from benchmarks.common import (
    SAMPLING_RATE,
    Benchmark,
    Result,
    make_distilhubert,
    print_measurement,
    run_measurement,
    time_call,
    write_base,
)
from stages.common.device import has_bf16
from stages.common.paths import BASE

BATCH_SIZE = 8
FORMATS = [("wav", 22_050, 1), ("flac", 44_100, 2), ("ogg", 48_000, 2), ("mp3", 44_100, 1)]
METHODS = {"pipeline": "`pipeline()`", "fp32": "tools.classify", "bf16": "tools.classify, `--precision bf16`"}


class Kind(NamedTuple):
    """Files of a row. number: of the files. shortest, longest: seconds; the lengths between them are equally spaced."""

    name: str
    number: int
    shortest: float
    longest: float


KINDS = [
    Kind("clips of 1 s", 200, 1, 1),
    Kind("clips of 3 to 30 s", 40, 3, 30),
    Kind("recordings of 2 min", 4, 120, 120),
]


def write_files(folder: Path, kind: Kind) -> None:
    """Write noise in four formats, mono and stereo, at several sampling rates."""
    folder.mkdir()
    generator = np.random.default_rng(0)
    for number, seconds in enumerate(np.linspace(kind.shortest, kind.longest, kind.number)):
        suffix, rate, channels = FORMATS[number % len(FORMATS)]
        noise = generator.normal(0, 0.1, (round(seconds * rate), channels))
        soundfile.write(folder / f"{number:04d}.{suffix}", noise, rate)


def classify_with_pipeline(files: list[Path]) -> None:
    """Classify files with the code of docs/hub.md, which decodes as the stages do; one after the other."""
    import soxr
    from transformers import pipeline

    classify = pipeline("audio-classification", model=str(BASE))

    def run(file: Path) -> None:
        samples, sampling_rate = soundfile.read(file, dtype="float32", always_2d=True)
        classify(soxr.resample(samples.mean(axis=1), sampling_rate, SAMPLING_RATE))

    def run_all() -> None:
        for file in files:
            run(file)

    run(files[0])
    print_measurement(seconds=time_call(run_all))


def classify_with_tool(files: list[Path], precision: str) -> None:
    """Classify files with tools.classify."""
    from tools.classify.__main__ import plan_windows
    from tools.classify.batches import classify
    from tools.classify.model import load_model

    model = load_model(BASE, precision)
    windows = plan_windows(model, None, None)

    def run(files: list[Path]) -> None:
        recordings = list(classify(map(str, files), model, windows, BATCH_SIZE, lambda seconds: None))
        assert len(recordings) == len(files)
        assert not any(recording.reason for recording in recordings)

    run(files[:1])
    print_measurement(seconds=time_call(lambda: run(files)))


def measure(device: str) -> Result:
    """Classify the same files with each method, each in a new process."""
    rows = []
    for kind in KINDS:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write_base(folder, make_distilhubert())
            write_files(folder / "clips", kind)
            first = 0.0
            for method, title in METHODS.items():
                if method == "bf16" and not has_bf16():
                    continue
                numbers = run_measurement("benchmarks.classify", method, folder=folder)
                first = first or numbers["seconds"]
                speed = [f"{kind.number / numbers['seconds']:.3g}", f"{first / numbers['seconds']:.1f}"]
                rows.append([title, kind.name, *speed, f"{numbers['peak']:.0f}"])
    return {"rows": rows}


BENCHMARK = Benchmark(
    title="Use of a model",
    text="A model of DistilHuBERT's size classifies "
    f"{', '.join(f'{kind.number} {kind.name}' for kind in KINDS)} (noise in WAV, FLAC, OGG and MP3, at several "
    "sampling rates, mono and stereo). `pipeline()` gets the samples of one complete file after the other, with the "
    "code of docs/hub.md. `tools.classify` also checks each file to its end, and cuts it into windows of 30 s. Loading "
    "the model is not timed. Rows in bf16 are measured only if the processor has it.",
    header=["method", "files", "files/s", "speed-up", "peak memory (MB)"],
    measure=measure,
)


if __name__ == "__main__":
    found = sorted(Path("clips").iterdir())
    if sys.argv[1] == "pipeline":
        classify_with_pipeline(found)
    else:
        classify_with_tool(found, sys.argv[1])
