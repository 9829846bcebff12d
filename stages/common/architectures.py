"""The part of a model that training leaves as it is: its output can be computed once and stand in its place."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

# The column of data/encoded that holds a part's output, by transformers' name for it.
COLUMNS = {"feature_encoder": "extract_features", "base": "last_hidden_state"}


class Features(torch.nn.Module):
    """In place of a feature encoder: its output, (batch, frames, channels), is only turned around."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features.transpose(1, 2)


class States(torch.nn.Module):
    """In place of a base model: its last hidden states, or their mean as one frame, (batch, frames, channels)."""

    def forward(self, states: torch.Tensor, **kwargs: object) -> BaseModelOutput:
        return BaseModelOutput(last_hidden_state=states)


def find(model: PreTrainedModel, part: str) -> tuple[torch.nn.Module, str] | None:
    """The module that holds a part of a classifier, and the part's name in it; None where it has no such part."""
    if part == "feature_encoder":
        found = model.base_model, "feature_extractor"
    else:
        # Whisper's classifier has an encoder, and nothing by the name that its base model goes by elsewhere.
        found = model, next((name for name in (model.base_model_prefix, "encoder") if hasattr(model, name)), "")
    return found if hasattr(*found) else None


def can_be_cached(model: PreTrainedModel, part: str) -> bool:
    """Whether what follows a part takes the part's output and nothing else of it.

    A head with a projector is linear up to the mean over frames. AST's, without, starts from a pooled state; a weighted
    sum of layers needs all of them.
    """
    if part == "base" and (not hasattr(model, "projector") or model.config.use_weighted_layer_sum):
        return False
    return find(model, part) is not None


@contextmanager
def stand_in(model: PreTrainedModel, column: str) -> Iterator[None]:
    """Let a model take what a column of data/encoded holds: where that is a part's output, the part steps aside."""
    parts = {column: part for part, column in COLUMNS.items()}
    if column not in parts:
        yield
        return
    holder, name = find(model, parts[column])
    own = getattr(holder, name)
    setattr(holder, name, Features() if parts[column] == "feature_encoder" else States())
    try:
        yield
    finally:
        setattr(holder, name, own)
