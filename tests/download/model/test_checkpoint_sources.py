import json
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes.hub.server import LocalHub
from fakes.small_hub import DISTILHUBERT, checkpoint, small_distilhubert, stage
from helpers import set_params, user_error
from transformers import AutoFeatureExtractor, AutoModel, BertConfig, BertModel

from stages.common.tables import read_json
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
    ],
    ids=["unknown-key", "invalid-value"],
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
