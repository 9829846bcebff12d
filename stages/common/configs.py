"""Load the config and the feature extractor of a checkpoint, and find the shortest clip. torch is not needed."""

import json
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoFeatureExtractor, PreTrainedConfig

from stages.common.errors import damaged, reading
from stages.common.sampling_rate import find_rate_problem


def load_config(folder: Path) -> PreTrainedConfig:
    """Load the config of a checkpoint.

    Raises:
        UserError: config.json is missing or damaged.
    """
    with reading(folder / "config.json"):
        return AutoConfig.from_pretrained(folder, trust_remote_code=False)


def load_extractor(folder: Path) -> Any:
    """Load the feature extractor of a checkpoint or of data/encoded.

    Raises:
        UserError: preprocessor_config.json is missing or damaged.
    """
    file = folder / "preprocessor_config.json"
    with reading(file):
        extractor = AutoFeatureExtractor.from_pretrained(folder, trust_remote_code=False)
        if file.is_file() and "sampling_rate" not in json.loads(file.read_text(encoding="utf-8")):
            raise damaged(file, "it has no sampling_rate")
    if problem := find_rate_problem(getattr(extractor, "sampling_rate", None)):
        raise damaged(file, problem)
    return extractor


def receptive_field(config: PreTrainedConfig) -> int:
    """Return the samples that the model's convolutions need for one frame; 1 without convolutions over samples.

    DistilHuBERT's seven layers need 400, 25 ms at 16 kHz. SEW joins frames (squeeze_factor) and needs so many of them.
    """
    kernels, strides = getattr(config, "conv_kernel", None) or [], getattr(config, "conv_stride", None) or []
    samples = getattr(config, "squeeze_factor", 1)
    for kernel, stride in zip(reversed(kernels), reversed(strides)):
        samples = (samples - 1) * stride + kernel
    return samples
