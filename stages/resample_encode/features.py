"""Turn a clip into the model's input with the base model's feature extractor."""

import warnings
from bisect import bisect_left
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoFeatureExtractor

from stages.common.audio import load_audio
from stages.common.configs import load_extractor
from stages.common.errors import UserError
from stages.common.sampling_rate import find_rate_problem

try:
    import torch
except ImportError:  # tools.classify runs ONNX models without it
    torch = None

TOO_LARGE = 65_520.0  # float16 rounds it to infinity


def load_feature_extractor(folder: Path, settings: dict[str, Any]) -> Any:
    """Load the base model's feature extractor, with some settings replaced.

    Raises:
        UserError: the feature extractor has no such setting or does not accept its value, or its sampling rate cannot
            be used.
    """
    key = "resample_encode.feature_extractor"
    if "sampling_rate" in settings and (problem := find_rate_problem(settings["sampling_rate"])):
        raise UserError(problem, key=f"{key}.sampling_rate")
    extractor = load_extractor(folder)
    for name in settings:
        if name not in extractor.to_dict():
            raise UserError(f"{type(extractor).__name__} has no such setting", key=f"{key}.{name}")
    try:
        return AutoFeatureExtractor.from_pretrained(folder, trust_remote_code=False, **settings)
    except (ValueError, TypeError, ArithmeticError, LookupError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"not accepted: {reason}", key="resample_encode.feature_extractor") from None


def find_min_samples(extractor: Any, start: int) -> int:
    """Return the length of the shortest clip, in samples, whose features are finite and depend on the clip.

    The feature extractor of AST needs a frame of 25 ms, and that of Wav2Vec2-BERT two. Both fail, or return only
    padding, if a clip is shorter.

    Args:
        start: the shortest length to try, what the model needs.
    """
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (2, max(start, extractor.sampling_rate))).astype(np.float32)

    def is_enough(samples: int) -> bool:
        try:
            with warnings.catch_warnings(action="ignore"):
                one, other = (extract_features(clip[:samples], extractor) for clip in noise)
        except (ValueError, RuntimeError, IndexError):
            return False
        return bool(np.isfinite(one).all()) and not np.array_equal(one, other)

    lengths = range(start, noise.shape[1])
    if is_enough(start) or not is_enough(noise.shape[1]):
        return start
    return start + bisect_left(lengths, True, key=is_enough)


def extract_features(samples: np.ndarray, extractor: Any) -> np.ndarray:
    """Return the features of a clip: float32, of the shape that `encode_samples` describes."""
    features = extractor(samples, sampling_rate=extractor.sampling_rate, return_tensors="np")
    array: np.ndarray = features[extractor.model_input_names[0]][0]
    return array.astype(np.float32, copy=False)


def load_clip(file: Path, extractor: Any, max_seconds: float, min_samples: int) -> np.ndarray:
    """Load a clip at the sampling rate of the feature extractor: float32, shape (samples,).

    Args:
        min_samples: that the model needs, at its sampling rate.

    Raises:
        UserError: the clip is too short.
    """
    samples = load_audio(file, extractor.sampling_rate, max_seconds)
    require_length(samples, file, extractor, min_samples)
    return samples


def require_length(samples: np.ndarray, file: Path, extractor: Any, min_samples: int) -> None:
    """Raise UserError if a clip is too short for the model. samples: shape (samples,). file: the clip's."""
    if len(samples) < min_samples:
        raise UserError(
            f"{len(samples)} samples at {extractor.sampling_rate} Hz, but the model needs at least {min_samples}; "
            "remove the clip",
            file=file,
        )


def encode_samples(
    samples: np.ndarray, file: Path, extractor: Any, run_part: Callable[[np.ndarray], np.ndarray] | None = None
) -> np.ndarray:
    """Encode a clip.

    Args:
        samples: float32, shape (samples,), at the sampling rate of the feature extractor.
        file: the clip's, for errors.
        run_part: a part of the model, to run on the feature extractor's output.

    Returns:
        float16, shape (samples,) for waveform models, (bins, frames) or (frames, bins) for spectrogram models,
        (frames, channels) for the output of a part of the model.

    Raises:
        UserError: its values are too large for float16.
    """
    array = extract_features(samples, extractor)
    if run_part is not None:
        array = run_part(array)
    if not (array.min() > -TOO_LARGE and array.max() < TOO_LARGE):  # also if NaN is among them
        if run_part is None:
            raise UserError("samples too large for float16; scale the clip, or set do_normalize: true", file=file)
        raise UserError("model states too large for float16; set resample_encode.cache: input", file=file)
    if torch is None:
        return array.astype(np.float16)
    # torch rounds as numpy does, in a thirtieth of the time.
    half: np.ndarray = torch.from_numpy(array).half().numpy()
    return half
