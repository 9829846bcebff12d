"""A run of GTZAN: the course's settings, and what each of ours saves."""

import time
from typing import Any, NamedTuple

import torch
from torch.nn.functional import cross_entropy
from tqdm import tqdm

from benchmarks.common import BATCH, CLIP_SECONDS, RATE, STEPS_PER_EPOCH, distilhubert
from stages.common import frozen

STEPS, CLIPS, TEST_CLIPS, EPOCHS = 2, 999, 100, 10
MOST_TOLD = 4


class Setting(NamedTuple):
    name: str
    seconds: float = CLIP_SECONDS
    frozen: str = "none"  # the part of the model that is not trained
    cached: bool = False  # its output is there already
    attention_dropout: float = 0.1  # as HuBERT has it
    bf16: bool = False


SETTINGS = [
    Setting("the course: whole clips, all layers, fp32"),
    Setting("bf16", bf16=True),
    Setting("... no dropout in attention", attention_dropout=0.0, bf16=True),
    Setting("... windows of 10 s", 10, attention_dropout=0.0, bf16=True),
    Setting("... windows of 5 s: `presets/gtzan.yaml`", 5, attention_dropout=0.0, bf16=True),
    Setting("the course, feature encoder frozen", frozen="feature_encoder"),
    Setting("... its output cached", frozen="feature_encoder", cached=True),
    Setting("... bf16, no dropout in attention, windows of 10 s", 10, "feature_encoder", True, 0.0, True),
    Setting("the course, whole base frozen, its output cached", frozen="base", cached=True),
]


def inputs_of(model: torch.nn.Module, setting: Setting, seconds: float, batch: int, device: str) -> torch.Tensor:
    """Noise in the shape of what is encoded."""
    samples = round(seconds * RATE)
    if not setting.cached:
        return torch.randn(batch, samples, device=device)
    if setting.frozen == "base":
        return torch.randn(batch, 1, model.config.hidden_size, device=device)
    frames = int(model._get_feat_extract_output_lengths(samples))
    return torch.randn(batch, frames, model.config.conv_dim[-1], device=device)


def seconds_of(setting: Setting, device: str) -> dict[str, Any]:
    """Seconds that encoding a clip, a step of training and evaluating a clip take, and the step's largest operators."""
    torch.manual_seed(0)
    model = distilhubert(attention_dropout=setting.attention_dropout).to(device)
    if setting.frozen != "none":
        model.freeze_feature_encoder()
        getattr(*frozen.find(model, setting.frozen)).requires_grad_(False)
    column = frozen.COLUMNS[setting.frozen] if setting.cached else "input_values"
    autocast = torch.autocast(device, torch.bfloat16, enabled=setting.bf16)
    labels = torch.arange(BATCH, device=device)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=5e-5, fused=True)

    def encode() -> float:
        part = getattr(*frozen.find(model.eval(), setting.frozen))
        with torch.inference_mode(), autocast:
            output = part(torch.randn(1, CLIP_SECONDS * RATE, device=device))
        return float(output[0].sum())

    def step(inputs: torch.Tensor) -> float:
        with autocast:
            loss = cross_entropy(model.train()(inputs).logits.float(), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    def evaluate(inputs: torch.Tensor) -> float:
        with torch.inference_mode(), autocast:
            return model.eval()(inputs).logits.sum().item()

    encoding = fastest(encode) if setting.cached else 0.0
    with frozen.stand_in(model, column):
        window = inputs_of(model, setting, setting.seconds, BATCH, device)
        training, operators = fastest(lambda: step(window)), profile(lambda: step(window), device)
        clip = inputs_of(model, setting, CLIP_SECONDS, 1, device)
        evaluation = fastest(lambda: evaluate(clip))
    return {"encode": encoding, "step": training, "evaluate": evaluation, "operators": operators}


def fastest(function: Any) -> float:
    """Seconds of the fastest call, after one that is not counted; it must wait for its own result."""
    times = []
    for _ in range(STEPS + 1):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times[1:])


def profile(function: Any, device: str) -> str:
    """The operators, or the GPU's kernels, that took most of a call's own time, with their shares."""
    with torch.profiler.profile() as profiler:
        function()
    events = [event for event in profiler.key_averages() if event.device_type.name.lower() == device]
    own = {e.key: e.self_device_time_total if device == "cuda" else e.self_cpu_time_total for e in events}
    largest = sorted(own, key=own.__getitem__, reverse=True)[:MOST_TOLD]
    return ", ".join(f"{name.removeprefix('aten::')} {own[name] / sum(own.values()):.0%}" for name in largest)


def measure(device: str) -> dict[str, Any]:
    found = [seconds_of(setting, device) for setting in tqdm(SETTINGS, "train", unit="setting")]
    epochs = [own["step"] * STEPS_PER_EPOCH for own in found]
    runs = [
        own["encode"] * CLIPS + EPOCHS * (epoch + own["evaluate"] * TEST_CLIPS) for own, epoch in zip(found, epochs)
    ]
    return {
        "title": "Training",
        "text": f"DistilHuBERT's shape, random weights, noise. An epoch is {STEPS_PER_EPOCH} optimizer steps on "
        f"{BATCH} clips, the fastest of {STEPS} times that. A run is {CLIPS} clips encoded by the part that is cached, "
        f"and {EPOCHS} epochs, {TEST_CLIPS} whole clips evaluated after each, all times the fastest of {STEPS} single "
        "clips. Decoding and reading are not in it.",
        "header": ["setting", "epoch, seconds", "times as fast", "run, minutes", "times as fast", "profile of a step"],
        "rows": [
            [
                setting.name,
                f"{epoch:.0f}" if epoch >= 1 else f"{epoch:.2f}",
                f"{epochs[0] / epoch:.1f}",
                f"{run / 60:.0f}",
                f"{runs[0] / run:.1f}",
                own["operators"],
            ]
            for setting, epoch, run, own in zip(SETTINGS, epochs, runs, found)
        ],
    }
