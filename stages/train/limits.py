"""What the base model allows, found from its config alone: params.yaml is checked before torch is imported."""

import math
from collections.abc import Iterator, Set
from typing import TYPE_CHECKING, Any

from stages.common.errors import UserError
from stages.common.model_types import count_frames, count_layers, describe, refuse_windows

if TYPE_CHECKING:
    from stages.train.params import TrainParams

ATTENTION = ("q_proj", "k_proj", "v_proj", "out_proj", "o_proj")
# WavLM's attention passes its weights to a function of torch, which would not use matrices beside them.
FEED_FORWARD: dict[str, tuple[str, ...]] = {"wavlm": ("intermediate_dense", "output_dense")}
# What a config.json that lacks them means, in all architectures with masks.
MASKS: dict[str, float] = {
    "apply_spec_augment": True,
    **{"mask_time_prob": 0.05, "mask_time_length": 10},
    **{"mask_feature_prob": 0.0, "mask_feature_length": 10},
}


def find_unsupported(params: "TrainParams", config: dict[str, Any]) -> Iterator[UserError]:
    """Yield an error for each key that the base model does not allow. config: the content of its config.json."""
    kind, model, layers = config.get("model_type", ""), describe(config), count_layers(config)
    if params.layers == "weighted" and "weighted_sum" not in model.has:
        yield UserError(f"a {kind} model has no weighted sum; set last, a number or null", key="train.layers")
    if isinstance(params.layers, int) and layers is not None and params.layers > layers:
        yield UserError(f"{params.layers}, but the base model has {layers} layers", key="train.layers")
    if params.spec_augment and "masks" not in model.has:
        yield UserError(f"a {kind} model does not use it; set it to null", key="train.spec_augment")
    elif "masks" in model.has:
        yield from _find_wrong_masks(params, config)
    if params.freeze == "feature_encoder" and "feature_encoder" not in model.has:
        yield UserError(f"a {kind} model has no feature_encoder; set none", key="train.freeze")
    if params.lora and model.linear:
        try:
            choose_modules(kind, model.linear, params.lora.target_modules)
        except UserError as error:
            yield error
    if params.window_seconds and model.spectrograms:
        yield refuse_windows(model.spectrograms, "train.window_seconds")
    for key in ("polarity", "time_shift", "gain", "noise") if model.spectrograms else ():
        if getattr(params.augment, key, None):
            yield refuse_change(model.spectrograms, key)


def _find_wrong_masks(params: "TrainParams", config: dict[str, Any]) -> Iterator[UserError]:
    """Yield an error for masks that do not fit what they mask; PyTorch's error comes in training only."""
    numbers = {
        name: value
        for name, value in config.items()
        if isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))
    }
    masks = {name: numbers.get(name, value) for name, value in MASKS.items()}
    if params.spec_augment:
        masks |= params.spec_augment.model_dump() | {"apply_spec_augment": True}
    channels = numbers.get("hidden_size", describe(config).hidden_size)
    longest = [seconds for seconds in (params.window_seconds, numbers.get("max_seconds")) if seconds]
    frames = count_frames(config, min(longest, default=None))
    for axis, size in (("time", frames), ("feature", channels)):
        length = masks[f"mask_{axis}_length"]
        used = masks["apply_spec_augment"] and masks[f"mask_{axis}_prob"] > 0
        if used and size is not None and not 1 <= length <= size:
            yield refuse_mask(params, axis, length, size)


def refuse_mask(params: "TrainParams", axis: str, length: float, size: float) -> UserError:
    """Return the error for masks of a length from params or from the base model. axis: time or feature."""
    whole = "a window" if params.window_seconds else "the longest clip of a batch"
    unit, whole = ("frames", whole) if axis == "time" else ("channels", "the base model")
    message = f"masks of {length!s:.20} {unit}, but {whole} has {size!s:.20}"
    if params.spec_augment and size >= 1:
        return UserError(f"{message}; set 1 to {size!s:.20}", key=f"train.spec_augment.mask_{axis}_length")
    return UserError(f"{message}; set {{mask_{axis}_prob: 0}} to mask nothing", key="train.spec_augment")


def choose_modules(kind: str, names: Set[str], wanted: list[str] | None) -> list[str]:
    """Return the names of the linear layers that LoRA adapts.

    Args:
        kind: the model_type. names: of all linear layers of the base model. wanted: None for the usual ones.

    Raises:
        UserError: the base model has no such layers.
    """
    names = names - set(ATTENTION) if kind in FEED_FORWARD else names
    chosen = wanted or [name for name in FEED_FORWARD.get(kind, ATTENTION) if name in names]
    if unknown := sorted(set(chosen) - names):
        problem = f"has no layer {unknown[0]} that can be adapted; there are"
    elif not chosen:
        problem = "has no layers with the usual names; name some of"
    else:
        return chosen
    raise UserError(f"a {kind} model {problem} {', '.join(sorted(names))}", key="train.lora.target_modules")


def refuse_change(extractor: str, key: str) -> UserError:
    """Return the error for a key of train.augment that changes samples, if the feature extractor makes spectrograms."""
    message = f"{extractor} makes spectrograms, and it changes samples; remove it"
    return UserError(message, key=f"train.augment.{key}")


def refuse_gain() -> UserError:
    """Return the error for a gain of inputs that the feature extractor normalises."""
    return UserError(
        "the feature extractor normalises the level of each clip (do_normalize), so the model never gets another one; "
        "set it to null",
        key="train.augment.gain",
    )
