"""Check that a checkpoint is complete and can be fine-tuned."""

import json
import pickle
from pathlib import Path

from stages.common.errors import UserError
from stages.common.lfs import POINTER, is_pointer
from stages.common.sampling_rate import MIN_SAMPLING_RATE, find_rate_problem

PREPROCESSORS = ["preprocessor_config.json", "processor_config.json"]
# Transformers raises any of these for a config of another shape.
UNREADABLE = (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError)


def check_checkpoint(folder: Path) -> str:
    """Check a checkpoint, and return its architecture and sampling rate in one line.

    Raises:
        UserError: the checkpoint has no weights, no feature extractor, or no audio-classification head exists for it.
    """
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig, AutoFeatureExtractor
    from transformers.models.auto.modeling_auto import MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING

    for file in sorted(folder.iterdir()):
        if is_pointer(file):
            raise UserError(f"{file.name} is {POINTER}", key="download.model")
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except (*UNREADABLE, StrictDataclassError) as error:
        _refuse_code(error)
        message = f"config.json cannot be read: {' '.join(str(error).split())}"
        raise UserError(message, key="download.model") from None
    if type(config) not in MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING:
        raise UserError(
            f"Transformers has no audio-classification head for a {config.model_type} model; "
            "choose one such as HuBERT, Wav2Vec2, WavLM, Whisper or AST",
            key="download.model",
        )
    for file in (folder / name for name in PREPROCESSORS):
        _check_sampling_rate(_read_sampling_rate(file), file.name)
    try:
        extractor = AutoFeatureExtractor.from_pretrained(folder, trust_remote_code=False)
    except (*UNREADABLE, StrictDataclassError) as error:
        _refuse_code(error)
        message = "the checkpoint has no preprocessor_config.json; save its feature extractor there too"
        raise UserError(message, key="download.model") from None
    check_weights(folder)
    _check_sampling_rate(getattr(extractor, "sampling_rate", None), type(extractor).__name__)
    return f"{config.model_type} at {extractor.sampling_rate} Hz"


def _read_sampling_rate(file: Path) -> object:
    """Return the sampling rate in a preprocessor config; a valid one if it has none, for which there is a default."""
    try:
        content = json.loads(file.read_bytes())
        return content.get("feature_extractor", content).get("sampling_rate", MIN_SAMPLING_RATE)
    except (OSError, ValueError, AttributeError):
        return MIN_SAMPLING_RATE  # Transformers reports what it cannot read


def _check_sampling_rate(rate: object, where: str) -> None:
    if problem := find_rate_problem(rate):
        raise UserError(f"{where}: {problem}; correct it in a copy of the checkpoint", key="download.model")


def _refuse_code(error: Exception) -> None:
    """Raise UserError if Transformers failed because it may not run the checkpoint's Python code."""
    if "trust_remote_code" in str(error):
        raise UserError(
            "the checkpoint needs Python code from its repo (auto_map in its config), which is never run; "
            "choose a checkpoint whose architecture Transformers has, such as HuBERT, Wav2Vec2, WavLM, Whisper or AST",
            key="download.model",
        ) from None


def check_weights(folder: Path) -> None:
    """Open all weights of a checkpoint, without running code that a pickle contains.

    Raises:
        UserError: there are none, a file is broken, or one that the index names is missing.
    """
    files = sorted(file for file in folder.iterdir() if file.suffix in (".safetensors", ".bin"))
    if not files:
        message = "the checkpoint has no weights (model.safetensors or pytorch_model.bin)"
        raise UserError(message, key="download.model")
    for file in files:
        if problem := _find_problem(file):
            raise UserError(f"{file.name} is broken ({problem}); download it again", key="download.model")
    for index in folder.glob("*.index.json"):
        try:
            named = set(json.loads(index.read_bytes())["weight_map"].values())
        except (ValueError, LookupError, TypeError, AttributeError):
            raise UserError(f"{index.name} is broken; download it again", key="download.model") from None
        if missing := sorted(str(name) for name in named - {file.name for file in files}):
            raise UserError(f"the checkpoint lacks {missing[0]}, which {index.name} names", key="download.model")


def _find_problem(file: Path) -> str | None:
    """Return why a file of weights cannot be read, or None."""
    from safetensors import SafetensorError, safe_open

    if file.suffix == ".safetensors":
        try:
            with safe_open(file, "np"):
                return None
        except SafetensorError as error:
            return str(error)
    import torch

    try:
        weights = torch.load(file, map_location="meta", weights_only=True)
    except (*UNREADABLE, RuntimeError, EOFError, MemoryError, pickle.UnpicklingError) as error:
        return f"torch cannot read it: {' '.join(str(error).split())[:200] or type(error).__name__}"
    return None if isinstance(weights, dict) else "it has no tensors by name"
