from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import ValidationError

from stages.resample_encode.params import ResampleEncodeParams
from stages.train.params import TrainParams, has_nvidia_gpu


def conflicts(params: TrainParams, **encode: object) -> list[str | None]:
    """Return the keys of the conflicts with a section resample_encode."""
    return [
        error.key
        for error in params.find_conflicts(
            {"resample_encode": ResampleEncodeParams(**{"max_seconds": 30, "segments": False} | encode)}
        )
    ]


@pytest.mark.parametrize(("window", "keys"), [(None, []), (2.0, []), (2.1, ["train.window_seconds"])])
def test_window_longer_than_max_seconds(window: float | None, keys: list[str]) -> None:
    assert conflicts(TrainParams(window_seconds=window), max_seconds=2) == keys


def test_window_conflict_has_both_numbers() -> None:
    sections = {"resample_encode": ResampleEncodeParams(max_seconds=2, segments=False)}
    (error,) = TrainParams(window_seconds=2.5).find_conflicts(sections)
    assert "2.5" in str(error)
    assert "max_seconds: 2" in str(error)


@pytest.mark.parametrize(
    ("cache", "freeze", "keys"),
    [
        ("input", "none", []),
        ("input", "feature_encoder", []),
        ("input", "base", []),
        ("feature_encoder", "none", ["train.freeze"]),
        ("feature_encoder", "feature_encoder", []),
        ("feature_encoder", "base", []),
        ("base", "none", ["train.freeze"]),
        ("base", "feature_encoder", ["train.freeze"]),
        ("base", "base", []),
        ("layers", "none", ["train.freeze"]),
        ("layers", "feature_encoder", ["train.freeze"]),
        ("layers", "base", []),
    ],
)
def test_cached_part_must_be_frozen(cache: str, freeze: str, keys: list[str]) -> None:
    assert conflicts(TrainParams(freeze=freeze), cache=cache) == keys


@pytest.mark.parametrize("cache", ["base", "layers"])
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("window_seconds", 0.5),
        ("dropout", 0.5),
        ("attention_dropout", 0.1),
        ("spec_augment", {"mask_time_prob": 0.1}),
    ],
)
def test_what_cached_base_excludes(cache: str, key: str, value: object) -> None:
    params = TrainParams(freeze="base", **{key: value})
    assert conflicts(params, cache=cache) == [f"train.{key}"]
    assert conflicts(params, cache="feature_encoder") == []


@pytest.mark.parametrize("layers", ["weighted", "last", 1])
def test_choice_of_layers_needs_all_of_them(layers: object) -> None:
    params = TrainParams(freeze="base", layers=layers)
    assert conflicts(params, cache="base") == ["train.layers"]
    assert conflicts(params, cache="layers") == []


def test_cached_base_allows_zero_dropout() -> None:
    assert conflicts(TrainParams(freeze="base", dropout=0.0, attention_dropout=0.0), cache="base") == []


@pytest.mark.parametrize("cache", ["feature_encoder", "base", "layers"])
def test_augment_changes_the_input(cache: str) -> None:
    assert conflicts(TrainParams(freeze="base", augment={"polarity": True}), cache=cache) == ["train.augment"]
    assert conflicts(TrainParams(freeze="base", augment={"polarity": True})) == []


@pytest.mark.parametrize(
    ("params", "key"),
    [
        ({"class_weights": "balanced", "sampler": "balanced"}, "class_weights"),
        ({"average_epochs": 3, "early_stopping": 2}, "average_epochs"),
        ({"average_epochs": 3, "epochs": 2}, "average_epochs"),
        ({"average_epochs": 3, "lora": {}}, "average_epochs"),
        ({"freeze": "base", "lora": {}}, "lora"),
    ],
)
def test_contradictions_of_recipes(params: dict[str, Any], key: str) -> None:
    assert conflicts(TrainParams(**params)) == [f"train.{key}"]


@pytest.mark.parametrize(("normalize", "keys"), [(True, ["train.augment.gain"]), (False, [])])
def test_gain_of_normalised_clips(normalize: bool, keys: list[str]) -> None:
    params = TrainParams(augment={"gain": [-6, 6]})
    assert conflicts(params, feature_extractor={"do_normalize": normalize}) == keys


@pytest.mark.parametrize("span", [[3, 1], [1], [1, 2, 3], 4])
def test_span_with_two_ends(span: object) -> None:
    with pytest.raises(ValidationError):
        TrainParams(augment={"noise": span})


def test_all_conflicts_are_found() -> None:
    params = TrainParams(window_seconds=31, freeze="none", dropout=0.5)
    expected = ["train.window_seconds", "train.freeze", "train.window_seconds", "train.dropout"]
    assert conflicts(params, max_seconds=30, cache="base") == expected


def test_invalid_resample_encode_is_skipped() -> None:
    """A section with mistakes is not among the sections."""
    assert list(TrainParams(window_seconds=100).find_conflicts({})) == []


@pytest.mark.skipif(has_nvidia_gpu(), reason="this machine has a GPU")
def test_fp16_without_gpu_is_obstacle() -> None:
    assert [error.key for error in TrainParams(precision="fp16").find_obstacles()] == ["train.precision"]


@pytest.mark.parametrize("precision", ["auto", "fp32", "bf16"])
def test_other_precisions_need_no_gpu(precision: str) -> None:
    assert list(TrainParams(precision=precision).find_obstacles()) == []


def test_lora_needs_peft(monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(TrainParams(lora={}).find_obstacles()) == []
    monkeypatch.setattr("stages.train.params.find_spec", {}.get)
    (error,) = TrainParams(lora={}).find_obstacles()
    assert error.key == "train.lora"


@pytest.mark.parametrize("wandb", [None, SimpleNamespace(origin=None)], ids=["nothing", "only its folder of logs"])
def test_tracker_that_is_not_installed(wandb: object, monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"wandb": wandb, "mlflow": SimpleNamespace(origin="mlflow/__init__.py")}
    monkeypatch.setattr("stages.train.params.find_spec", found.get)
    (error,) = TrainParams(report_to=["mlflow", "wandb"]).find_obstacles()
    assert error.key == "train.report_to"
    assert "pip install --constraint constraints.txt wandb" in str(error)
