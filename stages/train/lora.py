"""Train small matrices beside the base model's weights, and add them to the weights at the end (LoRA), with PEFT."""

import torch
from transformers import PreTrainedModel

from stages.common.architectures import find_part
from stages.train.limits import choose_modules
from stages.train.params import Lora


def add_lora(model: PreTrainedModel, lora: Lora) -> None:
    """Freeze the base model, and add matrices to its linear layers that have one of the names. The head is trained.

    Raises:
        UserError: the base model has no such layers.
    """
    from peft import LoraConfig, inject_adapter_in_model

    base, kind = _base_of(model), model.config.model_type
    names = {name.rpartition(".")[2] for name, part in base.named_modules() if isinstance(part, torch.nn.Linear)}
    wanted = choose_modules(kind, names, lora.target_modules)
    config = LoraConfig(r=lora.r, lora_alpha=lora.lora_alpha, lora_dropout=lora.lora_dropout, target_modules=wanted)
    base.requires_grad_(False)
    if hasattr(model, "freeze_feature_encoder"):
        model.freeze_feature_encoder()  # otherwise a feature encoder still computes gradients of its input
    inject_adapter_in_model(config, base)


def merge_lora(model: PreTrainedModel) -> None:
    """Add the matrices to the weights, so that the model is again one of Transformers alone."""
    from peft.tuners.lora import LoraLayer

    base = _base_of(model)
    for name, part in list(base.named_modules()):
        if isinstance(part, LoraLayer):
            part.merge()
            base.set_submodule(name, part.get_base_layer())
    vars(base).pop("peft_config", None)


def _base_of(model: PreTrainedModel) -> torch.nn.Module:
    found = find_part(model, "base")
    assert found is not None  # all architectures with an audio-classification head have one
    return getattr(*found)
