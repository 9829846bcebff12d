from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import epoch_losses, finetuned_weights, set_params, write_tiny_model
from transformers import (
    AutoFeatureExtractor,
    AutoModel,
    AutoModelForAudioClassification,
)

from stages.common.audio import load_audio
from stages.common.paths import BASE, FINETUNED, PREDICTIONS, RAW
from stages.common.tables import read_table
from stages.evaluate.__main__ import main as evaluate
from stages.resample_encode.__main__ import main as resample_encode
from stages.train.__main__ import main as train

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
@pytest.mark.parametrize("architecture", ["hubert", "whisper"])
def test_model_of_cached_base(copied: Path, architecture: str) -> None:
    """The saved model has the base that training did not run, and a trained head."""
    if architecture == "whisper":
        write_tiny_model(architecture)
        set_params(copied, {"resample_encode.feature_extractor": {}})
    set_params(copied, {"resample_encode.cache": "base", "train.freeze": "base"})
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
