"""What the project claims about speed, as ratios measured side by side in one run on generated audio.

`make bench` measures all but what the settings do to the accuracy, which takes an hour and is asked for by name:
`python -m benchmarks composed real`. What is measured goes into benchmarks/results/, and all that is there into
benchmarks/README.md.
"""

import argparse
import json
import os
from pathlib import Path
from typing import Any

import torch

from benchmarks import encode, evaluate, growth, learning, repetitions, repro, train

HERE = Path(__file__).parent
RESULTS, TABLE = HERE / "results", HERE / "README.md"
MEASURED = {
    "encode": encode.measure,
    "train": train.measure,
    "evaluate": evaluate.measure,
    "repro": repro.measure,
    "growth": growth.measure,
    "repetitions": repetitions.measure,
    "composed": learning.composed,
    "real": learning.real,
}
HEAD = """# Benchmarks

Measured side by side, each table in one run: the ratios are what counts. `make bench` measures again (on two cores it
takes half an hour and 6 GB of disk; the course's side of encoding needs FFmpeg), `python -m benchmarks composed real`
the last two tables (an hour; `real` needs clips of GTZAN and a Whisper checkpoint in `../shared`, which are no part of
the project), `python -m benchmarks --device cuda` on a GPU.
"""


def where(device: str) -> str:
    cores = f"{os.cpu_count()} CPU cores"
    return f"{torch.cuda.get_device_name()} and {cores}" if device == "cuda" else cores


def as_markdown(section: dict[str, Any]) -> str:
    rows = [section["header"], ["---"] * len(section["header"]), *section["rows"]]
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return f"## {section['title']}\n\n{section['text']} Measured on {section['where']}.\n\n{table}\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", choices=[*MEASURED, []], help="all but composed and real if none")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    options = parser.parse_args()
    if options.device == "cpu":
        # Before CUDA starts, and for the processes that measure: the stages take a GPU where they see one.
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    RESULTS.mkdir(exist_ok=True)
    for name in options.names or [*MEASURED][:-2]:
        section = MEASURED[name](options.device) | {"where": where(options.device)}
        (RESULTS / f"{name}.{options.device}.json").write_text(json.dumps(section, indent=2) + "\n")
        print(as_markdown(section), flush=True)
    found = [RESULTS / f"{name}.{device}.json" for device in ("cpu", "cuda") for name in MEASURED]
    sections = [as_markdown(json.loads(file.read_text())) for file in found if file.exists()]
    TABLE.write_text("\n".join([HEAD, *sections]))


if __name__ == "__main__":
    main()
