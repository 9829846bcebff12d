"""What check refuses because of the base model, compared with what train and resample_encode refuse."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from fakes.hub.server import LocalHub
from fakes.small_hub import DISTILHUBERT, checkpoint
from helpers import (
    ARCHITECTURES,
    EACH_ARCHITECTURE,
    RANDOM_WEIGHTS,
    ROOT,
    TINY_CONFIG,
    change_config,
    dvc,
    git,
    make_workspace,
    problems,
    set_params,
    user_error,
    write_tiny_model,
)

from stages.common.model_types import CONVOLUTIONS
from stages.common.params import load_params
from stages.common.params_check import check_params
from stages.common.paths import BASE
from stages.resample_encode.encoder import Encoder
from stages.resample_encode.params import ResampleEncodeParams
from stages.train.model import build_model
from stages.train.params import TrainParams

FOLDER = {"download.model": {"source": "folder", "path": str(BASE)}}
PLAIN = {"resample_encode.feature_extractor": {}, "train.window_seconds": None, "train.freeze": "base"}
SPECTROGRAMS = {"ast", "whisper"}
ALL = set(ARCHITECTURES)
# Params -> the architectures that refuse them. The base models have two layers.
REQUESTS: list[tuple[dict[str, Any], set[str]]] = [
    ({"train.freeze": "none"}, set()),
    ({"train.freeze": "base"}, set()),
    ({"train.freeze": "feature_encoder"}, SPECTROGRAMS),
    ({"train.layers": "weighted"}, {"ast"}),
    ({"train.layers": "last"}, set()),
    ({"train.layers": 2}, set()),
    ({"train.layers": 3}, ALL),
    ({"train.spec_augment": {}}, SPECTROGRAMS),
    ({"train.spec_augment": {"mask_feature_prob": 0.1, "mask_feature_length": 16}}, SPECTROGRAMS),
    ({"train.spec_augment": {"mask_feature_prob": 0.1, "mask_feature_length": 17}}, ALL),
    ({"train.spec_augment": {"mask_feature_length": 17}}, SPECTROGRAMS),
    ({"train.dropout": 0.2}, set()),
    ({"train.attention_dropout": 0.2}, set()),
    ({"train.freeze": "none", "train.lora": {"r": 64}}, set()),
    ({"train.freeze": "none", "train.lora": {"target_modules": ["q_proj"]}}, {"wavlm"}),
    ({"train.freeze": "none", "train.lora": {"target_modules": ["fc1"]}}, ALL - SPECTROGRAMS),
    ({"train.freeze": "none", "train.lora": {"target_modules": ["nothing", "fc2"]}}, ALL),
    ({"train.window_seconds": 0.5}, SPECTROGRAMS),
    ({"train.augment": {"mixup": 0.2}}, set()),
    ({"train.augment": {"polarity": True}}, SPECTROGRAMS),
    ({"train.augment": {"noise": [10, 40]}}, SPECTROGRAMS),
    ({"resample_encode.cache": "feature_encoder"}, SPECTROGRAMS),
    ({"resample_encode.cache": "base"}, {"ast"}),
    ({"resample_encode.cache": "layers"}, {"ast"}),
    ({"resample_encode.cache": "layers", "train.layers": 1}, {"ast"}),
]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    shutil.copyfile(ROOT / "params.yaml", "params.yaml")
    set_params(tmp_path, RANDOM_WEIGHTS)
    return tmp_path


def build_all() -> None:
    """Build the models of resample_encode and of train."""
    Encoder(load_params("resample_encode", ResampleEncodeParams))
    build_model(BASE, ["x", "y"], load_params("train", TrainParams))


@pytest.mark.slow
@pytest.mark.parametrize("architecture", EACH_ARCHITECTURE)
@pytest.mark.parametrize(("values", "refusing"), REQUESTS, ids=[json.dumps(values) for values, _ in REQUESTS])
def test_check_refuses_what_the_stages_refuse(
    folder: Path, architecture: str, values: dict[str, Any], refusing: set[str]
) -> None:
    write_tiny_model(architecture, layers=2)
    set_params(folder, FOLDER | PLAIN | values)
    if architecture not in refusing:
        check_params("split")
        build_all()
        return
    found = problems(lambda: check_params("split"))
    [(key, message)] = found.items()
    error = user_error(build_all)
    assert (error.key, str(error)) == (key, message)
    assert str(key).startswith(tuple(values))


@pytest.mark.parametrize(
    ("model", "masks", "key"),
    [
        ({}, {}, None),
        ({"apply_spec_augment": True}, None, "train.spec_augment"),
        ({"apply_spec_augment": True, "mask_time_length": 9}, None, None),
        ({"apply_spec_augment": True, "mask_time_prob": 0}, None, None),
        ({}, {"mask_time_prob": 0.1, "mask_time_length": 9}, None),
        ({}, {"mask_time_prob": 0.1, "mask_time_length": 10}, "train.spec_augment.mask_time_length"),
        ({}, {"mask_time_prob": 0.0, "mask_time_length": 10}, None),
        ({"apply_spec_augment": True, "mask_time_length": 0}, None, "train.spec_augment"),
        ({"apply_spec_augment": True, "mask_time_length": 10**400}, None, "train.spec_augment"),
        ({"mask_time_length": float("inf")}, {}, None),
        (
            {"apply_spec_augment": True, "mask_time_length": float("nan"), "mask_time_prob": "x"},
            None,
            "train.spec_augment",
        ),
    ],
)
def test_masks_longer_than_a_window(
    folder: Path, model: dict[str, Any], masks: dict[str, Any] | None, key: str | None
) -> None:
    """A window of 0.2 s has 9 frames of the usual convolutions, and a mask has 10 by default."""
    write_tiny_model("wav2vec2")
    usual = {name: list(values) for name, values in CONVOLUTIONS.items()}
    change_config(**usual, conv_dim=[8] * 7, **model)
    params = FOLDER | PLAIN | {"train.window_seconds": 0.2}
    set_params(folder, params | ({"train.spec_augment": masks} if masks else {}))
    found = problems(lambda: check_params("split")) if key else check_params("split") or {}
    assert list(found) == ([key] if key else [])
    if key:
        assert " frames, but a window has 9" in found[key]
    if model.get("mask_time_length") not in (0, 10**400):
        set_params(folder, {"resample_encode.feature_extractor": {"sampling_rate": 24_000}})
        check_params("split")


def test_masks_longer_than_the_longest_clip(folder: Path) -> None:
    write_tiny_model("wav2vec2")
    change_config(**{name: list(values) for name, values in CONVOLUTIONS.items()}, conv_dim=[8] * 7)
    set_params(folder, FOLDER | PLAIN | {"train.spec_augment": {"mask_time_length": 50}})
    check_params("split")
    set_params(folder, {"resample_encode.max_seconds": 1})
    [(key, message)] = problems(lambda: check_params("split")).items()
    assert key == "train.spec_augment.mask_time_length"
    assert "50 frames, but the longest clip of a batch has 49; set 1 to 49" in message


def test_masks_of_the_base_model_longer_than_its_features(folder: Path) -> None:
    write_tiny_model("hubert")
    change_config(apply_spec_augment=True, mask_time_prob=0, mask_feature_prob=0.1, mask_feature_length=17)
    set_params(folder, FOLDER | PLAIN)
    [(key, message)] = problems(lambda: check_params("split")).items()
    assert (key, str(user_error(build_all))) == ("train.spec_augment", message)
    assert "17 channels, but the base model has 16" in message


def test_weighted_base_cannot_be_cached(folder: Path) -> None:
    write_tiny_model("hubert")
    change_config(use_weighted_layer_sum=True)
    set_params(folder, FOLDER | PLAIN | {"resample_encode.cache": "base"})
    assert list(problems(lambda: check_params("split"))) == ["resample_encode.cache"]
    assert user_error(build_all).key == "resample_encode.cache"
    set_params(folder, {"resample_encode.cache": "layers"})
    check_params("split")
    build_all()


def test_layers_of_sew_cannot_be_cached(folder: Path) -> None:
    write_tiny_model("hubert")
    change_config(model_type="sew")
    set_params(folder, FOLDER | PLAIN | {"resample_encode.cache": "layers"})
    assert list(problems(lambda: check_params("check"))) == ["resample_encode.cache"]


def test_windows_of_evaluate(folder: Path) -> None:
    write_tiny_model("whisper")
    set_params(folder, FOLDER | PLAIN | {"evaluate.window_seconds": 1})
    assert list(problems(lambda: check_params("split"))) == ["evaluate.window_seconds"]


def test_random_weights(folder: Path) -> None:
    """Keys that the config does not set have the defaults of HuBERT."""
    set_params(folder, {"train.layers": TINY_CONFIG["num_hidden_layers"]})
    check_params("check")
    set_params(folder, {"train.layers": 13})
    assert "has 1 layers" in problems(lambda: check_params("check"))["train.layers"]
    set_params(folder, {"download.model": {"source": "random_weights", "config": {}}})
    assert "has 12 layers" in problems(lambda: check_params("check"))["train.layers"]


def test_changed_config_of_a_folder(folder: Path) -> None:
    write_tiny_model("hubert", layers=3)
    change = {"num_hidden_layers": 2, "model_type": "wavlm"}
    set_params(folder, {"download.model": FOLDER["download.model"] | {"config": change}})
    set_params(folder, PLAIN | {"train.layers": 3, "train.lora": {"target_modules": ["q_proj"]}})
    set_params(folder, {"train.freeze": "none"})
    found = problems(lambda: check_params("check"))
    assert set(found) == {"train.layers", "train.lora.target_modules"}
    assert "a wavlm model has no layer q_proj" in found["train.lora.target_modules"]


@pytest.mark.parametrize("stage", ["check", "split", "resample_encode"])
def test_model_of_the_hub_is_known_after_its_download(folder: Path, stage: str) -> None:
    source = {"source": "hub", "id": "owner/name"}
    set_params(folder, PLAIN | {"download.model": source, "train.freeze": "feature_encoder"})
    check_params(stage)
    write_tiny_model("ast")
    check_params(stage)  # it may be another model
    for recorded in ({**source, "revision": "v1"}, source):
        lock = {"stages": {"download@model": {"params": {"params.yaml": {"download.model": recorded}}}}}
        Path("dvc.lock").write_text(yaml.safe_dump(lock))
        if recorded == source:
            assert list(problems(lambda: check_params(stage))) == ["train.freeze"]
        else:
            check_params(stage)


@pytest.mark.rare
def test_model_of_the_hub_in_the_pipeline(hub: LocalHub, tmp_path: Path) -> None:
    """DVC records the download before the next stage starts, so that stage refuses, and nothing is encoded."""
    hub.commit("model", DISTILHUBERT, checkpoint(tmp_path / "made", old=False))
    workspace = make_workspace(tmp_path / "project")
    set_params(workspace, {"download.model": {"source": "hub", "id": DISTILHUBERT}, "train.layers": 3})
    git(workspace, "commit", "-qam", "Use a model of the Hub")
    output = dvc(workspace, "repro", "train", env=hub.env(workspace / ".home", None), check=False)
    assert output.count("train.layers: 3, but the base model has 2 layers") == 1
    assert (workspace / BASE / "config.json").is_file()
    assert not (workspace / "data/encoded").exists()
    set_params(workspace, {"train.layers": 2})
    output = dvc(workspace, "repro", "split", env=hub.env(workspace / ".home", None))
    assert "Running stage 'split'" in output
    assert "Running stage 'download" not in output


def test_a_key_has_one_problem(folder: Path) -> None:
    write_tiny_model("whisper")
    set_params(folder, FOLDER | PLAIN | {"resample_encode.cache": "base", "train.spec_augment": {}})
    error = user_error(lambda: check_params("check"))
    assert str(error).count("train.spec_augment") == 1


@pytest.mark.parametrize("content", [{}, {"model_type": "mimi"}, {"model_type": ["hubert"]}, []])
def test_unknown_model_is_left_to_download(folder: Path, content: Any) -> None:
    BASE.mkdir(parents=True)
    (BASE / "config.json").write_text(json.dumps(content))
    set_params(folder, FOLDER | {"train.spec_augment": {}, "train.layers": 99, "train.lora": {}})
    check_params("check")


def test_unknown_model_has_only_what_all_have() -> None:
    def find(**params: Any) -> list[str | None]:
        return [error.key for error in TrainParams(**params).find_unsupported({"model_type": "mimi"})]

    assert find(layers=2, lora={}, dropout=0.1, freeze="base", window_seconds=1) == []
    assert find(layers="weighted", spec_augment={}) == ["train.layers", "train.spec_augment"]
