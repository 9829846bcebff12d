import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from helpers import (
    ARCHITECTURES,
    TINY_CONFIG,
    change_config,
    finetuned_weights,
    set_params,
    user_error,
    write_tiny_model,
)
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForAudioClassification,
    PreTrainedModel,
    Wav2Vec2ConformerConfig,
    Wav2Vec2ConformerModel,
    pipeline,
)

from stages.common.audio import load_audio
from stages.common.paths import BASE, FINETUNED, PREDICTIONS, RAW
from stages.common.tables import read_json
from stages.evaluate.__main__ import main as evaluate
from stages.train.__main__ import main
from stages.train.model import build_model, set_head_learning_rate
from stages.train.params import TrainParams


def build(base: Path, **params: object) -> PreTrainedModel:
    return build_model(base, ["x", "y"], TrainParams(**params))


@pytest.mark.slow
def test_dropout_set_in_config(finished: Path) -> None:
    config = build(finished / BASE, dropout=0.35).config
    assert config.hidden_dropout == config.feat_proj_dropout == 0.35
    assert config.attention_dropout == 0.1


@pytest.mark.slow
def test_attention_dropout_set_in_config(finished: Path) -> None:
    assert build(finished / BASE, attention_dropout=0.25).config.attention_dropout == 0.25


@pytest.mark.slow
def test_label_names_set_in_config(finished: Path) -> None:
    config = build(finished / BASE).config
    assert config.id2label == {0: "x", 1: "y"}
    assert config.label2id == {"x": 0, "y": 1}


@pytest.mark.slow
@pytest.mark.parametrize(
    "leftover",
    [
        {"problem_type": "multi_label_classification", "output_hidden_states": True, "output_attentions": True},
        {
            **{"problem_type": "regression", "return_dict": False, "dtype": "float16", "answer": {"temperature": 9.0}},
            "task_specific_params": {"audio-classification": {"problem_type": "regression"}},
            "id2label": {"0": "only"},
            "label2id": {"only": 0},
        },
    ],
    ids=lambda leftover: leftover["problem_type"],
)
def test_leftovers_in_the_config_do_not_change_the_predictions(copied: Path, leftover: dict[str, Any]) -> None:
    """pipeline() gives what evaluate measured."""
    change_config(**leftover)
    set_params(copied, {"train.epochs": 1})
    main()
    assert "answer" not in read_json(FINETUNED / "config.json")
    evaluate()
    table = pd.read_csv(PREDICTIONS)
    classify = pipeline("audio-classification", model=str(FINETUNED), top_k=None)
    row = table.iloc[0]
    found = {
        item["label"]: item["score"]
        for item in classify(load_audio(RAW / f"audio/{row['label']}/{row['clip']}.wav", 16_000))
    }
    assert found == pytest.approx(row[list(found)].to_dict(), abs=5e-4)


@pytest.mark.slow
def test_head_for_other_labels_replaced(copied: Path) -> None:
    main()
    shutil.rmtree(BASE)
    FINETUNED.rename(BASE)
    change_config(id2label={0: "x", 1: "y"}, label2id={"x": 0, "y": 1})
    weights = load_file(BASE / "model.safetensors")
    for name in ("classifier.weight", "classifier.bias"):
        weights[name] = weights[name][:2].clone()
    save_file(weights, BASE / "model.safetensors", {"format": "pt"})
    main()
    assert AutoModelForAudioClassification.from_pretrained(FINETUNED).config.num_labels == 10


