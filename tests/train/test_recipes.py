"""Recipes that are off by default: together, on each architecture."""

from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import EACH_ARCHITECTURE, set_params, user_error, write_tiny_model
from transformers import AutoModelForAudioClassification

from stages.common.encoded_clips import open_encoded_clips, select_split
from stages.common.params import load_params
from stages.common.paths import BASE, ENCODED, EPOCHS, FINETUNED, METRICS, REPORT, SPLITS, TRAINING
from stages.common.tables import read_epochs, read_json, read_table, write_json
from stages.evaluate.__main__ import main as evaluate
from stages.resample_encode.__main__ import main as resample_encode
from stages.train.__main__ import main, summarize, warn_of_low_learning_rate
from stages.train.limits import ATTENTION
from stages.train.loss import compute_metrics, score
from stages.train.params import TrainParams

SPECTROGRAMS = ("ast", "whisper")
RECIPES = {
    "train.class_weights": "balanced",
    "train.select_by": "macro_f1",
    "train.average_epochs": 2,
    "train.lr_scheduler_type": "cosine",
    "train.head_learning_rate": 0.01,
}
SAMPLES = {"mixup": 0.4, "polarity": True, "time_shift": 0.2, "noise": [10, 40]}


def predict_validation(model: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the label ids of the validation clips, and those that the model predicts."""
    clips = select_split(open_encoded_clips(ENCODED), read_table(SPLITS), "validation")
    with torch.no_grad():
        inputs = torch.stack([torch.tensor(clips.features[index]).float() for index in range(len(clips.labels))])
        return clips.labels, model(inputs).logits.argmax(1).numpy()


@pytest.mark.slow
@pytest.mark.parametrize("architecture", EACH_ARCHITECTURE)
def test_recipes_on_each_architecture(copied: Path, architecture: str) -> None:
    write_tiny_model(architecture)
    spectrograms = architecture in SPECTROGRAMS
    set_params(copied, RECIPES | {"train.augment": SAMPLES})
    set_params(copied, {"resample_encode.feature_extractor": {}, "train.window_seconds": None if spectrograms else 0.5})
    resample_encode()
    if spectrograms:
        assert user_error(main).key == "train.augment.polarity"
        set_params(copied, {"train.augment": {"mixup": 0.4}})
    before = AutoModelForAudioClassification.from_pretrained(BASE).state_dict()
    main()
    trained = AutoModelForAudioClassification.from_pretrained(FINETUNED).eval()
    changed = [name for name, weight in trained.state_dict().items() if not torch.equal(weight, before[name])]
    assert [name for name in changed if "layers" in name or "layer." in name]
    labels, predicted = predict_validation(trained)
    epochs, training = read_epochs(EPOCHS), read_json(TRAINING)
    found = score("macro_f1", labels, predicted)
    assert training["train"]["select_by"] == "macro_f1"
    if "averaged_epochs" in training:
        assert training["averaged_epochs"] == [2, 3]
        assert found >= epochs["eval_macro_f1"].max()
        assert np.mean(predicted == labels) == pytest.approx(training["selection_accuracy"])
    else:
        assert found == pytest.approx(epochs["eval_macro_f1"].max(), abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", EACH_ARCHITECTURE)
def test_lora_and_layers_on_each_architecture(
    copied: Path, capsys: pytest.CaptureFixture[str], architecture: str
) -> None:
    """The saved model is a plain one, in which only the adapted layers and the head differ from the base model."""
    write_tiny_model(architecture)
    lora = {"r": 2, "lora_alpha": 8}
    set_params(copied, {"train.lora": lora, "train.layers": "weighted", "train.learning_rate": 0.01})
    set_params(copied, {"resample_encode.feature_extractor": {}, "train.window_seconds": None, "train.epochs": 2})
    resample_encode()
    if architecture == "ast":
        assert user_error(main).key == "train.layers"
        set_params(copied, {"train.layers": "last"})
    before = AutoModelForAudioClassification.from_pretrained(BASE).state_dict()
    main()
    printed = capsys.readouterr().out
    model, loaded = AutoModelForAudioClassification.from_pretrained(FINETUNED, output_loading_info=True)
    assert not any(loaded.values())
    after = model.state_dict()
    assert ("layer_weights" in after) == (architecture != "ast")
    weights = read_json(TRAINING).get("layer_weights", [])
    assert weights == pytest.approx(
        after["layer_weights"].softmax(0).tolist() if "layer_weights" in after else [], abs=1e-4
    )
    assert ("weights of the layers" in printed) == bool(weights)
    differ = {name.removesuffix(".weight") for name in before if not torch.equal(before[name], after[name])}
    adapted = {name for name in differ if not name.startswith(("classifier", "projector"))}
    ends = ("intermediate_dense", "output_dense") if architecture == "wavlm" else ATTENTION
    if architecture == "ast":
        ends = ("v_proj", "o_proj")  # its first two tokens start as zeros, so queries and keys have no gradient
    expected = {name.removesuffix(".weight") for name in before if name.removesuffix(".weight").endswith(ends)}
    assert adapted == {name for name in expected if not name.startswith(("classifier", "projector"))}
    labels, predicted = predict_validation(model.eval())
    epochs = read_epochs(EPOCHS)
    assert np.mean(labels == predicted) == pytest.approx(epochs["eval_accuracy"].max(), abs=1e-6)


@pytest.mark.slow
def test_mean_of_epochs_is_measured_and_named(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each evaluation counts as better than those before it; the mean of weights is evaluated last."""
    numbers = count()

    def measure(*args: Any, **kwargs: Any) -> dict[str, float]:
        return compute_metrics(*args, **kwargs) | {"rank": next(numbers)}

    monkeypatch.setattr("stages.train.training.compute_metrics", measure)
    set_params(copied, {"train.epochs": 6, "train.average_epochs": 4, "train.select_by": "balanced_accuracy"})
    main()
    training = read_json(TRAINING)
    assert training["averaged_epochs"] == [3, 4, 5, 6]
    labels, predicted = predict_validation(AutoModelForAudioClassification.from_pretrained(FINETUNED).eval())
    assert np.mean(labels == predicted) == pytest.approx(training["selection_accuracy"])
    assert len(read_epochs(EPOCHS)) == 6
    evaluate()
    assert read_json(METRICS)["selection_accuracy"] == pytest.approx(training["selection_accuracy"])
    text = REPORT.read_text()
    assert "Grey band: epochs 3 to 6." in text
    assert "its balanced accuracy on the validation clips" in text
    content = read_json(TRAINING)
    del content["averaged_epochs"], content["selection_accuracy"]
    write_json(TRAINING, content)
    evaluate()
    assert "with the highest balanced accuracy on the validation clips" in REPORT.read_text()


@pytest.mark.parametrize(
    ("averaged", "expected"),
    [
        ([2, 3], "mean of epochs 2 to 3, validation accuracy 0.500"),
        (None, "best epoch 3, validation accuracy 0.500; the mean of the last 2 epochs is not better"),
    ],
)
def test_the_better_of_epoch_and_mean_is_printed(workspace: Path, averaged: list[int] | None, expected: str) -> None:
    set_params(workspace, {"train.average_epochs": 2})
    best = {"epoch": 3.0, "eval_accuracy": 0.5, "averaged_epochs": averaged}
    assert summarize(load_params("train", TrainParams), "validation", best) == expected


@pytest.mark.parametrize(
    ("source", "rate", "warned"),
    [
        ({"source": "random_weights"}, 1e-4, True),
        ({"source": "folder", "random_weights": True}, 5e-5, True),
        ({"source": "random_weights"}, 3e-3, False),
        ({"source": "folder"}, 5e-5, False),
        ({}, 5e-5, False),
    ],
)
def test_random_weights_need_a_higher_rate(
    source: dict[str, object], rate: float, warned: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    warn_of_low_learning_rate(source, rate)
    assert ("warning: the base model has random weights" in capsys.readouterr().out) == warned
