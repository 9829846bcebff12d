"""What the benchmarks share: clips of GTZAN's shape, a model of DistilHuBERT's, and a process to measure in."""

import csv
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import yaml
from transformers import HubertConfig, HubertForSequenceClassification, Wav2Vec2FeatureExtractor

ROOT = Path(__file__).parents[1]
RATE, CLIP_SECONDS = 16_000, 30
GTZAN_RATE = 22_050
BATCH, STEPS_PER_EPOCH = 8, 113  # 899 clips, 8 to a batch
# What sets DistilHuBERT apart from HubertConfig's defaults (config.json of ntu-spml/distilhubert).
DISTILHUBERT = {"num_hidden_layers": 2, "apply_spec_augment": False, "num_labels": 10}


def distilhubert(**config: Any) -> HubertForSequenceClassification:
    """DistilHuBERT's shape with random weights."""
    return HubertForSequenceClassification(HubertConfig(**DISTILHUBERT | config))


def set_params(folder: Path, preset: str, values: dict[str, Any]) -> None:
    """Write a preset into a folder as its params.yaml, with some dotted keys changed."""
    params = yaml.safe_load((ROOT / "presets" / preset).read_text())
    for key, value in values.items():
        *sections, last = key.split(".")
        node = params
        for section in sections:
            node = node[section]
        node[last] = value
    (folder / "params.yaml").write_text(yaml.safe_dump(params))


def write_clips(folder: Path, clips: int, seconds: float) -> None:
    """data/raw as download leaves it: noise at 22,050 Hz in PCM 16, ten labels."""
    raw = folder / "data/raw"
    noise = np.random.default_rng(0).normal(0, 0.1, round(2 * seconds * GTZAN_RATE))
    length = len(noise) // 2
    rows = []
    for number in range(clips):
        row = {"clip": f"{number % 10}.{number:05d}", "label": str(number % 10)}
        row["path"] = f"audio/{row['label']}/{row['clip']}.wav"
        (raw / row["path"]).parent.mkdir(parents=True, exist_ok=True)
        start = number * 997 % length
        soundfile.write(raw / row["path"], noise[start : start + length], GTZAN_RATE, subtype="PCM_16")
        rows.append(row)
    with (raw / "clips.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def write_base(folder: Path, model: HubertForSequenceClassification) -> None:
    model.save_pretrained(folder / "models/base")
    extractor = Wav2Vec2FeatureExtractor(sampling_rate=RATE, do_normalize=True, return_attention_mask=True)
    extractor.save_pretrained(folder / "models/base")


def timed(function: Callable[[], Any]) -> float:
    """Seconds that a call takes."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def run(module: str, *arguments: str, folder: Path) -> str:
    """Run one of the project's modules in a folder and in a process of its own; what it printed."""
    command, env = [sys.executable, "-m", module, *arguments], os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=folder, env=env, stdout=subprocess.PIPE, text=True, check=True).stdout


def figures_of(module: str, *arguments: str, folder: Path) -> dict[str, float]:
    """Run a module that ends with `report`: its figures, and its peak memory in MB."""
    return json.loads(run(module, *arguments, folder=folder).splitlines()[-1])


def report(**figures: float) -> None:
    """Print figures for `figures_of`; peak memory is this process's own or its largest child's, in MB."""
    # Not ru_maxrss of itself: Linux counts in what the process was before it became this program.
    own = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
    peak = max(own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
    print(json.dumps(figures | {"peak": peak / 1024}))
