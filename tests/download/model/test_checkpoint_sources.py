import json
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes.hub.server import LocalHub
from fakes.small_hub import DISTILHUBERT, checkpoint, small_distilhubert, stage
from helpers import TINY_CONFIG, set_params, user_error
from transformers import (
    AutoFeatureExtractor,
    AutoModel,
    BertConfig,
    BertModel,
    HubertConfig,
    HubertForSequenceClassification,
    HubertModel,
    Wav2Vec2FeatureExtractor,
)

from stages.common.tables import read_json, write_json
from stages.download.__main__ import download_model
from stages.download.model.checkpoint_sources import read_licence


def test_random_weights(workspace: Path) -> None:
    download_model()
    first = Path("models/base/model.safetensors").read_bytes()
    download_model()
    assert Path("models/base/model.safetensors").read_bytes() == first
    assert AutoFeatureExtractor.from_pretrained("models/base").sampling_rate == 16_000
    set_params(workspace, {"download.model.seed": 1})
    download_model()
    assert Path("models/base/model.safetensors").read_bytes() != first


@pytest.mark.parametrize(
    ("config", "key"),
    [
        ({"hidden_sise": 8}, "download.model.config.hidden_sise"),
        ({"hidden_size": 10, "num_attention_heads": 3}, "download.model.config"),
        ({"num_attention_heads": 0}, "download.model.config"),
        ({"hidden_act": "zzz"}, "download.model.config"),
        ({"id2label": 5}, "download.model.config"),
    ],
    ids=["unknown-key", "invalid-value", "zero", "no-function", "no-labels"],
)
def test_invalid_config_of_random_weights(workspace: Path, config: dict[str, Any], key: str) -> None:
    set_params(workspace, {"download.model.config": config})
    assert user_error(download_model).key == key


@pytest.fixture
def checkpoint_folder(workspace: Path) -> Path:
    """The checkpoint `mine`, which params.yaml names."""
    download_model()
    folder = Path("models/base").rename("mine")
    set_params(workspace, {"download.model": {"source": "folder", "path": "mine"}})
    return folder


def test_folder_is_copied(checkpoint_folder: Path) -> None:
    (checkpoint_folder / "optimizer.pt").write_bytes(b"x")
    download_model()
    assert not Path("models/base/optimizer.pt").exists()
    assert AutoModel.from_pretrained("models/base").config.hidden_size == 16


def write_mert(folder: Path, **config: Any) -> None:
    """Write a tiny checkpoint of MERT-v1-95M's layout: a HuBERT's weights, with the names of its publication."""
    names = {"original0": "weight_g", "original1": "weight_v"}
    model = HubertModel(HubertConfig(**TINY_CONFIG | {"conv_bias": False, "mask_time_prob": 0.0}))
    weights = {}
    for name, weight in model.state_dict().items():
        parts = name.split(".parametrizations.weight.")
        weights[name if len(parts) == 1 else f"{parts[0]}.{names[parts[1]]}"] = weight
    assert "encoder.pos_conv_embed.conv.weight_g" in weights
    torch.save(weights, folder / "pytorch_model.bin")
    content = model.config.to_dict() | {"model_type": "mert_model", "architectures": ["MERTModel"], **config}
    content["auto_map"] = {"AutoConfig": "configuration_MERT.MERTConfig", "AutoModel": "modeling_MERT.MERTModel"}
    write_json(folder / "config.json", content | {"sample_rate": 24_000, "feature_extractor_cqt": False})
    Wav2Vec2FeatureExtractor(sampling_rate=24_000).save_pretrained(folder)