@pytest.mark.slow
def test_frozen_feature_encoder_unchanged(copied: Path) -> None:
    set_params(copied, {"train.freeze": "feature_encoder"})
    main()
    before = AutoModelForAudioClassification.from_pretrained(BASE).state_dict()
    after = {name: tensor for name, tensor in finetuned_weights().items() if "hubert" in name}
    unchanged = {name for name, tensor in after.items() if torch.equal(before[name], tensor)}
    frozen = {name for name in after if "feature_extractor" in name}
    assert frozen
    assert frozen <= unchanged
    assert unchanged < set(after)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_head_has_its_learning_rate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, architecture: str) -> None:
    """Each weight is in one group, with the weight decay that the Trainer gave it."""
    monkeypatch.chdir(tmp_path)
    write_tiny_model(architecture)
    model = build(BASE)
    names = {weight: name for name, weight in model.named_parameters()}
    groups = [
        {"params": [weight for weight, name in names.items() if name.endswith("bias") == bias], "weight_decay": decay}
        for bias, decay in ((False, 0.1), (True, 0.0))
    ]
    optimizer = torch.optim.AdamW(groups, lr=1e-5)
    set_head_learning_rate(optimizer, model, 1e-3)
    found = {
        names[weight]: (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for weight in group["params"]
    }
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(found) == len(names)
    heads = [name for name in found if name.startswith(("classifier", "projector"))]
    assert len(heads) == 4
    assert found == {
        name: (1e-3 if name in heads else 1e-5, 0.0 if name.endswith("bias") else 0.1) for name in names.values()
    }
    assert optimizer.param_groups[0]["lr"] == 1e-5


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_model_is_cut_after_a_layer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, architecture: str) -> None:
    """The last hidden state of the cut model is that layer's in the complete model, but for a norm after all layers."""
    monkeypatch.chdir(tmp_path)
    write_tiny_model(architecture, layers=3)
    inputs = {"whisper": (1, 8, 200), "ast": (1, 64, 16)}.get(architecture, (1, 8000))
    samples = torch.rand(inputs)
    complete, cut = (build(BASE, layers=layers).eval() for layers in (3, 2))
    assert cut.config.num_hidden_layers == 2
    cut.save_pretrained(tmp_path / "saved")
    cut = AutoModelForAudioClassification.from_pretrained(tmp_path / "saved").eval()
    blocks = [
        next(part for name, part in model.named_modules() if name.endswith(".layers")) for model in (complete, cut)
    ]
    assert [len(block) for block in blocks] == [3, 2]  # type: ignore[arg-type]
    seen: list[torch.Tensor] = []
    for block in blocks:
        block[1].register_forward_hook(  # type: ignore[index]
            lambda module, args, output: seen.append(output if torch.is_tensor(output) else output[0])
        )
    with torch.no_grad():
        complete(samples)
        cut(samples)
    torch.testing.assert_close(*seen)
    error = user_error(lambda: build(BASE, layers=4))
    assert error.key == "train.layers"
    assert "the base model has 3 layers" in str(error)


@pytest.mark.parametrize("architecture", ["wav2vec2", "hubert", "wavlm", "whisper"])
def test_weighted_sum_is_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, architecture: str) -> None:
    """It starts as the mean of all layers, and its weights get a gradient, also if the base model is frozen."""
    monkeypatch.chdir(tmp_path)
    write_tiny_model(architecture, layers=2)
    model = build(BASE, layers="weighted", freeze="base").eval()
    samples = torch.rand((2, 8, 200) if architecture == "whisper" else (2, 8000))
    base = model.encoder if architecture == "whisper" else model.base_model
    with torch.no_grad():
        states = torch.stack(base(samples, output_hidden_states=True).hidden_states)
        expected = model.classifier(model.projector(states.mean(0)).mean(1))
    logits = model(samples).logits
    torch.testing.assert_close(logits, expected)
    logits[:, 0].sum().backward()
    assert model.layer_weights.grad.abs().min() > 0
    assert not build(BASE, layers="last").config.use_weighted_layer_sum


@pytest.mark.parametrize("names", [["nothing"], ["q_proj"]], ids=lambda names: names[0])
def test_layers_without_adapters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: list[str]) -> None:
    """WavLM's attention would not use the adapters of its layers."""
    monkeypatch.chdir(tmp_path)
    write_tiny_model("wavlm")
    error = user_error(lambda: build(BASE, lora={"target_modules": names}))
    assert error.key == "train.lora.target_modules"
    assert "intermediate_dense" in str(error)


def test_lora_needs_names_for_other_architectures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Wav2Vec2ConformerModel(Wav2Vec2ConformerConfig(**TINY_CONFIG)).save_pretrained(BASE)
    error = user_error(lambda: build(BASE, lora={}))
    assert error.key == "train.lora.target_modules"
    assert "linear_q" in str(error)
    assert any("lora_A" in name for name, _ in build(BASE, lora={"target_modules": ["linear_q"]}).named_parameters())
