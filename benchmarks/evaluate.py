"""Evaluation: transformers' pipeline against the stage evaluate, on whole clips."""

from typing import Any

import numpy as np
import torch
from transformers import Wav2Vec2FeatureExtractor, pipeline

from benchmarks.common import CLIP_SECONDS, RATE, distilhubert, timed
from stages.common import batches, frozen
from stages.evaluate import predict

CLIPS, BATCH = 16, 8


def measure(device: str) -> dict[str, Any]:
    torch.manual_seed(0)
    model = distilhubert().to(device).eval()
    extractor = Wav2Vec2FeatureExtractor(sampling_rate=RATE, do_normalize=True, return_attention_mask=True)
    samples = np.random.default_rng(0).normal(size=(CLIPS, CLIP_SECONDS * RATE)).astype(np.float32)
    frames = int(model._get_feat_extract_output_lengths(samples.shape[1]))
    features = np.random.default_rng(0).normal(size=(CLIPS, frames, model.config.conv_dim[-1])).astype(np.float32)
    labels = list(model.config.id2label.values())

    def by_pipeline() -> None:
        classify = pipeline("audio-classification", model=model, feature_extractor=extractor, device=device)
        for clip in samples:
            classify(clip)

    def by_stage(key: str, arrays: np.ndarray) -> None:
        clips = batches.Clips([{key: array, "label": 0} for array in arrays], key)
        with frozen.stand_in(model, key):
            predict(model, batches.Encoded(None, labels, extractor, key), clips, None, BATCH)

    # One clip first, so that nobody pays for starting.
    by_stage("input_values", samples[:1])
    seconds = {
        "`pipeline()` on samples": timed(by_pipeline),
        "evaluate": timed(lambda: by_stage("input_values", samples)),
        "evaluate behind a cached feature encoder": timed(lambda: by_stage("extract_features", features)),
    }
    first = next(iter(seconds.values()))
    return {
        "title": "Evaluation",
        "text": f"{CLIPS} clips of {CLIP_SECONDS} s, DistilHuBERT's shape, fp32. `pipeline()` normalises each clip "
        "itself; the stage's clips are encoded already.",
        "header": ["side", "clips a second", "times as fast"],
        "rows": [[name, f"{CLIPS / own:.2f}", f"{first / own:.1f}"] for name, own in seconds.items()],
    }
