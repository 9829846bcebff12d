"""Predictions in a finished pipeline."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import memory_for, set_params, user_error
from safetensors.torch import load_file, save_file
from transformers import AutoModelForAudioClassification

from stages.common.encoded_clips import open_encoded_clips, select_split
from stages.common.paths import ENCODED, FINETUNED, METRICS, PREDICTIONS, SPLITS
from stages.common.tables import read_json, read_table, write_json
from stages.common.windows import ClipDataset, cut_windows
from stages.evaluate.__main__ import main
from stages.evaluate.prediction import Predictions


def test_table_of_predictions() -> None:
    probabilities = np.array([[0.1, 0.9], [2 / 3, 1 / 3]])
    predictions = Predictions(["001", "NA"], ["x", "y"], np.array([0, 0]), probabilities, None)
    assert predictions.predicted.tolist() == [1, 0]
    table = predictions.to_table()
    assert list(table.columns) == ["clip", "label", "prediction", "x", "y"]
    assert table.to_numpy().tolist() == [["001", "x", "y", 0.1, 0.9], ["NA", "x", "x", 0.666667, 0.333333]]


@pytest.mark.slow
def test_windows_are_averaged(copied: Path) -> None:
    complete = pd.read_csv(PREDICTIONS)
    set_params(copied, {"evaluate.window_seconds": 0.3, "evaluate.calibrate": True})
    main()
    table = pd.read_csv(PREDICTIONS)
    assert table["clip"].tolist() == complete["clip"].tolist()
    probabilities = table[table.columns[3:]].to_numpy()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, atol=1e-4)
    encoded = open_encoded_clips(ENCODED)
    clips = ClipDataset(select_split(encoded, read_table(SPLITS), "test"))
    model = AutoModelForAudioClassification.from_pretrained(FINETUNED).eval()
    temperature = read_json(METRICS)["answer"]["temperature"]
    assert temperature != 1
    correct = []
    for row in range(len(clips)):
        features, label = clips[row]
        windows = [torch.tensor(window)[None] for window in cut_windows(features, 4800)]
        assert len(windows) == 4
        with torch.no_grad():
            logits = torch.cat([model(window).logits for window in windows])
        np.testing.assert_allclose(probabilities[row], (logits / temperature).softmax(-1).mean(dim=0), atol=1e-5)
        correct += (logits.argmax(-1) == label).tolist()
    assert read_json(METRICS)["window_accuracy"] == pytest.approx(np.mean(correct), abs=1e-6)


@pytest.mark.slow
def test_devices_share_the_windows(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two devices, here twice the CPU, predict the same as one."""
    set_params(copied, {"evaluate.window_seconds": 0.3})
    found = []
    for devices in (["cpu"], ["cpu", "cpu"]):
        monkeypatch.setattr("stages.evaluate.prediction.find_devices", lambda devices=devices: devices)
        main()
        found.append(PREDICTIONS.read_bytes())
    assert found[1] == found[0]


@pytest.mark.slow
def test_single_label_is_refused(copied: Path) -> None:
    path = ENCODED / "dataset_info.json"
    info = read_json(path)
    info["features"]["label"]["names"] = ["blues"]
    write_json(path, info)
    error = user_error(main)
    assert error.file == str(ENCODED)
    assert "blues" in str(error)


@pytest.mark.slow
def test_out_of_memory_halves_batch(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    set_params(copied, {"evaluate.batch_size": 8})
    main()
    expected = pd.read_csv(PREDICTIONS)
    with memory_for(clips=3):
        main()
    assert "batches of 2" in capsys.readouterr().out
    pd.testing.assert_frame_equal(pd.read_csv(PREDICTIONS), expected, atol=1e-5)
    with memory_for(clips=0):
        assert user_error(main).key == "evaluate.window_seconds"


@pytest.mark.slow
def test_nan_predictions_are_refused(copied: Path) -> None:
    path = FINETUNED / "model.safetensors"
    weights = load_file(path)
    save_file(weights | {"classifier.bias": weights["classifier.bias"] * torch.nan}, path, {"format": "pt"})
    error = user_error(main)
    assert error.file == str(FINETUNED)
    assert "train.learning_rate" in str(error)


@pytest.mark.slow
def test_model_without_head_is_refused(copied: Path) -> None:
    path = FINETUNED / "model.safetensors"
    weights = {name: tensor for name, tensor in load_file(path).items() if not name.startswith("classifier.")}
    save_file(weights, path, {"format": "pt"})
    error = user_error(main)
    assert error.file == str(FINETUNED)
    assert "--force train" in str(error)
