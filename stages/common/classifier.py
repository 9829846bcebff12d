"""Load a checkpoint with an audio-classification head."""

from pathlib import Path

import torch
from transformers import AutoModelForAudioClassification, PreTrainedConfig, PreTrainedModel

from stages.common.architectures import HEAD
from stages.common.errors import UserError

FIX = "download the checkpoint again: dvc repro --force download@model"


def load_classifier(base: Path, config: PreTrainedConfig) -> PreTrainedModel:
    """Load a checkpoint, float32. A head for another number of labels is replaced by a new one.

    Raises:
        UserError: weights are missing, or have another shape than the config says.
    """
    try:
        model, loaded = AutoModelForAudioClassification.from_pretrained(
            base,
            config=config,
            dtype=torch.float32,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            trust_remote_code=False,
        )
    except OSError as error:
        raise UserError(f"{' '.join(str(error).split())}; {FIX}", file=base) from None
    keys = loaded["missing_keys"] | {key for key, *_ in loaded["mismatched_keys"]}
    # Checkpoints that were trained without masking do not have its weights.
    unfit = sorted(key for key in keys if not key.startswith(HEAD) and not key.endswith("masked_spec_embed"))
    if unfit:
        message = f"{len(unfit)} weights are missing or do not fit config.json (first: {unfit[0]}); {FIX}"
        raise UserError(message, file=base)
    return model
