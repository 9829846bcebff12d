"""Compare encoding: the course's `cast_column` and `map(batch_size=100)`, and the stage resample_encode.

`python -m benchmarks.encode course` (or `stage`) encodes the clips of the current folder.
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.common import (
    CLIP_SECONDS,
    GTZAN_SAMPLING_RATE,
    SAMPLING_RATE,
    Benchmark,
    Result,
    make_distilhubert,
    print_measurement,
    run_measurement,
    set_params,
    time_call,
    write_base,
    write_clips,
)
from stages.common.paths import BASE, ENCODED, RAW

SIZES = (100, 1000)
CACHED_CLIPS = 16  # the feature encoder takes about a second for each clip


def encode_as_course() -> None:
    """Encode with the course's code; datasets decodes with torchcodec and FFmpeg."""
    from datasets import Audio, Dataset
    from transformers import AutoFeatureExtractor

    extractor = AutoFeatureExtractor.from_pretrained(BASE)
    files = [str(file) for file in sorted((RAW / "audio").rglob("*.wav"))]
    columns = {"file": files, "audio": files, "genre": [Path(file).parent.name for file in files]}
    clips = Dataset.from_dict(columns).cast_column("audio", Audio(sampling_rate=GTZAN_SAMPLING_RATE))

    def preprocess(examples: dict[str, Any]) -> Any:
        arrays = [audio["array"] for audio in examples["audio"]]
        return extractor(
            arrays,
            sampling_rate=SAMPLING_RATE,
            max_length=SAMPLING_RATE * CLIP_SECONDS,
            truncation=True,
            return_attention_mask=True,
        )

    def encode() -> None:
        clips.cast_column("audio", Audio(sampling_rate=SAMPLING_RATE)).map(
            preprocess,
            remove_columns=["audio", "file"],
            batched=True,
            batch_size=100,
            num_proc=1,
            cache_file_name="./encoded.arrow",
        )

    seconds = time_call(encode)
    print_measurement(seconds=seconds, size=sum(file.stat().st_size for file in Path().glob("encoded*.arrow")))


def encode_with_stage() -> None:
    """Encode with the stage."""
    # `main` imports the libraries that it needs; they are imported here, because the course's imports are not timed.
    from stages.resample_encode import encoder  # noqa: F401
    from stages.resample_encode.__main__ import main

    seconds = time_call(main)
    print_measurement(seconds=seconds, size=sum(file.stat().st_size for file in ENCODED.glob("*.arrow")))


def measure(device: str) -> Result:
    """Encode with both methods, and with a cached feature encoder, each in a new process."""
    rows: list[tuple[str, int, dict[str, float]]] = []
    course: dict[int, dict[str, float]] = {}
    for clips in SIZES:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write_clips(folder, clips, CLIP_SECONDS)
            write_base(folder, make_distilhubert())
            set_params(folder, "course.yaml", {})
            course[clips] = run_measurement("benchmarks.encode", "course", folder=folder)
            rows.append(("course (`Dataset.map`)", clips, course[clips]))
            rows.append(("resample_encode", clips, run_measurement("benchmarks.encode", "stage", folder=folder)))
    for precision in ("fp32", "bf16"):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write_clips(folder, CACHED_CLIPS, CLIP_SECONDS)
            write_base(folder, make_distilhubert())
            cache = {"resample_encode.cache": "feature_encoder", "resample_encode.precision": precision}
            set_params(folder, "course.yaml", cache)
            numbers = run_measurement("benchmarks.encode", "stage", folder=folder)
            rows.append((f"resample_encode, `cache: feature_encoder`, {precision}", CACHED_CLIPS, numbers))
    course_size = course[SIZES[0]]["size"] / SIZES[0]
    return {"rows": [_make_row(*row, course, course_size) for row in rows]}


def _make_row(
    name: str, clips: int, numbers: dict[str, float], course: dict[int, dict[str, float]], course_size: float
) -> list[str]:
    speed, size = clips / numbers["seconds"], numbers["size"] / clips
    speed_up = f"{course[clips]['seconds'] / numbers['seconds']:.1f}" if clips in course else ""
    sizes = [f"{size / 1e6:.2f}", f"{size / course_size:.2f}"]
    return [name, str(clips), f"{speed:.3g}", speed_up, *sizes, f"{numbers['peak']:.0f}"]


BENCHMARK = Benchmark(
    title="Encoding",
    text=f"Clips of {CLIP_SECONDS} s at 22,050 Hz (noise, WAV) are decoded, resampled to 16 kHz, normalised and "
    "written. Start-up costs are included, except for imports. The course's code decodes with torchcodec 0.13 and "
    "FFmpeg.",
    header=["method", "clips", "clips/s", "speed-up", "MB per clip", "relative size", "peak memory (MB)"],
    measure=measure,
)


if __name__ == "__main__":
    {"course": encode_as_course, "stage": encode_with_stage}[sys.argv[1]]()
