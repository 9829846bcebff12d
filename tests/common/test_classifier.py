from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers import change_config, set_params, user_error, write_tiny_model
from safetensors.torch import load_file, save_file

from stages.common.paths import BASE
from stages.common.tables import write_json
from stages.resample_encode.__main__ import main as resample_encode
from stages.train.__main__ import main as train

pytestmark = pytest.mark.slow

WEIGHTS = BASE / "model.safetensors"
Weights = dict[str, torch.Tensor]


@pytest.mark.parametrize(
    "damage",
    [
        lambda weights: {name: tensor for name, tensor in weights.items() if "layers.0" not in name},
        lambda weights: {f"module.{name}": tensor for name, tensor in weights.items()},
        lambda weights: {name: tensor[:1] if "layers.0" in name else tensor for name, tensor in weights.items()},
    ],
    ids=["missing", "prefixed", "cut"],
)
def test_unfit_weights_refused(copied: Path, damage: Callable[[Weights], Weights]) -> None:
    damaged = damage(load_file(WEIGHTS))
    save_file({name: tensor.clone() for name, tensor in damaged.items()}, WEIGHTS, {"format": "pt"})
    error = user_error(train)
    assert error.file == str(BASE)
    assert "are missing or do not fit config.json" in str(error)


@pytest.mark.parametrize("stage", [train, resample_encode], ids=["train", "resample_encode"])
def test_missing_weight_file_refused(copied: Path, stage: Callable[[], None]) -> None:
    weights = load_file(WEIGHTS)
    WEIGHTS.rename(BASE / "model-00001-of-00002.safetensors")
    weight_map = {name: f"model-0000{1 + ('layers' in name)}-of-00002.safetensors" for name in weights}
    write_json(BASE / "model.safetensors.index.json", {"metadata": {}, "weight_map": weight_map})
    set_params(copied, {"resample_encode.cache": "feature_encoder"})
    error = user_error(stage)
    assert error.file == str(BASE)
    assert "model-00002-of-00002.safetensors" in str(error)


def test_weights_of_another_whisper_refused(copied: Path) -> None:
    """Its classifier's name of the encoder is not the prefix of its base model."""
    write_tiny_model("whisper")
    set_params(copied, {"resample_encode.feature_extractor": {}, "train.window_seconds": None})
    resample_encode()
    change_config(encoder_ffn_dim=12)
    error = user_error(train)
    assert error.file == str(BASE)
    assert "fc1" in str(error)
