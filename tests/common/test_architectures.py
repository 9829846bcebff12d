from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import TINY_CONFIG, change_config, epoch_losses, finetuned_weights, set_params, write_tiny_model
from transformers import CONFIG_MAPPING, AutoFeatureExtractor, AutoModel, AutoModelForAudioClassification

from stages.common.architectures import use_cached_part
from stages.common.audio import load_audio
from stages.common.configs import load_config
from stages.common.model_types import MODEL_TYPES
from stages.common.paths import BASE, CLIPS, FINETUNED, PREDICTIONS, RAW
from stages.common.tables import read_table
from stages.evaluate.__main__ import main as evaluate
from stages.resample_encode.__main__ import main as resample_encode
from stages.resample_encode.model_part import load_part
from stages.train.__main__ import main as train
from stages.train.model import build_model
from stages.train.params import TrainParams
from tools.audit.probabilities import embed_clips

# Of probabilities. The cache in float16 changed them by 2e-6; those of a model that has learned little vary by 2e-3.
TOLERANCE = 2e-5


def check_predictions() -> None:
    """Compare predictions.csv, made from the cache, with the checkpoint's predictions of the audio files."""
    table = read_table(PREDICTIONS).set_index("clip")
    model = AutoModelForAudioClassification.from_pretrained(FINETUNED).eval()
    extractor = AutoFeatureExtractor.from_pretrained(FINETUNED)
    for clip, row in table.iterrows():
        samples = load_audio(RAW / f"audio/{row['label']}/{clip}.wav", 16_000)
        inputs = extractor(samples, sampling_rate=16_000, return_tensors="pt")
        with torch.no_grad():
            prediction = model(inputs[extractor.model_input_names[0]]).logits[0].softmax(-1)
        np.testing.assert_allclose(prediction, row[list(model.config.label2id)].astype(float), atol=TOLERANCE)


@pytest.mark.slow
def test_model_of_cached_feature_encoder(copied: Path) -> None:
    """The saved model has the feature encoder that training did not run."""
    set_params(copied, {"resample_encode.cache": "feature_encoder", "train.freeze": "feature_encoder"})
    resample_encode()
    train()
    evaluate()
    feature_encoder = AutoModel.from_pretrained(BASE).feature_extractor
    model = AutoModelForAudioClassification.from_pretrained(FINETUNED)
    for name, tensor in feature_encoder.state_dict().items():
        assert torch.equal(model.hubert.feature_extractor.state_dict()[name], tensor)
    check_predictions()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("architecture", "cache", "layers"),
    [
        ("hubert", "base", None),
        pytest.param("whisper", "base", None, marks=pytest.mark.rare),
        pytest.param("hubert", "layers", "weighted", marks=pytest.mark.rare),
        ("whisper", "layers", 1),
    ],
)
def test_model_of_cached_base(copied: Path, architecture: str, cache: str, layers: object) -> None:
    """The saved model has the base that training did not run, and a trained head."""
    write_tiny_model(architecture, layers=2)
    if architecture == "whisper":
        set_params(copied, {"resample_encode.feature_extractor": {}})
    set_params(copied, {"resample_encode.cache": cache, "train.freeze": "base", "train.layers": layers})
    set_params(copied, {"train.window_seconds": None, "train.dropout": None, "train.attention_dropout": 0.0})
    resample_encode()
    train()
    evaluate()
    check_predictions()
    before = AutoModel.from_pretrained(BASE).state_dict()
    after = {name.removeprefix("hubert."): tensor for name, tensor in finetuned_weights().items()}
    shared = [name for name in after if name in before]
    assert len(shared) > 10
    assert all(torch.equal(after[name], before[name]) for name in shared)
    assert epoch_losses()[-1, 0] < epoch_losses()[0, 0]


@pytest.mark.slow
@pytest.mark.parametrize("layers", ["weighted", pytest.param(1, marks=pytest.mark.rare)])
def test_training_with_cached_layers(copied: Path, layers: object) -> None:
    """Losses, weights and the audit's embeddings are those of the frozen base model without the cache."""
    write_tiny_model("hubert", layers=2)
    change_config(activation_dropout=0.0, do_stable_layer_norm=True)
    set_params(copied, {"train.freeze": "base", "train.layers": layers, "train.learning_rate": 0.03})
    set_params(copied, {"train.window_seconds": None, "train.dropout": 0.0, "train.attention_dropout": 0.0})
    found = []
    for cache in ("input", "layers"):
        set_params(copied, {"resample_encode.cache": cache})
        resample_encode()
        train()
        found.append((epoch_losses(), finetuned_weights(), embed_clips(read_table(CLIPS))))
    (losses, weights, embeddings), (cached_losses, cached_weights, cached_embeddings) = found
    np.testing.assert_allclose(cached_losses, losses, atol=1e-3)
    np.testing.assert_allclose(cached_embeddings, embeddings, atol=2e-3)
    if layers == "weighted":
        assert np.ptp(weights["layer_weights"].numpy()) > 0.01
        torch.testing.assert_close(cached_weights["layer_weights"], weights["layer_weights"], rtol=0, atol=1e-3)


def write_base(kind: str, stable: bool) -> np.ndarray:
    """Write a tiny base model of three layers, whose norms are not at their start; return the features of a clip."""
    if kind == "whisper":
        write_tiny_model(kind, layers=3)
    else:
        sizes = TINY_CONFIG | {"num_hidden_layers": 3} | ({"do_stable_layer_norm": True} if stable else {})
        AutoModel.from_config(CONFIG_MAPPING[kind](**sizes)).save_pretrained(BASE)
    model = AutoModel.from_pretrained(BASE)
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.3 * torch.randn_like(weight)
    model.save_pretrained(BASE)
    shape = {"whisper": (8, 200), "wav2vec2-bert": (40, 160)}.get(kind, (8000,))
    return torch.randn(shape).numpy()


STABLE = ("hubert", "unispeech", "unispeech-sat", "wav2vec2", "wavlm")
KINDS = [(kind, False) for kind, model in MODEL_TYPES.items() if {"projector", "same_frames"} <= model.has]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "stable"), [*KINDS, *((kind, True) for kind in STABLE)])
def test_cached_layers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, stable: bool) -> None:
    """The head gets what the complete, the weighted and the cut model would give it."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    features = write_base(kind, stable)
    cached = torch.from_numpy(load_part(BASE, load_config(BASE), "layers", "fp32", 1)(features))
    found = []
    for layers in ("last", "weighted", 1, 2):
        torch.manual_seed(0)
        model = build_model(BASE, ["x", "y"], TrainParams(layers=layers, freeze="base")).eval()
        with torch.no_grad():
            model.classifier.weight *= 100
            if layers == "weighted":
                model.layer_weights += torch.arange(4.0)
            found.append(model(torch.from_numpy(features)[None]).logits)
            with use_cached_part(model, "layers"):
                logits = model(cached[None]).logits
        torch.testing.assert_close(logits, found[-1], rtol=1e-3, atol=1e-4)
    # The same head has other logits for another choice.
    assert all((one - other).abs().max() > 1e-2 for one, other in combinations(found, 2))
