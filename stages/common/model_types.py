"""What the architectures of base models have, by the model_type in config.json. torch is not needed.

This decides only which params are accepted. No output depends on it, so dvc.yaml does not list this module.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

from stages.common.errors import UserError


class ModelType(NamedTuple):
    """What a classifier of a model_type has; by default nothing that only some architectures have.

    Attributes:
        has: feature_encoder (convolutions over samples), masks (SpecAugment in training), projector (a linear head up
            to the mean over frames), weighted_sum (of layers), same_frames (the output has the frames of the layers).
        linear: names of the linear layers of the base model, also those that only some configs have.
        layers: their number, if config.json has none.
        spectrograms: the feature extractor, if it makes spectrograms.
        hidden_size: channels of its layers, if config.json has none.
    """

    has: frozenset[str] = frozenset()
    linear: frozenset[str] = frozenset()
    layers: int | None = None
    spectrograms: str = ""
    hidden_size: int = 768


# Of the feature encoder, if config.json does not say: a frame of 25 ms each 20 ms, at 16 kHz.
CONVOLUTIONS = {"conv_kernel": (10, 3, 3, 3, 3, 2, 2), "conv_stride": (5, 2, 2, 2, 2, 2, 2)}
MAX_RATE = 10**9  # Hz; a config.json can have any number
# Values of resample_encode.cache for which the mean over frames is stored.
AVERAGED = frozenset({"base", "layers"})
ALL = frozenset({"feature_encoder", "masks", "projector", "weighted_sum", "same_frames"})
PROJECTIONS = frozenset({"q_proj", "k_proj", "v_proj"})
LINEAR = PROJECTIONS | {"out_proj", "projection", "intermediate_dense", "output_dense"}
CONFORMER = frozenset({"linear_q", "linear_k", "linear_v", "linear_out", "linear_pos"}) | (LINEAR - PROJECTIONS)
CONFORMER -= {"out_proj"}
DEBERTA = frozenset({"query_proj", "key_proj", "value_proj", "pos_key_proj", "pos_query_proj", "dense", "projection"})
MODEL_TYPES = {
    "audio-spectrogram-transformer": ModelType(
        frozenset(), PROJECTIONS | {"o_proj", "fc1", "fc2"}, 12, "ASTFeatureExtractor"
    ),
    "data2vec-audio": ModelType(ALL, LINEAR, 12),
    "hubert": ModelType(ALL, LINEAR, 12),
    "sew": ModelType(ALL - {"same_frames"}, LINEAR | {"feature_projection"}, 12),
    "sew-d": ModelType(ALL - {"same_frames"}, DEBERTA | {"feature_projection"}, 12),
    "unispeech": ModelType(ALL, LINEAR, 12),
    "unispeech-sat": ModelType(ALL, LINEAR, 12),
    "wav2vec2": ModelType(ALL, LINEAR, 12),
    "wav2vec2-bert": ModelType(ALL - {"feature_encoder"}, CONFORMER, 24, "SeamlessM4TFeatureExtractor", 1024),
    "wav2vec2-conformer": ModelType(ALL, CONFORMER, 12),
    "wavlm": ModelType(ALL, LINEAR | {"gru_rel_pos_linear"}, 12),
    "whisper": ModelType(
        frozenset({"projector", "weighted_sum", "same_frames"}),
        PROJECTIONS | {"out_proj", "fc1", "fc2"},
        4,
        "WhisperFeatureExtractor",
    ),
}


def is_known(config: dict[str, Any]) -> bool:
    """Return whether MODEL_TYPES has the architecture. config: the content of config.json."""
    return isinstance(config.get("model_type"), str) and config["model_type"] in MODEL_TYPES


def describe(config: dict[str, Any]) -> ModelType:
    """Return what the architecture has. config: the content of config.json."""
    if not is_known(config):
        return ModelType()
    found = MODEL_TYPES[config["model_type"]]
    # Small layers in each block, which checkpoints of MMS have.
    return found._replace(linear=found.linear | {"linear_1", "linear_2"}) if config.get("adapter_attn_dim") else found


def count_layers(config: dict[str, Any]) -> int | None:
    """Return the number of layers of the base model, or None if it is not known. config: the content of config.json."""
    numbers = [config.get(key) for key in ("num_hidden_layers", "encoder_layers")]
    return max((number for number in numbers if type(number) is int), default=describe(config).layers)


def count_frames(config: dict[str, Any], seconds: float | None) -> int | None:
    """Return the frames of a window, or None if that is not known. config: as `read_config` returns it."""
    rate = config.get("sampling_rate")
    sew = str(config.get("model_type")).startswith("sew")  # it has other convolutions
    kernels, strides = (config.get(key, () if sew else usual) for key, usual in CONVOLUTIONS.items())
    if (
        seconds is None
        or type(rate) is not int
        or not 0 < rate < MAX_RATE
        or not (_are_counts(kernels) and _are_counts(strides))
    ):
        return None
    frames = round(seconds * rate)
    for kernel, stride in zip(kernels, strides):
        frames = (frames - kernel) // stride + 1
    return max(frames, 0)


def _are_counts(values: Any) -> bool:
    return isinstance(values, list | tuple) and all(isinstance(value, int) and value > 0 for value in values or [0])


def read_config(folder: Path) -> dict[str, Any]:
    """Return the content of a checkpoint's config.json, with the sampling_rate of its feature extractor if it has one.

    It is empty if the file is missing or damaged, which the stage that needs it reports.
    """
    content, extractor = _read(folder / "config.json"), _read(folder / "preprocessor_config.json")
    rate = {key: value for key, value in extractor.items() if key == "sampling_rate"}
    return content and content | rate


def _read(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def refuse_windows(extractor: str, key: str) -> UserError:
    """Return the error for windows of spectrograms. key: of params.yaml that asks for them."""
    return UserError(
        f"{extractor} makes spectrograms of a fixed length, which cannot be cut; set it to null, and lower "
        "resample_encode.max_seconds for shorter clips",
        key=key,
    )


def refuse_windows_of_means(key: str) -> UserError:
    """Return the error for windows of clips whose cached output is a mean. key: of params.yaml that asks for them."""
    return UserError("the cached output of the base model cannot be cut into windows; set it to null", key=key)
