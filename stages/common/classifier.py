"""Load a checkpoint with an audio-classification head."""

from pathlib import Path

import torch
from transformers import AutoModelForAudioClassification, PreTrainedConfig, PreTrainedModel

from stages.common.architectures import HEAD
from stages.common.errors import UserError, reading


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
    if "layer_weights" in keys:  # from_pretrained leaves those of Wav2Vec2 and WavLM uninitialised (transformers 5.23)
        torch.nn.init.constant_(model.layer_weights, 1 / len(model.layer_weights))
    return model
