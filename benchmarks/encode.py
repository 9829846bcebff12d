"""Encoding: the course's `cast_column` and `map(batch_size=100)` against the stage resample_encode.

`python -m benchmarks.encode course` (or `stage`) encodes the clips of the folder that it runs in.
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.common import (
    CLIP_SECONDS,
    GTZAN_RATE,
    RATE,
    distilhubert,
    figures_of,
    report,
    set_params,
    timed,
    write_base,
    write_clips,
)

SIZES = (100, 1000)
PART_CLIPS = 16  # a part of the model takes seconds a clip


def course() -> None:
    """As the course writes it, with what today's datasets decodes audio by: torchcodec and FFmpeg."""
    from datasets import Audio, Dataset
    from transformers import AutoFeatureExtractor

    extractor = AutoFeatureExtractor.from_pretrained("models/base")
    files = [str(file) for file in sorted(Path("data/raw/audio").rglob("*.wav"))]
    columns = {"file": files, "audio": files, "genre": [Path(file).parent.name for file in files]}
    clips = Dataset.from_dict(columns).cast_column("audio", Audio(sampling_rate=GTZAN_RATE))

    def preprocess(examples: dict[str, Any]) -> Any:
        arrays = [audio["array"] for audio in examples["audio"]]
        return extractor(
            arrays, sampling_rate=RATE, max_length=RATE * CLIP_SECONDS, truncation=True, return_attention_mask=True
        )

    def encode() -> None:
        clips.cast_column("audio", Audio(sampling_rate=RATE)).map(
            preprocess,
            remove_columns=["audio", "file"],
            batched=True,
            batch_size=100,
            num_proc=1,
            cache_file_name="./encoded.arrow",
        )

    seconds = timed(encode)
    size = sum(file.stat().st_size for file in Path().glob("encoded*.arrow"))
    report(seconds=seconds, size=size)


def stage() -> None:
    from stages import resample_encode

    seconds = timed(resample_encode.main)
    report(seconds=seconds, size=Path("data/encoded", resample_encode.SHARD).stat().st_size)


def measure(device: str) -> dict[str, Any]:
    rows, base = [], {}
    for clips in SIZES:
        with tempfile.TemporaryDirectory() as top:
            folder = Path(top)
            write_clips(folder, clips, CLIP_SECONDS)
            write_base(folder, distilhubert())
            set_params(folder, "course.yaml", {})
            for name, side in (("the course's `map`", "course"), ("resample_encode", "stage")):
                found = figures_of("benchmarks.encode", side, folder=folder)
                rows.append((name, clips, found))
                base.setdefault(clips, found)
    for precision in ("fp32", "bf16"):
        with tempfile.TemporaryDirectory() as top:
            folder = Path(top)
            write_clips(folder, PART_CLIPS, CLIP_SECONDS)
            write_base(folder, distilhubert())
            part = {"resample_encode.representation": "feature_encoder", "resample_encode.precision": precision}
            set_params(folder, "course.yaml", part)
            found = figures_of("benchmarks.encode", "stage", folder=folder)
            rows.append((f"... through the feature encoder, {precision}", PART_CLIPS, found))

    def row(name: str, clips: int, found: dict[str, float]) -> list[str]:
        speed, size = clips / found["seconds"], found["size"] / clips
        against = base.get(clips)
        times = f"{against['seconds'] / found['seconds']:.1f}" if against else ""
        share = f"{size / (base[SIZES[0]]['size'] / SIZES[0]):.2f}"
        return [name, str(clips), f"{speed:.3g}", times, f"{size / 1e6:.2f}", share, f"{found['peak']:.0f}"]

    return {
        "title": "Encoding",
        "text": "Clips of 30 s at 22,050 Hz (noise, WAV), decoded, resampled to 16 kHz, normalised and written; "
        "starting is included. The course's side decodes by torchcodec 0.13 and FFmpeg.",
        "header": ["side", "clips", "clips a second", "times", "MB a clip", "share", "peak memory, MB"],
        "rows": [row(*values) for values in rows],
    }


if __name__ == "__main__":
    {"course": course, "stage": stage}[sys.argv[1]]()
