"""Load a checkpoint with an audio-classification head, and its feature extractor."""

import json
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModelForAudioClassification,
    PreTrainedConfig,
    PreTrainedModel,
)

from stages.common.architectures import HEAD
from stages.common.errors import UserError, damaged, reading
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


def load_classifier(folder: Path, config: PreTrainedConfig, *, new_head: bool) -> PreTrainedModel:
    """Load a checkpoint, float32.

    Args:
        new_head: make a new head if the checkpoint has none, or one for another number of labels.

    Raises:
        UserError: weights are missing or damaged, or have another shape than in the config.
    """
    with reading(folder):
        model, loaded = AutoModelForAudioClassification.from_pretrained(
            folder,
            config=config,
            dtype=torch.float32,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            trust_remote_code=False,
        )
    keys = loaded["missing_keys"] | {key for key, *_ in loaded["mismatched_keys"]}
    # Checkpoints that were trained without masking do not have its weights.
    allowed = HEAD if new_head else ()
    unfit = sorted(key for key in keys if not key.startswith(allowed) and not key.endswith("masked_spec_embed"))
    if unfit:
        stage = "download@model" if new_head else "train"
        raise UserError(
            f"{len(unfit)} weights are missing or do not fit config.json (first: {unfit[0]}); "
            f"make the checkpoint again: dvc repro --force {stage}",
            file=folder,
        )
    return model
