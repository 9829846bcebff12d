"""Measure the project's speed against the course's code, side by side in one run on generated audio.

`make bench` runs all benchmarks but those of accuracy, which take an hour (`python -m benchmarks composed real`) or
longer (`python -m benchmarks recipes real-recipes`), those of wrong labels (`python -m benchmarks audit real-audit`),
and those of the whole pipeline, which need a GPU (`python -m benchmarks --device cuda gtzan course`).
Results are stored in benchmarks/results/, and benchmarks/README.md is written from them. If you change a constant of a
benchmark, run it again: its text states them.
"""

import argparse
import os

import torch

from benchmarks import accuracy, audit, classify, encode, evaluate, growth, pipeline, recipes, repetitions, repro, train
from benchmarks.readme import DEVICES, RESULTS, as_markdown, result_file, write_readme
from stages.common.tables import write_json

BENCHMARKS = {
    "encode": encode.BENCHMARK,
    "train": train.BENCHMARK,
    "evaluate": evaluate.BENCHMARK,
    "classify": classify.BENCHMARK,
    "repro": repro.BENCHMARK,
    "growth": growth.BENCHMARK,
    "repetitions": repetitions.BENCHMARK,
    "audit": audit.BENCHMARK,
    "real-audit": audit.REAL,
    "gtzan": pipeline.make_benchmark("gtzan"),
    "course": pipeline.make_benchmark("course"),
    "composed": accuracy.SYNTHETIC,
    "real": accuracy.REAL,
    "recipes": recipes.SYNTHETIC_MUSIC,
    "real-recipes": recipes.REAL_MUSIC,
}
# Run only if asked for by name.
SLOW = ("growth", "audit", "real-audit", "gtzan", "course", "composed", "real", "recipes", "real-recipes")


def describe_machine(device: str) -> str:
    """Describe the machine."""
    cores = f"{os.cpu_count()} CPU cores"
    return f"{torch.cuda.get_device_name()} and {cores}" if device == "cuda" else cores


def main() -> None:
    """Measure, store the results, and write README.md."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.split("\n")[0])
    help_text = f"{', '.join(BENCHMARKS)}; default: all but {' and '.join(SLOW)}"
    parser.add_argument("names", nargs="*", choices=[*BENCHMARKS, []], metavar="name", help=help_text)
    parser.add_argument("--device", default="cpu", choices=DEVICES)
    parser.add_argument("--render", action="store_true", help="measure nothing, only write README.md from the results")
    options = parser.parse_args()
    if options.device == "cpu":
        # Set before CUDA starts, and for the processes that measure: the stages use a GPU if there is one.
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    names = [] if options.render else options.names or [name for name in BENCHMARKS if name not in SLOW]
    RESULTS.mkdir(exist_ok=True)
    for name in names:
        result = BENCHMARKS[name].measure(options.device) | {"where": describe_machine(options.device)}
        write_json(result_file(name, options.device), result)
        print(as_markdown(BENCHMARKS[name], result), flush=True)
    write_readme(BENCHMARKS)


if __name__ == "__main__":
    main()
