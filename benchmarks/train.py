"""Compare training on GTZAN: the course settings, and how much time each faster setting saves."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch.nn.functional import cross_entropy
from tqdm import tqdm
from transformers import PreTrainedModel

from benchmarks.common import (
    BATCH_SIZE,
    CLIP_SECONDS,
    SAMPLING_RATE,
    STEPS_PER_EPOCH,
    Benchmark,
    Result,
    make_distilhubert,
)
from stages.common.architectures import find_part, freeze_part, use_cached_part

STEPS, CLIPS, TEST_CLIPS, EPOCHS = 2, 999, 100, 10
MAX_OPERATORS = 4  # in the profile


class Setting(NamedTuple):
    """A row of the table.

    seconds: of each clip in training.
    freeze: the part of the model that is not trained, as train.freeze in params.yaml.
    cached: whether the output of this part is cached.
    attention_dropout: HuBERT's default is 0.1.
    """

    name: str
    seconds: float = CLIP_SECONDS
    freeze: str = "none"
    cached: bool = False
    attention_dropout: float = 0.1
    bf16: bool = False


SETTINGS = [
    Setting("course: complete clips, all layers, fp32"),
    Setting("bf16", bf16=True),
    Setting("... no attention dropout", attention_dropout=0.0, bf16=True),
    Setting("... windows of 10 s", 10, attention_dropout=0.0, bf16=True),
    Setting("... windows of 5 s (`presets/gtzan.yaml`)", 5, attention_dropout=0.0, bf16=True),
    Setting("course, feature encoder frozen", freeze="feature_encoder"),
    Setting("... its output cached", freeze="feature_encoder", cached=True),
    Setting("... bf16, no attention dropout, windows of 10 s", 10, "feature_encoder", True, 0.0, True),
    Setting("course, base model frozen, its output cached", freeze="base", cached=True),
]


class Measurement(NamedTuple):
    """Seconds for encoding a clip, a training step and evaluating a clip, and the profile of a training step."""

    encode: float
    step: float
    evaluate: float
    profile: str


def make_inputs(model: PreTrainedModel, setting: Setting, seconds: float, batch_size: int, device: str) -> torch.Tensor:
    """Make noise in the shape of encoded clips: (batch, samples), or (batch, frames, channels) if cached."""
    samples = round(seconds * SAMPLING_RATE)
    if not setting.cached:
        return torch.randn(batch_size, samples, device=device)
    if setting.freeze == "base":
        return torch.randn(batch_size, 1, model.config.hidden_size, device=device)
    frames = int(model._get_feat_extract_output_lengths(samples))
    return torch.randn(batch_size, frames, model.config.conv_dim[-1], device=device)


def measure_setting(setting: Setting, device: str) -> Measurement:
    """Time a setting on a new model."""
    torch.manual_seed(0)
    model = make_distilhubert(attention_dropout=setting.attention_dropout).to(device)
    if setting.freeze != "none":
        freeze_part(model, setting.freeze)
    autocast = torch.autocast(device, torch.bfloat16, enabled=setting.bf16)
    labels = torch.arange(BATCH_SIZE, device=device)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=5e-5, fused=True)

    def encode() -> float:
        found = find_part(model.eval(), setting.freeze)
        assert found
        part = getattr(*found)
        with torch.inference_mode(), autocast:
            output = part(torch.randn(1, CLIP_SECONDS * SAMPLING_RATE, device=device))
        return float(output[0].sum())

    def step(inputs: torch.Tensor) -> float:
        with autocast:
            loss = cross_entropy(model.train()(inputs).logits.float(), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    def evaluate(inputs: torch.Tensor) -> float:
        with torch.inference_mode():
            return model.eval()(inputs).logits.sum().item()

    encoding = time_fastest(encode) if setting.cached else 0.0
    with use_cached_part(model, setting.freeze if setting.cached else None):
        window = make_inputs(model, setting, setting.seconds, BATCH_SIZE, device)
        training, operators = time_fastest(lambda: step(window)), profile(lambda: step(window), device)
        clip = make_inputs(model, setting, CLIP_SECONDS, 1, device)
        evaluation = time_fastest(lambda: evaluate(clip))
    return Measurement(encoding, training, evaluation, operators)


def time_fastest(function: Callable[[], Any]) -> float:
    """Return the seconds of the fastest of STEPS calls, after a warm-up call. The function must wait for its result."""
    times = []
    for _ in range(STEPS + 1):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times[1:])


def profile(function: Callable[[], Any], device: str) -> str:
    """List the operators (on a GPU, kernels) that take most of a call's time, with their shares."""
    with torch.profiler.profile() as profiler:
        function()
    events = [event for event in profiler.key_averages() if event.device_type.name.lower() == device]
    times = {e.key: e.self_device_time_total if device == "cuda" else e.self_cpu_time_total for e in events}
    largest = sorted(times, key=times.__getitem__, reverse=True)[:MAX_OPERATORS]
    return ", ".join(f"{name.removeprefix('aten::')} {times[name] / sum(times.values()):.0%}" for name in largest)


def measure(device: str) -> Result:
    """Time all settings, and estimate an epoch and a run of each."""
    measurements = [measure_setting(setting, device) for setting in tqdm(SETTINGS, "train", unit="setting")]
    epochs = [one.step * STEPS_PER_EPOCH for one in measurements]
    runs = [
        one.encode * CLIPS + EPOCHS * (epoch + one.evaluate * TEST_CLIPS) for one, epoch in zip(measurements, epochs)
    ]
    return {
        "rows": [
            [
                setting.name,
                f"{epoch:.0f}" if epoch >= 1 else f"{epoch:.2f}",
                f"{epochs[0] / epoch:.1f}",
                f"{run / 60:.0f}",
                f"{runs[0] / run:.1f}",
                one.profile,
            ]
            for setting, epoch, run, one in zip(SETTINGS, epochs, runs, measurements)
        ]
    }


BENCHMARK = Benchmark(
    title="Training",
    text=f"A model of DistilHuBERT's size with random weights is trained on noise. An epoch is {STEPS_PER_EPOCH} steps "
    f"on batches of {BATCH_SIZE} clips, estimated from the fastest of {STEPS} steps. A run is {EPOCHS} epochs, with "
    f"{TEST_CLIPS} complete clips evaluated in fp32 after each; if the output of a part of the model is cached, the "
    f"run first encodes {CLIPS} clips with this part. The times of evaluation and encoding are estimated from the "
    f"fastest of {STEPS} single clips. Decoding and reading are not included. A setting that starts with ... adds to "
    "the one above.",
    header=["setting", "epoch (s)", "speed-up", "run (min)", "speed-up", "profile of a step"],
    measure=measure,
)
