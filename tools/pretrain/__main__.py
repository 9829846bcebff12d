"""Pretrain the demo's base model, a small HuBERT, on composed music without labels.

The model predicts the clusters of masked frames, as HuBERT does. The clips come from the demo's composer, with seeds
that params.yaml cannot have. This is no part of the pipeline: its result, pretrained/hubert-tiny-music, is in git.
The default settings made it, in 25 minutes on a core. The same settings give the same weights on the same machine
and versions, and similar ones on others.

Writes  OUT/: config.json, preprocessor_config.json, model.safetensors (float16)
Run     python -m tools.pretrain OUT
"""

import copy
import os
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stages.common.stage import command_parser, run_command

if TYPE_CHECKING:
    from transformers import HubertModel

SECONDS = 5
SEEDS = (2**32, 2**32)  # params.yaml has seeds below 2**32, and one less number in a clip's seed
BATCH_SIZE = 16
LEARNING_RATE = 1e-3
WARMUP_STEPS = 300
MASKED = 0.5  # share of the frames at most; masks may overlap, so 0.4 on average
MASK_FRAMES = 10
REPORT_EVERY = 200  # steps


def compose_clip(genre: str, numbers: tuple[int, int]) -> np.ndarray:
    """Compose a clip: float32 (samples,) with a mean of 0 and a variance of 1, as the feature extractor makes it."""
    import soxr

    from stages.download.dataset.synthetic_music import SAMPLING_RATE, compose
    from tools.pretrain import filter_bank

    clip = compose(genre, SECONDS, [*SEEDS, *numbers]).astype(np.float32) / 2**15
    clip = soxr.resample(clip, SAMPLING_RATE, filter_bank.SAMPLING_RATE)
    return (clip - clip.mean()) / np.sqrt(clip.var() + 1e-7)


def encode_clips(model: "HubertModel", clips: int) -> np.ndarray:
    """Compose clips and run the feature encoder: float16 (clips, frames, channels)."""
    import torch

    from stages.download.dataset.synthetic_music import GENRES

    numbers = [(number % len(GENRES), number // len(GENRES)) for number in range(clips)]
    encoded = []
    with ProcessPoolExecutor(os.cpu_count()) as pool, torch.no_grad():
        for clip in pool.map(compose_clip, [GENRES[genre] for genre, _ in numbers], numbers, chunksize=16):
            frames = model.feature_extractor(torch.from_numpy(clip)[None])[0].T
            encoded.append(frames.half().numpy())
    return np.stack(encoded)


def draw_masks(rng: np.random.Generator, clips: int, frames: int) -> np.ndarray:
    """Draw which frames are masked, in runs of MASK_FRAMES: bool (clips, frames)."""
    masks = np.zeros((clips, frames), bool)
    for mask in masks:
        for start in rng.choice(frames - MASK_FRAMES, int(MASKED * frames / MASK_FRAMES), replace=False):
            mask[start : start + MASK_FRAMES] = True
    return masks


def train(
    model: "HubertModel", features: np.ndarray, targets: list[np.ndarray], steps: int, seed: int
) -> Iterator[int]:
    """Train all but the feature encoder, on its output, and print the losses of both targets.

    Yields:
        The number of steps, every REPORT_EVERY steps and at the end.
    """
    import torch
    from torch.nn.functional import cross_entropy

    from stages.common.architectures import CachedFeatureEncoder

    rng = np.random.default_rng(seed)
    heads = torch.nn.ModuleList(torch.nn.Linear(model.config.hidden_size, int(t.max()) + 1) for t in targets)
    model.feature_extractor = CachedFeatureEncoder()
    model.config.apply_spec_augment = True  # without it, HubertModel ignores the masks
    weights = [*model.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(weights, LEARNING_RATE, betas=(0.9, 0.98))
    model.train()
    start, losses = time.monotonic(), []
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = LEARNING_RATE * min((step + 1) / WARMUP_STEPS, 1) * (1 - step / steps)
        clips = np.sort(rng.choice(len(features), min(BATCH_SIZE, len(features)), replace=False))
        masks = torch.from_numpy(draw_masks(rng, len(clips), features.shape[1]))
        inputs = torch.from_numpy(features[clips].astype(np.float32))
        states = model(inputs, mask_time_indices=masks).last_hidden_state[masks]
        both = [
            cross_entropy(head(states), torch.from_numpy(target[clips])[masks])
            for head, target in zip(heads, targets, strict=True)
        ]
        optimizer.zero_grad()
        sum(both).backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        losses.append([loss.item() for loss in both])
        if (step + 1) % REPORT_EVERY == 0 or step + 1 == steps:
            sound, rhythm = np.mean(losses[-REPORT_EVERY:], axis=0)
            seconds = time.monotonic() - start
            print(f"step {step + 1}: sound {sound:.3f}, rhythm {rhythm:.3f}, {seconds:.0f} s", flush=True)
            yield step + 1


def pretrain(out: Path, clips: int, steps: int, seed: int) -> None:
    """Compose, cluster, train, and write the checkpoint."""
    import torch
    from transformers import HubertModel, Wav2Vec2FeatureExtractor

    from tools.pretrain import filter_bank, targets

    torch.set_num_threads(1)
    torch.manual_seed(seed)
    model = HubertModel(filter_bank.make_config())
    filter_bank.write_filter_bank(model)
    features = encode_clips(model.eval(), clips)
    encoder, found = model.feature_extractor, targets.find_targets(features, seed)
    for _ in train(model, features, found, steps, seed):
        written = copy.deepcopy(model).eval()
        written.config.apply_spec_augment = False
        written.feature_extractor = copy.deepcopy(encoder)
        written.half().save_pretrained(out)
    Wav2Vec2FeatureExtractor(sampling_rate=filter_bank.SAMPLING_RATE, return_attention_mask=True).save_pretrained(out)


def main() -> None:
    """Read the command line and pretrain."""
    parser = command_parser("tools.pretrain", __doc__)
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write")
    parser.add_argument("--clips", type=int, default=4000, help="to compose; default: %(default)s")
    parser.add_argument("--steps", type=int, default=4200, help="of 16 clips; default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of weights, order and masks; default: %(default)s")
    options = parser.parse_args()
    for key in ("clips", "steps"):
        if getattr(options, key) < 1:
            parser.error(f"--{key} must be at least 1")
    if not 0 <= options.seed < 2**32:
        parser.error("--seed must be at least 0 and below 2**32")
    options.out.mkdir(parents=True, exist_ok=True)  # now, not after minutes
    pretrain(options.out, options.clips, options.steps, options.seed)


if __name__ == "__main__":
    run_command(main)
