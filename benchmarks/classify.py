"""Compare the use of a model on files: Transformers' pipeline(), and tools.classify.

`python -m benchmarks.classify pipeline` (or another of METHODS) classifies the files in clips/ of the current folder.
"""

import shutil
import sys
import tempfile
from pathlib import Path
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import soundfile
from transformers import HubertForSequenceClassification

from benchmarks.common import (
    ROOT,
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
METHODS = {
    "pipeline": "`pipeline()`, given samples",
    "ffmpeg": "`pipeline()`, given file names",
    "fp32": "tools.classify",
    "bf16": "tools.classify, `--precision bf16`",
}


class Kind(NamedTuple):
    """Files of a row, and the model that classifies them. seconds: of each file."""

    name: str
    seconds: list[float]
    model: str = "DistilHuBERT's size"


def list_mixed_lengths(number: int) -> list[float]:
    """Return lengths of 0.5 to 60 s, in random order, of which many are short and few are long: a log-normal law."""
    law = NormalDist(np.log(3), 1.1)
    lengths = np.exp([law.inv_cdf((rank + 0.5) / number) for rank in range(number)]).clip(0.5, 60)
    return [float(seconds) for seconds in np.random.default_rng(1).permutation(lengths)]


KINDS = [
    Kind("200 clips of 1 s", [1.0] * 200),
    Kind("20 clips of 3 to 30 s", np.linspace(3, 30, 20).tolist()),
    Kind("2 recordings of 2 min", [120.0] * 2),
    Kind("60 mixed files of 0.5 to 60 s", list_mixed_lengths(60)),
    Kind("200 mixed files of 0.5 to 60 s", list_mixed_lengths(200), "the demo's"),
]


def load_demo_model() -> HubertForSequenceClassification:
    """Load the demo's base model, with a new head."""
    return HubertForSequenceClassification.from_pretrained(ROOT / "pretrained/hubert-tiny-music", num_labels=10)


MODELS = {"DistilHuBERT's size": make_distilhubert, "the demo's": load_demo_model}


def write_files(folder: Path, kind: Kind) -> None:
    """Write noise in four formats, mono and stereo, at several sampling rates."""
    folder.mkdir()
    generator = np.random.default_rng(0)
    for number, seconds in enumerate(kind.seconds):
        suffix, rate, channels = FORMATS[number % len(FORMATS)]
        noise = generator.normal(0, 0.1, (round(seconds * rate), channels))
        soundfile.write(folder / f"{number:04d}.{suffix}", noise, rate)


def classify_with_pipeline(files: list[Path], decode: bool) -> None:
    """Classify files one after the other.

    Args:
        decode: as docs/hub.md does, which decodes as the stages do; if not, `pipeline()` runs FFmpeg.
    """
    import soxr
    from transformers import pipeline

    classify = pipeline("audio-classification", model=str(BASE))

    def run(file: Path) -> None:
        if not decode:
            classify(str(file))
            return
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
            write_base(folder, MODELS[kind.model]())
            write_files(folder / "clips", kind)
            first = 0.0
            for method, title in METHODS.items():
                if (method == "bf16" and not has_bf16()) or (method == "ffmpeg" and not shutil.which("ffmpeg")):
                    continue
                numbers = run_measurement("benchmarks.classify", method, folder=folder)
                first = first or numbers["seconds"]
                speed = [f"{len(kind.seconds) / numbers['seconds']:.3g}", f"{first / numbers['seconds']:.1f}"]
                rows.append([title, kind.model, kind.name, *speed, f"{numbers['peak']:.0f}"])
    return {"rows": rows}


BENCHMARK = Benchmark(
    title="Use of a model",
    text="A model of DistilHuBERT's size and the demo's classify files of noise in WAV, FLAC, OGG and MP3, at several "
    "sampling rates, mono and stereo. Half of the mixed files are shorter than 3 s. `pipeline()` "
    "classifies one complete file after the other: given samples with the code of docs/hub.md, or given file names, "
    "which it decodes with the program FFmpeg. `tools.classify` also checks each file to its end, and cuts it into "
    "windows of 30 s. Loading the model is not timed. Rows in bf16 are measured only if the processor has it, and rows "
    "with file names only if FFmpeg is installed.",
    header=["method", "model", "files", "files/s", "speed-up", "peak memory (MB)"],
    measure=measure,
)


if __name__ == "__main__":
    found = sorted(Path("clips").iterdir())
    if sys.argv[1] in ("pipeline", "ffmpeg"):
        classify_with_pipeline(found, decode=sys.argv[1] == "pipeline")
    else:
        classify_with_tool(found, sys.argv[1])
