"""What the benchmarks share: clips like GTZAN's, a model of DistilHuBERT's size, and processes to measure in."""

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import soundfile
import yaml
from transformers import HubertConfig, HubertForSequenceClassification, Wav2Vec2FeatureExtractor

from stages.common.paths import BASE, CLIPS, PARAMS, RAW
from stages.common.tables import write_table

ROOT = Path(__file__).parents[1]
SAMPLING_RATE = 16_000  # Hz, of the model
GTZAN_SAMPLING_RATE = 22_050  # Hz
CLIP_SECONDS = 30
BATCH_SIZE, STEPS_PER_EPOCH = 8, 113  # 899 clips in batches of 8
# The differences between DistilHuBERT and HubertConfig's defaults, from convert_distilhubert_original_s3prl_checkpoint
# of transformers.
DISTILHUBERT = {
    "num_hidden_layers": 2,
    "apply_spec_augment": False,
    "feat_proj_layer_norm": False,
    "feat_proj_dropout": 0.0,
    "final_dropout": 0.0,
    "layerdrop": 0.0,
    "num_labels": 10,
}

Result = dict[str, Any]


class Benchmark(NamedTuple):
    """A table of README.md. The wording is here and not in the results, so that it can change without measuring again.

    text: describes the conditions.
    header: of the columns; the first one names the rows.
    measure: takes a device, cpu or cuda, and returns a result, of which `rows` holds the table's cells as strings.
    describe: takes a result and returns a sentence about numbers that are not in the table.
    """

    title: str
    text: str
    header: list[str]
    measure: Callable[[str], Result]
    describe: Callable[[Result], str] | None = None


def make_distilhubert(**config: Any) -> HubertForSequenceClassification:
    """Make a model of DistilHuBERT's size with random weights."""
    return HubertForSequenceClassification(HubertConfig(**DISTILHUBERT | config))


def make_feature_extractor() -> Wav2Vec2FeatureExtractor:
    """Make the feature extractor with the course settings."""
    return Wav2Vec2FeatureExtractor(sampling_rate=SAMPLING_RATE, do_normalize=True, return_attention_mask=True)


def set_params(folder: Path, preset: str, values: dict[str, Any]) -> None:
    """Write a preset into a folder as its params.yaml, with some dotted keys changed."""
    params = yaml.safe_load((ROOT / "presets" / preset).read_text())
    model = params["download"]["model"]
    if model["source"] == "folder":
        model["path"] = str(ROOT / model["path"])
    for key, value in values.items():
        *sections, last = key.split(".")
        node = params
        for section in sections:
            node = node[section]
        node[last] = value
    (folder / PARAMS).write_text(yaml.safe_dump(params))


def write_clips(folder: Path, clips: int, seconds: float) -> None:
    """Write data/raw: noise at 22,050 Hz in PCM 16, ten labels, and the columns of clips.csv that later stages need."""
    raw = folder / RAW
    noise = np.random.default_rng(0).normal(0, 0.1, round(2 * seconds * GTZAN_SAMPLING_RATE))
    length = len(noise) // 2
    rows = []
    for number in range(clips):
        row = {"clip": f"{number % 10}.{number:05d}", "label": str(number % 10)}
        row["path"] = f"audio/{row['label']}/{row['clip']}.wav"
        (raw / row["path"]).parent.mkdir(parents=True, exist_ok=True)
        start = number * 997 % length
        soundfile.write(raw / row["path"], noise[start : start + length], GTZAN_SAMPLING_RATE, subtype="PCM_16")
        rows.append(row)
    write_table(folder / CLIPS, pd.DataFrame(rows))


def write_base(folder: Path, model: HubertForSequenceClassification) -> None:
    """Write models/base."""
    model.save_pretrained(folder / BASE)
    make_feature_extractor().save_pretrained(folder / BASE)


def time_call(function: Callable[[], Any]) -> float:
    """Return the seconds that a call takes."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def run_module(module: str, *arguments: str, folder: Path) -> str:
    """Run one of the project's modules in a folder, in a new process, and return what it printed."""
    command, env = [sys.executable, "-m", module, *arguments], os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=folder, env=env, stdout=subprocess.PIPE, text=True, check=True).stdout


def run_measurement(module: str, *arguments: str, folder: Path) -> dict[str, float]:
    """Run a module that ends with `print_measurement`, and return its numbers, with the peak memory in MB as `peak`."""
    return json.loads(run_module(module, *arguments, folder=folder).splitlines()[-1])


def print_measurement(**numbers: float) -> None:
    """Print numbers for `run_measurement`, with the peak memory of this process or its largest child, in MB."""
    # Not ru_maxrss of this process: Linux includes the program that started it.
    peak = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
    peak = max(peak, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
    print(json.dumps(numbers | {"peak": peak / 1024}))
