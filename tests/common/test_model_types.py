"""The table of architectures, compared with all models of Transformers that have an audio-classification head."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForAudioClassification
from transformers.models.auto.modeling_auto import MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING

from stages.common.architectures import DROPOUTS, find_part
from stages.common.model_types import MODEL_TYPES, count_frames, count_layers, describe, read_config

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
    assert read_config(tmp_path) == {}
    (tmp_path / "config.json").write_text('{"model_type": "hubert"}')
    (tmp_path / "preprocessor_config.json").write_bytes(content)
    assert read_config(tmp_path) == {"model_type": "hubert"}


@pytest.mark.slow
@settings(max_examples=50, deadline=None)
@given(
    kind=st.sampled_from([kind for kind, described in MODEL_TYPES.items() if "feature_encoder" in described.has]),
    layers=st.none() | st.lists(st.tuples(st.integers(1, 12), st.integers(1, 6)), min_size=1, max_size=4),
    samples=st.integers(1, 50_000),
)
def test_frames_of_a_window(kind: str, layers: list[tuple[int, int]] | None, samples: int) -> None:
    changes = {"conv_kernel": [k for k, _ in layers], "conv_stride": [s for _, s in layers]} if layers else {}
    config = CLASSES[kind](**changes, conv_dim=[8] * len(layers or range(len(CLASSES[kind]().conv_kernel))))
    with torch.device("meta"):
        model = AutoModelForAudioClassification.from_config(config)
    found = count_frames({"model_type": kind, "sampling_rate": 16_000} | changes, samples / 16_000)
    expected = max(int(model.base_model._get_feat_extract_output_lengths(samples)), 0)
    assert found == (None if kind.startswith("sew") and not layers else expected)


@pytest.mark.parametrize("value", [None, "5", [], [5, "x"], [[5]]])
def test_frames_of_a_wrong_config(value: Any) -> None:
    for key in ("conv_kernel", "conv_stride", "sampling_rate"):
        config = {"model_type": "hubert", "sampling_rate": 16_000, key: value}
        assert count_frames(config, 1.0) is None
    for rate in (-1, 10**400, True):
        assert count_frames({"model_type": "hubert", "sampling_rate": rate}, 1.0) is None