@pytest.mark.slow
def test_config_of_a_checkpoint_is_changed(workspace: Path) -> None:
    """MERT needs code of its repo, or one other word in its config. All weights are used."""
    Path("mert").mkdir()
    write_mert(Path("mert"))
    source = {"source": "folder", "path": "mert"}
    set_params(workspace, {"download.model": source})
    assert user_error(download_model).key == "download.model"
    set_params(workspace, {"download.model": source | {"config": {"model_type": "hubert"}}})
    download_model()
    assert "auto_map" not in read_json(Path("models/base/config.json"))
    assert "random_weights" not in read_json(Path("models/base/source.json"))
    model = AutoModel.from_pretrained("models/base")
    weights = torch.load("mert/pytorch_model.bin")
    assert torch.equal(
        model.encoder.pos_conv_embed.conv.parametrizations.weight.original0,
        weights["encoder.pos_conv_embed.conv.weight_g"],
    )
    extractor = AutoFeatureExtractor.from_pretrained("models/base")
    assert extractor.sampling_rate == 24_000


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "key", "message"),
    [
        ({"num_hidden_layers": 0}, "download.model.config", "weights are not used (first: encoder.layers.0."),
        ({"num_hidden_layers": 2}, "download.model.config", "weights are missing from the checkpoint (first: encoder"),
        ({"intermediate_size": 32}, "download.model.config", "weights are of another shape"),
        ({"layerdropp": 0.1}, "download.model.config.layerdropp", "has no such key"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_weights_that_do_not_fit_a_changed_config(
    workspace: Path, config: dict[str, Any], key: str, message: str
) -> None:
    Path("mert").mkdir()
    write_mert(Path("mert"))
    changes = {"model_type": "hubert"} | config
    set_params(workspace, {"download.model": {"source": "folder", "path": "mert", "config": changes}})
    error = user_error(download_model)
    assert error.key == key
    assert message in str(error)


@pytest.mark.slow
def test_head_of_a_checkpoint_is_left_out(workspace: Path) -> None:
    """It is not used without changed keys, either."""
    config = HubertConfig(num_labels=3, **TINY_CONFIG)
    HubertForSequenceClassification(config).save_pretrained("classifier")
    Wav2Vec2FeatureExtractor().save_pretrained("classifier")
    source = {"source": "folder", "path": "classifier"}
    set_params(workspace, {"download.model": source | {"config": {"hidden_dropout": 0.3}}})
    download_model()
    assert read_json(Path("models/base/config.json"))["hidden_dropout"] == 0.3
    set_params(workspace, {"download.model": source | {"config": {"num_hidden_layers": 0}}})
    assert "weights are not used (first: " in str(user_error(download_model))


def test_random_weights_of_a_folder_are_noted(checkpoint_folder: Path) -> None:
    download_model()
    assert read_json(Path("models/base/source.json"))["random_weights"]
    (checkpoint_folder / "source.json").unlink()
    download_model()
    assert "random_weights" not in read_json(Path("models/base/source.json"))


@pytest.mark.parametrize("path", ["nowhere", "~nouser/x", ""])
def test_missing_folder(workspace: Path, path: str) -> None:
    set_params(workspace, {"download.model": {"source": "folder", "path": path}})
    error = user_error(download_model)
    assert error.key == "download.model.path"
    assert path in str(error)


def test_architecture_without_audio_classification(workspace: Path) -> None:
    small = BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, vocab_size=9)
    BertModel(small).save_pretrained("bert")
    set_params(workspace, {"download.model": {"source": "folder", "path": "bert"}})
    error = user_error(download_model)
    assert error.key == "download.model"
    assert "no audio-classification head for a bert model" in str(error)
    assert not Path("models/base").exists()


def test_no_weights(checkpoint_folder: Path) -> None:
    (checkpoint_folder / "model.safetensors").unlink()
    assert "no weights" in str(user_error(download_model))


def test_broken_link(checkpoint_folder: Path) -> None:
    """E.g. a snapshot that was copied without the Hub's blobs."""
    (checkpoint_folder / "model.safetensors").unlink()
    (checkpoint_folder / "model.safetensors").symlink_to("../../blobs/0")
    assert "model.safetensors is a broken link" in str(user_error(download_model))


def test_truncated_weights(checkpoint_folder: Path) -> None:
    weights = checkpoint_folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:9000])
    assert "model.safetensors is broken" in str(user_error(download_model))


def test_no_preprocessor_config(checkpoint_folder: Path) -> None:
    (checkpoint_folder / "preprocessor_config.json").unlink()
    assert "no preprocessor_config.json" in str(user_error(download_model))


@pytest.mark.parametrize(
    ("file", "values"),
    [
        ("config.json", {"model_type": "mert_model", "auto_map": {"AutoConfig": "mert.MertConfig"}}),
        ("preprocessor_config.json", {"feature_extractor_type": "Mert", "auto_map": {"AutoFeatureExtractor": "m.M"}}),
    ],
)
def test_checkpoint_with_code(
    checkpoint_folder: Path, file: str, values: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Transformers would ask whether to run it."""
    path = checkpoint_folder / file
    path.write_text(json.dumps(read_json(path) | values))
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked a question"))
    assert "needs Python code from its repo (auto_map in its config)" in str(user_error(download_model))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("---\nlicense: mit\n---\n", "mit"),
        ("---\nlicense: [mit, cc0-1.0]\n---\n", ["mit", "cc0-1.0"]),
        ("---\nlicense: {name: mit}\n---\n", "unknown"),
        ("---\nlicense: 3\n---\n", "unknown"),
        ("---\n- a list\n---\n", "unknown"),
        ("---\nlicense: [\n---\n", "unknown"),
        ("---\n'\x07'\n---\n", "unknown"),
        ("no front matter", "unknown"),
    ],
)
def test_read_licence(tmp_path: Path, text: str, expected: str | list[str]) -> None:
    (tmp_path / "README.md").write_text(text)
    assert read_licence(tmp_path / "README.md") == expected


@pytest.mark.slow
@pytest.mark.parametrize("old", [True, False], ids=["pickled", "safetensors"])
def test_checkpoint_of_hub(hub: LocalHub, workspace: Path, tmp_path: Path, old: bool) -> None:
    commit = hub.commit("model", DISTILHUBERT, checkpoint(tmp_path / "made", old))
    set_params(workspace, {"download.model": {"source": "hub", "id": DISTILHUBERT}})
    stage(hub, "stages.download", "model")
    files = {file.name for file in Path("models/base").iterdir()}
    weights = "pytorch_model.bin" if old else "model.safetensors"
    assert files == {"config.json", "preprocessor_config.json", "source.json", weights}
    source = read_json(Path("models/base/source.json"))
    assert (source["revision"], source["licence"]) == (commit, "apache-2.0")
    loaded = AutoModel.from_pretrained("models/base").state_dict()
    for name, tensor in small_distilhubert().state_dict().items():
        torch.testing.assert_close(loaded[name], tensor, msg=name)


@pytest.mark.slow
def test_safetensors_are_preferred(hub: LocalHub, workspace: Path, tmp_path: Path) -> None:
    files = checkpoint(tmp_path / "new", old=False)
    hub.commit("model", DISTILHUBERT, files | {"pytorch_model.bin": b"a pickle that is not opened"})
    set_params(workspace, {"download.model": {"source": "hub", "id": DISTILHUBERT}})
    stage(hub, "stages.download", "model")
    assert not Path("models/base/pytorch_model.bin").exists()
    assert not hub.seen("pytorch_model.bin")
