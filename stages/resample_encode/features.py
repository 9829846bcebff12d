"""Turn a clip into the model's input with the base model's feature extractor."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoFeatureExtractor

from stages.common.audio import load_audio
from stages.common.classifier import load_extractor
from stages.common.errors import UserError


def load_feature_extractor(folder: Path, settings: dict[str, Any]) -> Any:
    """Load the base model's feature extractor, with some settings replaced.

    Raises:
        UserError: the feature extractor has no such setting, or does not accept its value.
    """
    extractor = load_extractor(folder)
    for key in settings:
        if key not in extractor.to_dict():
            raise UserError(
                f"{type(extractor).__name__} has no such setting", key=f"resample_encode.feature_extractor.{key}"
            )
    try:
        return AutoFeatureExtractor.from_pretrained(folder, trust_remote_code=False, **settings)
    except (ValueError, TypeError, ArithmeticError, LookupError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"not accepted: {reason}", key="resample_encode.feature_extractor") from None


def encode_clip(
    file: Path,
    extractor: Any,
    max_seconds: float,
    min_samples: int = 1,
    run_part: Callable[[np.ndarray], np.ndarray] | None = None,
) -> np.ndarray:
    """Encode one clip.

    Args:
        min_samples: that the model needs, at its sampling rate.
        run_part: a part of the model, to run on the feature extractor's output.

    Returns:
        float16, shape (samples,) for waveform models, (bins, frames) or (frames, bins) for spectrogram models,
        (frames, channels) for the output of a part of the model.

    Raises:
        UserError: the clip is too short, or its values are too large for float16.
    """
    samples = load_audio(file, extractor.sampling_rate, max_seconds)
    if len(samples) < min_samples:
        raise UserError(
            f"{len(samples)} samples at {extractor.sampling_rate} Hz, but the model needs at least {min_samples}; "
            "remove the clip",
            file=file,
        )
    features = extractor(samples, sampling_rate=extractor.sampling_rate, return_tensors="np")
    array = features[extractor.model_input_names[0]][0].astype(np.float32, copy=False)
    if run_part is not None:
        array = run_part(array)
    # torch rounds as numpy does, in a thirtieth of the time.
    half = torch.from_numpy(array).half()
    if not np.isfinite(torch.aminmax(half)).all():
        if run_part is None:
            raise UserError("samples too large for float16; scale the clip, or set do_normalize: true", file=file)
        raise UserError("model states too large for float16; set resample_encode.cache: input", file=file)
    return half.numpy()
