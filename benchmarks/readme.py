"""Write README.md from the results."""

from collections.abc import Mapping
from pathlib import Path

from benchmarks.common import Benchmark, Result
from stages.common.tables import read_json

HERE = Path(__file__).parent
RESULTS, README = HERE / "results", HERE / "README.md"
DEVICES = ("cpu", "cuda")
HEAD = """# Benchmarks

Each table was measured in one run on one machine: compare ratios, not absolute numbers.

- `make bench` measures all tables but those named below. On two cores it takes half an hour and 6 GB of disk. The
  course's code for encoding needs FFmpeg.
- `python -m benchmarks composed real` measures the effect on accuracy, in an hour. `real` needs clips of GTZAN and a
  Whisper checkpoint in `../shared`, which are not part of the project.
- `python -m benchmarks recipes real-recipes` measures the [recipes](../docs/recipes.md) that are off by default, on
  synthetic music and on real clips: on two cores, a quarter of an hour each. `real-recipes` also needs the clips.
- `python -m benchmarks audit` searches for planted wrong labels. It trains the demo's model ten times. `real-audit`
  does so on the clips in `../shared`, without training a model.
- `python -m benchmarks growth` runs all stages on up to 100,000 short clips. It has not been timed.
- `python -m benchmarks --device cuda gtzan course` runs the whole pipeline with these presets. On an H200,
  `gtzan` took a minute and a half and `course` three minutes. `course` needs a GPU.
- `python -m benchmarks --render` only writes this page, from `benchmarks/results/`.
"""
# Results that hold a `text` are older than the wording here: their names of rows -> the names now.
OLD_NAMES = {
    "the course's `map`": "course (`Dataset.map`)",
    "... through the feature encoder, fp32": "resample_encode, `cache: feature_encoder`, fp32",
    "... through the feature encoder, bf16": "resample_encode, `cache: feature_encoder`, bf16",
    "the course: whole clips, all layers, fp32": "course: complete clips, all layers, fp32",
    "... no dropout in attention": "... no attention dropout",
    "... windows of 5 s: `presets/gtzan.yaml`": "... windows of 5 s (`presets/gtzan.yaml`)",
    "the course, feature encoder frozen": "course, feature encoder frozen",
    "... bf16, no dropout in attention, windows of 10 s": "... bf16, no attention dropout, windows of 10 s",
    "the course, whole base frozen, its output cached": "course, base model frozen, its output cached",
    "evaluate behind a cached feature encoder": "evaluate, feature encoder's output cached",
    "quieter or louder, to clipping": "quieter, or louder and clipped",
    "begins later, by up to a fifth": "up to a fifth cut off at the start",
    "a part, two fifths of it": "excerpt of two fifths",
    "at 16 kHz": "resampled to 16 kHz",
    "such a part, quieter or louder, as MP3 at 8 kHz": "excerpt of two fifths, quieter or louder, MP3 at 8 kHz",
    "pairs of other clips taken for one": "false positives (pairs of different clips)",
    "the course's": "course settings",
    "the recommended: `presets/gtzan.yaml`": "recommended settings (`presets/gtzan.yaml`)",
    "feature encoder frozen, windows of 10 s": "recommended settings, feature encoder frozen, windows of 10 s",
    "the recommended": "recommended settings",
    "only the head, base cached": "recommended settings, head only, base model's output cached",
}


def result_file(name: str, device: str) -> Path:
    """Return where the result of a benchmark is stored."""
    return RESULTS / f"{name}.{device}.json"


def as_markdown(benchmark: Benchmark, result: Result) -> str:
    """Format a result as a section with a table. The wording is the benchmark's, the numbers are the result's."""
    rows = [[OLD_NAMES.get(name, name), *cells] for name, *cells in result["rows"]]
    lines = [benchmark.header, ["---"] * len(benchmark.header), *rows]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    text = [benchmark.text, benchmark.describe(result)] if benchmark.describe else [benchmark.text]
    return f"## {benchmark.title}\n\n{' '.join(text)} Measured on {result['where']}.\n\n{table}\n"


def write_readme(benchmarks: Mapping[str, Benchmark]) -> None:
    """Write README.md with all results that exist."""
    sections = [
        as_markdown(benchmark, read_json(result_file(name, device)))
        for device in DEVICES
        for name, benchmark in benchmarks.items()
        if result_file(name, device).exists()
    ]
    README.write_text("\n".join([HEAD, *sections]), encoding="utf-8")
