"""Names of heads, dropouts and parts by architecture."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from transformers import PreTrainedConfig
from transformers.modeling_outputs import BaseModelOutput

from stages.common.errors import UserError

if TYPE_CHECKING:  # takes three seconds to import, and resample_encode does not need it
    from transformers import PreTrainedModel

# The weights of a classifier that the base model does not have, by the first part of their names.
HEAD = ("projector.", "classifier.", "layer_weights")
# Architectures use different names for the same dropout.
DROPOUTS = {
    "dropout": ("hidden_dropout", "feat_proj_dropout", "dropout", "hidden_dropout_prob"),
    "attention_dropout": ("attention_dropout", "attention_probs_dropout_prob"),
}


class CachedFeatureEncoder(torch.nn.Module):
    """Replaces a feature encoder whose output is cached: only transposes it."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Transpose (batch, frames, channels) to (batch, channels, frames)."""
        return features.transpose(1, 2)


class CachedBase(torch.nn.Module):
    """Replaces a base model whose output is cached."""

    def forward(self, states: torch.Tensor, **kwargs: object) -> BaseModelOutput:
        """Return the last hidden states, (batch, frames, channels), or their mean as one frame."""
        return BaseModelOutput(last_hidden_state=states)


class CachedLayers(torch.nn.Module):
    """Replaces a base model of which the output of each layer is cached.

    Args:
        layers: their number, which is lower than in the cache if the model is cut.
    """

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, states: torch.Tensor, **kwargs: object) -> BaseModelOutput:
        """Return the means as one frame. states: (batch, 2 layers + 1, channels), as `average_layers` returns them."""
        frames, complete = states.unsqueeze(2).unbind(1), states.shape[1] // 2
        return BaseModelOutput(last_hidden_state=frames[complete + self.layers], hidden_states=frames[: complete + 1])


def average_layers(base: torch.nn.Module, features: torch.Tensor) -> torch.Tensor:
    """Run a base model on a clip and average over frames: (2 layers + 1, channels).

    Return the hidden states, which a weighted sum takes, and then the output of the model when it is cut after the
    first layer, the second, and so on. The last of these is the output of the complete model.
    """
    output = base(features, output_hidden_states=True)
    norm = _find_final_norm(base)
    cut = [norm(states) for states in output.hidden_states[1:-1]]
    return torch.cat([states.mean(1) for states in (*output.hidden_states, *cut, output.last_hidden_state)])


def _find_final_norm(base: Any) -> torch.nn.Module:
    """Return the norm that a base model has after its last layer, also if it is cut."""
    if base.config.model_type == "whisper":
        return base.layer_norm
    # The others have a norm of this name before the first layer.
    is_last = base.config.model_type == "wav2vec2-conformer" or getattr(base.config, "do_stable_layer_norm", False)
    return base.encoder.layer_norm if is_last else torch.nn.Identity()


def find_part(model: "PreTrainedModel", part: str) -> tuple[torch.nn.Module, str] | None:
    """Return the module that holds a part of a classifier, and the part's name in it; None if it has no such part.

    Args:
        part: feature_encoder, base, or layers, which are those of the base.
    """
    if part == "feature_encoder":
        holder, name = model.base_model, "feature_extractor"
    else:
        # Whisper's classifier has an encoder, and no attribute with the name of its base model.
        holder, name = model, next((name for name in (model.base_model_prefix, "encoder") if hasattr(model, name)), "")
    return (holder, name) if hasattr(holder, name) else None


@contextmanager
def use_cached_part(model: "PreTrainedModel", part: str | None) -> Iterator[None]:
    """Replace a part of the model by a module that takes its cached output, inside the block. None changes nothing."""
    if part is None:
        yield
        return
    found = find_part(model, part)
    if found is None:
        raise UserError(f"a {model.config.model_type} model has no {part}; set input", key="resample_encode.cache")
    holder, name = found
    original = getattr(holder, name)
    cached = {"feature_encoder": CachedFeatureEncoder(), "base": CachedBase()}
    setattr(holder, name, cached.get(part) or CachedLayers(model.config.num_hidden_layers))
    try:
        yield
    finally:
        setattr(holder, name, original)


def freeze_part(model: "PreTrainedModel", part: str) -> None:
    """Exclude a part of the model from training."""
    found = find_part(model, part)
    assert found is not None  # TrainParams.find_unsupported
    getattr(*found).requires_grad_(False)
    if hasattr(model, "freeze_feature_encoder"):
        # Otherwise a feature encoder still computes gradients of its input.
        model.freeze_feature_encoder()


def set_dropout(config: PreTrainedConfig, key: str, rate: float | None) -> None:
    """Set one of DROPOUTS in a model's config; None keeps the base model's.

    Raises:
        UserError: the architecture has no such dropout.
    """
    known = [name for name in DROPOUTS[key] if hasattr(config, name)]
    if rate is not None and not known:
        raise UserError(f"a {config.model_type} model has none; set it to null", key=f"train.{key}")
    if rate is not None:
        config.update(dict.fromkeys(known, rate))
