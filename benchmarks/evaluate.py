"""Compare evaluation on complete clips: Transformers' pipeline, and the stage evaluate."""

import numpy as np
import torch
from transformers import pipeline

from benchmarks.common import (
    CLIP_SECONDS,
    SAMPLING_RATE,
    Benchmark,
    Result,
    make_distilhubert,
    make_feature_extractor,
    time_call,
)
from stages.common.architectures import use_cached_part
from stages.common.encoded_clips import CACHE_COLUMNS, Clips, EncodedClips
from stages.common.windows import ClipDataset
from stages.evaluate.prediction import predict

CLIPS, BATCH_SIZE = 16, 8


def measure(device: str) -> Result:
    """Classify the same clips with each method, in this process."""
    torch.manual_seed(0)
    model = make_distilhubert().to(device).eval()
    extractor = make_feature_extractor()
    samples = np.random.default_rng(0).normal(size=(CLIPS, CLIP_SECONDS * SAMPLING_RATE)).astype(np.float32)
    frames = int(model._get_feat_extract_output_lengths(samples.shape[1]))
    features = np.random.default_rng(0).normal(size=(CLIPS, frames, model.config.conv_dim[-1])).astype(np.float32)
    labels = list(model.config.id2label.values())

    def run_pipeline() -> None:
        classify = pipeline("audio-classification", model=model, feature_extractor=extractor, device=device)
        for clip in samples:
            classify(clip)

    def run_stage(column: str, arrays: np.ndarray) -> None:
        encoded = EncodedClips(None, labels, extractor, column, {})
        clips = ClipDataset(Clips([str(i) for i in range(len(arrays))], np.zeros(len(arrays), np.int64), list(arrays)))
        with use_cached_part(model, encoded.cached_part):
            predict([model], encoded, clips, None, BATCH_SIZE)

    # One clip first, so that start-up costs do not count for the method that runs first.
    run_stage("input_values", samples[:1])
    seconds = {
        "`pipeline()` on samples": time_call(run_pipeline),
        "evaluate": time_call(lambda: run_stage("input_values", samples)),
        "evaluate, feature encoder's output cached": time_call(
            lambda: run_stage(CACHE_COLUMNS["feature_encoder"], features)
        ),
    }
    first = next(iter(seconds.values()))
    return {"rows": [[name, f"{CLIPS / value:.2f}", f"{first / value:.1f}"] for name, value in seconds.items()]}


BENCHMARK = Benchmark(
    title="Evaluation",
    text=f"A model of DistilHuBERT's size classifies {CLIPS} clips of {CLIP_SECONDS} s in fp32. `pipeline()` "
    "normalises each clip; the stage reads clips that are already encoded.",
    header=["method", "clips/s", "speed-up"],
    measure=measure,
)
