"""The table of architectures, compared with all models of Transformers that have an audio-classification head."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import AutoModelForAudioClassification
from transformers.models.auto.modeling_auto import MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING

from stages.common.architectures import DROPOUTS, find_part
from stages.common.model_types import MODEL_TYPES, count_layers, describe, read_config

CLASSES = {config.model_type: config for config in MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING}
# Names of linear layers that only some configs have.
OPTIONAL = {"feature_projection", "linear_pos", "pos_key_proj", "pos_query_proj"}


@pytest.mark.parametrize("kind", sorted(CLASSES | MODEL_TYPES))
def test_table_describes_the_model(kind: str) -> None:
    config = CLASSES[kind]()
    with torch.device("meta"):
        model = AutoModelForAudioClassification.from_config(config)
    described, part = describe({"model_type": kind}), find_part(model, "base")
    assert part is not None
    found = {
        "feature_encoder": find_part(model, "feature_encoder") is not None,
        "masks": hasattr(model.base_model, "_mask_hidden_states"),
        "projector": hasattr(model, "projector"),
        "weighted_sum": hasattr(config, "use_weighted_layer_sum"),
        "same_frames": hasattr(model, "projector") and not hasattr(config, "squeeze_factor"),
    }
    assert described.has == {name for name, value in found.items() if value}
    names = {
        name.rpartition(".")[2]
        for name, module in getattr(*part).named_modules()
        if isinstance(module, torch.nn.Linear)
    }
    assert names <= described.linear
    assert described.linear - names <= OPTIONAL
    assert described.layers == config.num_hidden_layers == count_layers(config.to_dict())
    extractor = getattr(transformers, described.spectrograms or "Wav2Vec2FeatureExtractor")
    assert extractor.model_input_names[0] == getattr(*part).main_input_name
    assert bool(described.spectrograms) != ("feature_encoder" in described.has)
    # So no architecture refuses train.dropout and train.attention_dropout.
    assert all(any(hasattr(config, name) for name in names) for names in DROPOUTS.values())


@pytest.mark.parametrize("kind", [None, 3, [], "mimi"])
def test_unknown_model_type(kind: Any) -> None:
    assert not describe({"model_type": kind}).has
    assert count_layers({"model_type": kind}) is None


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b"[" * 100_000])
def test_damaged_config(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.json").write_bytes(content)
    assert read_config(tmp_path / "config.json") == {}
