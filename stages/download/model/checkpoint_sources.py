"""Where the base model comes from. Each source is its own piece of `download.model` in params.yaml.

`fetch(folder)` of a source fills the folder with a Transformers checkpoint and its preprocessor config, and returns
what becomes source.json. torch and transformers take seconds to import, so only the functions that need them do.
"""

import shutil
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from stages.common.hub_id import HubId
from stages.common.stage import Section, StageError

CONFIGS = ["config.json", "preprocessor_config.json", "processor_config.json"]
WEIGHTS = ["*.safetensors", "*.safetensors.index.json"]
# A config of another shape fails in Transformers in any of these ways.
UNREADABLE = (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError)
OLD_WEIGHTS = ["pytorch_model*.bin", "pytorch_model*.bin.index.json"]


class Scratch(Section):
    """A HuBERT with random weights, made from a config: small enough to learn something on two cores."""

    source: Literal["scratch"]
    seed: int = Field(ge=0, lt=2**32)
    sampling_rate: int = Field(gt=0)
    config: dict[str, Any]

    def fetch(self, folder: Path) -> dict[str, Any]:
        import torch
        from transformers import HubertConfig, HubertModel, Wav2Vec2FeatureExtractor

        unknown = sorted(set(self.config) - set(HubertConfig().to_dict()))
        if unknown:
            raise StageError(f"params.yaml: download.model.config.{unknown[0]}: HubertConfig has no such key")
        torch.manual_seed(self.seed)
        try:
            model = HubertModel(HubertConfig(**self.config))
        except (TypeError, ValueError, RuntimeError) as error:
            raise StageError(f"params.yaml: download.model.config: {' '.join(str(error).split())}") from None
        model.save_pretrained(folder)
        Wav2Vec2FeatureExtractor(sampling_rate=self.sampling_rate).save_pretrained(folder)
        return {"source": "scratch", "id": "HuBERT with random weights", "seed": self.seed, "licence": "cc0-1.0"}


class Folder(Section):
    """A checkpoint on disk, as `save_pretrained` leaves it."""

    source: Literal["folder"]
    path: str
    licence: str = "unknown"

    def fetch(self, folder: Path) -> dict[str, Any]:
        root = Path(self.path).expanduser()
        if not (root / "config.json").is_file():
            what = "has no config.json" if root.is_dir() else "is no folder"
            raise StageError(
                f"params.yaml: download.model.path: {self.path} {what}; name one that save_pretrained wrote"
            )
        weights = [file for pattern in WEIGHTS for file in root.glob(pattern)]
        weights = weights or [file for pattern in OLD_WEIGHTS for file in root.glob(pattern)]
        for file in [*(root / name for name in CONFIGS if (root / name).is_file()), *weights]:
            shutil.copyfile(file, folder / file.name)
        return {"source": "folder", "id": root.resolve().name, "licence": self.licence}


class Hub(Section):
    """A model repo on the Hugging Face Hub; safetensors where it has them, never remote code."""

    source: Literal["hub"]
    id: HubId
    revision: str = "main"

    def fetch(self, folder: Path) -> dict[str, Any]:
        from stages.common import hub

        wanted = [*CONFIGS, "README.md", *WEIGHTS]
        snapshot, commit = hub.fetch("model", self.id, self.revision, wanted)
        if not list(snapshot.glob(WEIGHTS[0])):
            snapshot, commit = hub.fetch("model", self.id, commit, [*CONFIGS, *OLD_WEIGHTS])
        for file in snapshot.iterdir():
            if any(file.match(pattern) for pattern in [*CONFIGS, *WEIGHTS, *OLD_WEIGHTS]):
                shutil.copyfile(file, folder / file.name)
        return {"source": "hub", "id": self.id, "revision": commit, "licence": read_licence(snapshot / "README.md")}


def read_licence(card: Path) -> str | list[str]:
    """Return the licence in a model card's front matter; "unknown" if it has none or cannot be read."""
    import yaml
    from huggingface_hub import metadata_load

    try:
        licence = (metadata_load(card) or {}).get("license") if card.is_file() else None
    except (ValueError, AttributeError, yaml.YAMLError):
        return "unknown"
    names = licence if isinstance(licence, list) else [licence]
    return licence if licence and all(isinstance(name, str) for name in names) else "unknown"


def check(folder: Path) -> str:
    """Say in one line what was fetched.

    Raises:
        StageError: the checkpoint has no weights, no feature extractor, or no audio-classification head exists for it.
    """
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError, safe_open
    from transformers import AutoConfig, AutoFeatureExtractor
    from transformers.models.auto.modeling_auto import MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING

    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except (*UNREADABLE, StrictDataclassError) as error:
        _refuse_code(error)
        raise StageError(f"download.model: config.json cannot be read: {' '.join(str(error).split())}") from None
    if type(config) not in MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING:
        raise StageError(
            f"download.model: Transformers has no audio-classification head for a {config.model_type} model; "
            "choose one such as HuBERT, Wav2Vec2, WavLM, Whisper or AST"
        )
    try:
        extractor = AutoFeatureExtractor.from_pretrained(folder, trust_remote_code=False)
    except (*UNREADABLE, StrictDataclassError) as error:
        _refuse_code(error)
        raise StageError(
            "download.model: the checkpoint has no preprocessor_config.json; save its feature extractor there too"
        ) from None
    if not any(file.suffix in {".safetensors", ".bin"} for file in folder.iterdir()):
        raise StageError("download.model: the checkpoint has no weights (model.safetensors or pytorch_model.bin)")
    for file in folder.glob("*.safetensors"):
        try:
            with safe_open(file, "np"):
                pass
        except SafetensorError as error:
            raise StageError(f"download.model: {file.name} is broken ({error}); get it again") from None
    return f"{config.model_type} at {extractor.sampling_rate} Hz"


def _refuse_code(error: Exception) -> None:
    """Raises StageError if Transformers failed because it may not run the checkpoint's own Python code."""
    if "trust_remote_code" in str(error):
        raise StageError(
            "download.model: the checkpoint needs Python code of its own (auto_map in its config), which is never run; "
            "choose a checkpoint whose architecture Transformers has, such as HuBERT, Wav2Vec2, WavLM, Whisper or AST"
        ) from None
