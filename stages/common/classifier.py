"""The model that is trained: a base model under a new classification head."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForAudioClassification, PreTrainedConfig, PreTrainedModel

from stages.common import frozen
from stages.common.stage import StageError

MEND = "get the checkpoint again: dvc repro --force download@model"
# What the base model does not have: its classifier's own weights, by the first part of their names.
HEAD = ("projector.", "classifier.", "layer_weights")
# Every architecture has names of its own for the same thing.
DROPOUTS = {
    "dropout": ("hidden_dropout", "feat_proj_dropout", "dropout", "hidden_dropout_prob"),
    "attention_dropout": ("attention_dropout", "attention_probs_dropout_prob"),
}


def build(
    base: Path, labels: list[str], rates: dict[str, float | None], spec_augment: dict[str, Any] | None, part: str
) -> PreTrainedModel:
    """The base model, float32, under a new head, label names inside.

    Args:
        rates: of DROPOUTS' keys; None keeps the base model's own, as it does for spec_augment.
        part: what is not trained, one of frozen.COLUMNS, or "none".

    Raises:
        StageError: the architecture does not have what is asked for, or the checkpoint is not whole.
    """
    config = AutoConfig.from_pretrained(base, trust_remote_code=False)
    config.id2label, config.label2id = dict(enumerate(labels)), {label: i for i, label in enumerate(labels)}
    for key, rate in rates.items():
        set_dropout(config, key, rate)
    if spec_augment is not None:
        config.update(spec_augment | {"apply_spec_augment": True})
    model = load(base, config)
    if spec_augment is not None and not hasattr(model.base_model, "_mask_hidden_states"):
        raise StageError(
            f"params.yaml: train.spec_augment: a {config.model_type} model does not use it; set it to null"
        )
    if part != "none":
        freeze(model, part)
    return model


def set_dropout(config: PreTrainedConfig, key: str, rate: float | None) -> None:
    """Raises StageError where the architecture has no such dropout."""
    known = [name for name in DROPOUTS[key] if hasattr(config, name)]
    if rate is not None and not known:
        raise StageError(f"params.yaml: train.{key}: a {config.model_type} model has none; set it to null")
    if rate is not None:
        config.update(dict.fromkeys(known, rate))


def load(base: Path, config: PreTrainedConfig) -> PreTrainedModel:
    """A head for another number of labels gives way to a new one; nothing else may differ from the config.

    Raises:
        StageError: weights are missing, or of another shape than the config says.
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
        raise StageError(f"{base}: {' '.join(str(error).split())}; {MEND}") from None
    unlike = loaded["missing_keys"] | {key for key, *_ in loaded["mismatched_keys"]}
    # Masking's own weights are missing from checkpoints that were trained without it.
    unlike = sorted(key for key in unlike if not key.startswith(HEAD) and not key.endswith("masked_spec_embed"))
    if unlike:
        raise StageError(
            f"{base}: {len(unlike)} weights are missing or do not fit config.json (first: {unlike[0]}); {MEND}"
        )
    return model


def freeze(model: PreTrainedModel, part: str) -> None:
    """Raises StageError where the model has no such part."""
    found = frozen.find(model, part)
    if found is None:
        raise StageError(f"params.yaml: train.frozen: a {model.config.model_type} model has no {part}; set none")
    getattr(*found).requires_grad_(False)
    if hasattr(model, "freeze_feature_encoder"):
        # Or a feature encoder would still pass gradients on to its input.
        model.freeze_feature_encoder()
