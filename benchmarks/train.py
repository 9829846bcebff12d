"""How long an epoch of GTZAN takes: the course's settings, and what each of ours saves. Side by side in one run.

A DistilHuBERT-shaped model with random weights takes optimizer steps on noise of GTZAN's shape: 899 clips of 30 s at
16 kHz, 8 to a batch, 113 steps an epoch. A few steps are timed, the epoch is extrapolated from the fastest.

Writes  benchmarks/README.md
Run     make bench
"""

import argparse
import os
import time
from pathlib import Path
from typing import NamedTuple

import torch
from torch.nn.functional import cross_entropy
from tqdm import tqdm
from transformers import HubertConfig, HubertForSequenceClassification

from stages.common.batches import Passed

TABLE = Path(__file__).with_name("README.md")
RATE, BATCH, STEPS_PER_EPOCH = 16_000, 8, 113  # 899 clips, 8 to a batch
# What sets DistilHuBERT apart from HubertConfig's defaults (config.json of ntu-spml/distilhubert).
DISTILHUBERT = {"num_hidden_layers": 2, "apply_spec_augment": False, "num_labels": 10}


class Setting(NamedTuple):
    name: str
    seconds: float
    frozen: bool
    cached: bool
    bf16: bool


SETTINGS = [
    Setting("the course: whole clips, all layers, fp32", 30, frozen=False, cached=False, bf16=False),
    Setting("feature encoder frozen", 30, frozen=True, cached=False, bf16=False),
    Setting("... its output cached", 30, frozen=True, cached=True, bf16=False),
    Setting("frozen, windows of 10 s", 10, frozen=True, cached=False, bf16=False),
    Setting("... its output cached", 10, frozen=True, cached=True, bf16=False),
    Setting("... and bf16", 10, frozen=True, cached=True, bf16=True),
]


def seconds_per_step(setting: Setting, steps: int, device: str) -> float:
    """The fastest of some optimizer steps, in seconds, after one that is not counted."""
    torch.manual_seed(0)
    model = HubertForSequenceClassification(HubertConfig(**DISTILHUBERT)).to(device).train()
    if setting.frozen:
        model.freeze_feature_encoder()
    inputs = torch.randn(BATCH, round(setting.seconds * RATE), device=device)
    if setting.cached:
        frames = int(model._get_feat_extract_output_lengths(inputs.shape[1]))
        inputs = torch.randn(BATCH, frames, model.config.conv_dim[-1], device=device)
        model.hubert.feature_extractor = Passed()
    labels = torch.arange(BATCH, device=device)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=5e-5, fused=True)
    times = []
    for _ in tqdm(range(steps + 1), setting.name):
        start = time.perf_counter()
        with torch.autocast(device, torch.bfloat16, enabled=setting.bf16):
            loss = cross_entropy(model(inputs).logits.float(), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        loss.item()
        times.append(time.perf_counter() - start)
    return min(times[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--steps", type=int, default=2)
    options = parser.parse_args()
    seconds = [seconds_per_step(setting, options.steps, options.device) for setting in SETTINGS]
    where = torch.cuda.get_device_name() if options.device == "cuda" else f"{os.cpu_count()} CPU cores"
    lines = [
        "# Benchmarks",
        "",
        f"An epoch of training, measured side by side on {where} by `make bench`: the fastest of {options.steps}",
        f"optimizer steps on 8 clips, times {STEPS_PER_EPOCH}. Reading the clips and evaluating is not in it. The",
        "ratios are what counts.",
        "",
        "| setting | seconds an epoch | times as fast as the course |",
        "|---|---|---|",
        *(
            f"| {setting.name} | {own * STEPS_PER_EPOCH:.0f} | {seconds[0] / own:.1f} |"
            for setting, own in zip(SETTINGS, seconds)
        ),
    ]
    TABLE.write_text("\n".join(lines) + "\n")
    print(TABLE.read_text())


if __name__ == "__main__":
    main()
