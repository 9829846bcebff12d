"""Sources of the base model, one class for each value of download.model.source in params.yaml.

The method `fetch(folder)` of a source fills the folder with a Transformers checkpoint and its preprocessor config, and
returns the content of source.json. torch and transformers take seconds to import, so only functions
that need them do.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from stages.common.errors import UserError
from stages.common.hub_id import HubId
from stages.common.model_types import read_config
from stages.common.params import Section
from stages.common.sampling_rate import MAX_SAMPLING_RATE, MIN_SAMPLING_RATE
from stages.common.user_paths import expand_path
from stages.download.model.checkpoint_check import PREPROCESSORS
from stages.download.model.config_changes import change_config

CONFIGS = ["config.json", *PREPROCESSORS]
WEIGHTS = ["*.safetensors", "*.safetensors.index.json"]
# What HubertModel raises for values that do not fit.
WRONG_CONFIG = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
OLD_WEIGHTS = ["pytorch_model*.bin", "pytorch_model*.bin.index.json"]


class RandomWeights(Section):
    """A HuBERT with random weights, made from a config: small enough to train on two cores."""

    source: Literal["random_weights"]
    seed: int = Field(0, ge=0, lt=2**32, description="Another seed gives other weights.")
    sampling_rate: int = Field(
        16_000, ge=MIN_SAMPLING_RATE, le=MAX_SAMPLING_RATE, description="Hz, of the feature extractor."
    )
    config: dict[str, Any] = Field({}, description="Keys of transformers.HubertConfig.")

    def read_config(self) -> dict[str, Any]:
        """Return what config.json will have, but for keys with their defaults, and the sampling rate."""
        return {**self.config, "model_type": "hubert", "sampling_rate": self.sampling_rate}

    def fetch(self, folder: Path) -> dict[str, Any]:
        """Make the checkpoint.

        Raises:
            UserError: HubertConfig has no such key, or it does not accept a value.
        """
        import torch
        from huggingface_hub.errors import StrictDataclassError
        from transformers import HubertConfig, HubertModel, Wav2Vec2FeatureExtractor

        if unknown := sorted(set(self.config) - set(HubertConfig().to_dict())):
            raise UserError("HubertConfig has no such key", key=f"download.model.config.{unknown[0]}")
        torch.manual_seed(self.seed)
        try:
            model = HubertModel(HubertConfig(**self.config))
        except (*WRONG_CONFIG, StrictDataclassError) as error:
            message = f"{type(error).__name__}: {' '.join(str(error).split())}"
            raise UserError(message, key="download.model.config") from None
        model.save_pretrained(folder)
        Wav2Vec2FeatureExtractor(sampling_rate=self.sampling_rate).save_pretrained(folder)
        name = "HuBERT with random weights"
        return {"source": "random_weights", "id": name, "seed": self.seed, "licence": "cc0-1.0"}


class Checkpoint(Section):
    """What checkpoints of a folder and of the Hub share."""

    config: dict[str, Any] = Field(
        {}, description="Keys that replace those of config.json, e.g. {model_type: hubert}; all weights must fit."
    )

    def read_config(self) -> dict[str, Any]:
        """Return what config.json will have; empty if that is not known before it is downloaded."""
        return {}


class FolderCheckpoint(Checkpoint):
    """A checkpoint on disk, as `save_pretrained` writes it."""

    source: Literal["folder"]
    path: str = Field(
        description="Folder that save_pretrained wrote: HuBERT, Wav2Vec2, WavLM, Whisper, AST or similar."
    )
    licence: str = Field("unknown", description="Licence of the base model, for the model card.")

    def find_obstacles(self) -> Iterator[UserError]:
        """Check that the folder has a checkpoint."""
        try:
            root = expand_path(self.path, "download.model.path")
        except UserError as error:
            yield error
            return
        if not (root / "config.json").is_file():
            problem = "has no config.json" if root.is_dir() else "is not a folder"
            yield UserError(f"{self.path} {problem}; name one that save_pretrained wrote", key="download.model.path")

    def read_config(self) -> dict[str, Any]:
        """Return what config.json will have; empty if it cannot be read."""
        try:
            content = read_config(expand_path(self.path, "download.model.path"))
        except UserError:
            return {}
        return content and {**content, **self.config}

    def fetch(self, folder: Path) -> dict[str, Any]:
        """Copy the checkpoint.

        Raises:
            UserError: the folder has no config.json, or links to files that are missing.
        """
        for obstacle in self.find_obstacles():
            raise obstacle
        root = expand_path(self.path, "download.model.path")
        weights = [file for pattern in WEIGHTS for file in root.glob(pattern)]
        weights = weights or [file for pattern in OLD_WEIGHTS for file in root.glob(pattern)]
        for file in [*(root / name for name in CONFIGS if (root / name).is_file()), *weights]:
            if not file.is_file():
                raise UserError(f"{file} is a broken link, or not a file", key="download.model.path")
            shutil.copyfile(file, folder / file.name)
        change_config(folder, self.config)
        # A models/base of this project: train warns if its learning rate is too low for random weights.
        random = {"random_weights": True} if _has_random_weights(root / "source.json") else {}
        return {"source": "folder", "id": root.resolve().name, "licence": self.licence, **random}


class HubCheckpoint(Checkpoint):
    """A model repo on the Hugging Face Hub: safetensors if it has them, never remote code."""

    source: Literal["hub"]
    id: HubId = Field(description="owner/name of the model, or the address of its page.")
    revision: str = Field("main", description="Branch, tag or commit; source.json has the resolved commit.")

    def fetch(self, folder: Path) -> dict[str, Any]:
        """Download the checkpoint into the Hub's cache and copy it."""
        from stages.common import hub

        snapshot, commit = hub.fetch_files("model", self.id, self.revision, [*CONFIGS, "README.md", *WEIGHTS])
        if not list(snapshot.glob(WEIGHTS[0])):
            snapshot, commit = hub.fetch_files("model", self.id, commit, [*CONFIGS, *OLD_WEIGHTS])
        for file in snapshot.iterdir():
            if any(file.match(pattern) for pattern in [*CONFIGS, *WEIGHTS, *OLD_WEIGHTS]):
                shutil.copyfile(file, folder / file.name)
        change_config(folder, self.config)
        return {"source": "hub", "id": self.id, "revision": commit, "licence": read_licence(snapshot / "README.md")}


SOURCES = RandomWeights | FolderCheckpoint | HubCheckpoint


def _has_random_weights(source: Path) -> bool:
    """Return whether a source.json describes random weights; a checkpoint need not have one."""
    try:
        content = json.loads(source.read_bytes())
        return bool(content.get("source") == "random_weights" or content.get("random_weights"))
    except (OSError, ValueError, AttributeError):
        return False


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
