import json
from pathlib import Path

import pytest
import torch
from helpers import user_error
from safetensors.torch import save_file
from transformers import HubertConfig

from stages.common.lfs import START
from stages.download.model.checkpoint_check import check_checkpoint, check_weights

POINTER = START + b"\noid sha256:0\nsize 94370000\n"
TENSORS = {f"layer.{n}": torch.arange(500.0) + n for n in range(8)}


def refusal(folder: Path) -> str:
    error = user_error(lambda: check_weights(folder))
    assert error.key == "download.model"
    assert "\n" not in str(error)
    return str(error)


@pytest.mark.parametrize("content", [[], 3, "x", {"model_type": 5}, {"model_type": "hubert", "hidden_size": "wide"}])
def test_invalid_config(tmp_path: Path, content: object) -> None:
    (tmp_path / "config.json").write_text(json.dumps(content))
    error = user_error(lambda: check_checkpoint(tmp_path))
    assert error.key == "download.model"
    assert "config.json cannot be read" in str(error)


@pytest.mark.parametrize("rate", [0, -16_000, 999, 10**9, 16_000.5, "16000", None, [16_000]])
@pytest.mark.parametrize("nested", [False, True], ids=["preprocessor", "processor"])
def test_invalid_sampling_rate(tmp_path: Path, rate: object, nested: bool) -> None:
    HubertConfig().save_pretrained(tmp_path)
    values: dict[str, object] = {"feature_extractor_type": "Wav2Vec2FeatureExtractor", "sampling_rate": rate}
    file = "processor_config.json" if nested else "preprocessor_config.json"
    (tmp_path / file).write_text(json.dumps({"feature_extractor": values} if nested else values))
    error = user_error(lambda: check_checkpoint(tmp_path))
    assert error.key == "download.model"
    assert f"{file}: sampling rate is not a whole number from 1000 to 400000 Hz" in str(error)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "pytorch_model.bin", "pytorch_model-1-of-2.bin"])
def test_lfs_pointer_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(POINTER)
    error = user_error(lambda: check_checkpoint(tmp_path))
    assert f"{name} is a Git LFS pointer, not the file itself; run git lfs pull" in str(error)


def test_pointer_of_a_real_repo(shared: Path) -> None:
    folder = shared / "cases/lfs-pointer-bin"
    if not folder.is_dir():
        pytest.skip("no such case")
    assert "pytorch_model.bin is a Git LFS pointer" in str(user_error(lambda: check_checkpoint(folder)))


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "pickle"])
def test_pickled_weights(tmp_path: Path, zipped: bool) -> None:
    """Also those of early versions of torch."""
    torch.save(TENSORS, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
    check_weights(tmp_path)
    content = (tmp_path / "pytorch_model.bin").read_bytes()
    for cut in range(0, len(content) - 1, len(content) // 15):
        (tmp_path / "pytorch_model.bin").write_bytes(content[:cut])
        assert "pytorch_model.bin is broken (torch cannot read it" in refusal(tmp_path)


class Code:
    """A pickle that runs code."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path("ran"),)  # type: ignore[return-value]


@pytest.mark.parametrize("content", [Code(), [1], 3, torch.zeros(3)], ids=["code", "list", "number", "tensor"])
def test_other_pickle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: object) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(content, "pytorch_model.bin")
    assert "pytorch_model.bin is broken" in refusal(tmp_path)
    assert not Path("ran").exists()


@pytest.mark.parametrize("content", [b"", b"<html>", b"PK\3\4", bytes(900)], ids=["empty", "html", "zip", "zeros"])
@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_other_file(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    assert f"{name} is broken" in refusal(tmp_path)


def test_missing_shard(tmp_path: Path) -> None:
    for n in (1, 2):
        save_file({f"layer.{n}": torch.zeros(2)}, tmp_path / f"model-{n}.safetensors")
    index = {"weight_map": {f"layer.{n}": f"model-{n}.safetensors" for n in (1, 2)}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    check_weights(tmp_path)
    (tmp_path / "model-2.safetensors").unlink()
    assert "lacks model-2.safetensors, which model.safetensors.index.json names" in refusal(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text("{")
    assert "model.safetensors.index.json is broken" in refusal(tmp_path)
