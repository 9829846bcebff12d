import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import error_of, memory_for, set_params
from safetensors.torch import load_file, save_file
from transformers import AutoModelForAudioClassification, pipeline

from stages.common import audio, batches, scores
from stages.common.tables import read_table
from stages.evaluate import main, measure


def labels_of(table: pd.DataFrame) -> list[str]:
    return list(table.columns[3:])


def test_predictions_agree_with_pipeline_on_the_published_model(finished: Path) -> None:
    table = pd.read_csv(finished / "metrics/predictions.csv").set_index("clip")
    labels = labels_of(table.reset_index())
    np.testing.assert_allclose(table[labels].sum(axis=1), 1.0, atol=1e-4)
    assert (table[labels].idxmax(axis=1) == table["prediction"]).all()
    classify = pipeline("audio-classification", model=str(finished / "models/published"), top_k=len(labels))
    assert table[labels].to_numpy().std() > 0.01  # answers that differ, or agreement would mean nothing
    for clip, row in table.iterrows():
        samples = audio.load(finished / f"data/raw/audio/{row['label']}/{clip}.wav", 16_000)
        answer = {item["label"]: item["score"] for item in classify(samples)}
        assert max(answer, key=answer.get) == row["prediction"]
        np.testing.assert_allclose([answer[label] for label in labels], row[labels].astype(float), atol=5e-4)


def test_metrics_are_those_of_the_predictions(finished: Path) -> None:
    metrics = json.loads((finished / "metrics/metrics.json").read_text())
    table = pd.read_csv(finished / "metrics/predictions.csv")
    own = [row[row["label"]] for _, row in table.iterrows()]
    assert metrics["n"] == len(table) == (pd.read_csv(finished / "data/splits.csv")["split"] == "test").sum()
    assert metrics["accuracy"] == pytest.approx((table["label"] == table["prediction"]).mean())
    assert metrics["loss"] == pytest.approx(-np.log(own).mean(), abs=1e-3)
    assert metrics["selected_on"] == "validation"
    numbers = table[table.columns[3:]].to_numpy()
    actual = np.array([labels_of(table).index(label) for label in table["label"]])
    assert metrics["calibration_error"] == pytest.approx(
        scores.calibration_error(scores.reliability(numbers, actual)), abs=1e-4
    )
    assert sum(row["n"] for row in metrics["reliability"]) == metrics["n"]
    assert metrics["top_2_accuracy"] >= metrics["accuracy"]
    assert set(metrics["baseline"]) == {"majority", "spectrum"}
    assert metrics["interval_of"] == "clips"
    assert "window_accuracy" not in metrics
    assert [row["label"] for row in metrics["per_label"]] == sorted(set(table["label"]))
    confusion = pd.read_csv(finished / "metrics/confusion.csv")
    assert confusion["actual"].tolist() == table["label"].tolist()
    assert confusion["predicted"].tolist() == table["prediction"].tolist()


def test_windows_of_a_clip_are_averaged(copied: Path) -> None:
    whole = pd.read_csv("metrics/predictions.csv")
    set_params(copied, {"evaluate.window_seconds": 0.3})
    main()
    windows = pd.read_csv("metrics/predictions.csv")
    assert windows["clip"].tolist() == whole["clip"].tolist()
    numbers = windows[windows.columns[3:]].to_numpy()
    np.testing.assert_allclose(numbers.sum(axis=1), 1.0, atol=1e-4)
    encoded = batches.open_encoded(Path("data/encoded"))
    clips = batches.Clips(batches.take(encoded, read_table(Path("data/splits.csv")), "test"), encoded.key)
    model = AutoModelForAudioClassification.from_pretrained("models/finetuned").eval()
    for row in range(3):
        pieces = [torch.tensor(piece)[None] for piece in batches.cut(clips[row][0], 4800)]
        assert len(pieces) == 4
        with torch.no_grad():
            own = torch.stack([model(piece).logits[0].softmax(-1) for piece in pieces]).mean(dim=0)
        np.testing.assert_allclose(numbers[row], own, atol=1e-5)
    pieces = [(torch.tensor(piece)[None], label) for array, label in clips for piece in batches.cut(array, 4800)]
    with torch.no_grad():
        right = [int(model(piece).logits.argmax()) == label for piece, label in pieces]
    metrics = json.loads(Path("metrics/metrics.json").read_text())
    assert metrics["window_accuracy"] == pytest.approx(np.mean(right), abs=1e-6)


def test_measure_against_numbers_worked_out_by_hand() -> None:
    probabilities = np.array([[0.8, 0.2], [0.6, 0.4], [0.1, 0.9], [0.7, 0.3]])
    metrics = measure(probabilities, np.array([0, 0, 1, 1]), np.arange(4), ["x", "y"], {"selected_on": "test"})
    assert metrics["accuracy"] == 0.75
    assert metrics["macro_f1"] == pytest.approx((4 / 5 + 2 / 3) / 2)
    assert metrics["loss"] == pytest.approx(-np.log([0.8, 0.6, 0.9, 0.3]).mean())
    assert metrics["top_2_accuracy"] == 1.0
    # Bins: 0.6; 0.7, wrong; 0.8; 0.9.
    assert metrics["calibration_error"] == pytest.approx((0.4 + 0.7 + 0.2 + 0.1) / 4)
    assert metrics["selected_on"] == "test"
    assert metrics["interval_of"] == "clips"
    assert metrics["per_label"][1] == {
        "label": "y",
        "precision": 1.0,
        "recall": 0.5,
        "f1": pytest.approx(2 / 3),
        "n": 2,
    }
    grouped = measure(probabilities, np.array([0, 0, 1, 1]), np.array(["1", "1", "2", "3"]), ["x", "y"], {})
    assert grouped["interval_of"] == "groups"
    assert grouped["accuracy_interval_95"] < metrics["accuracy_interval_95"]


def test_a_single_label_is_refused(copied: Path) -> None:
    path = Path("data/encoded/dataset_info.json")
    info = json.loads(path.read_text())
    info["features"]["label"]["names"] = ["blues"]
    path.write_text(json.dumps(info))
    assert "data/encoded has no label but blues" in error_of(main)


def test_out_of_memory_halves_the_batch_and_comes_to_the_same(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    set_params(copied, {"evaluate.batch_size": 8})
    main()
    first = pd.read_csv("metrics/predictions.csv")
    with memory_for(clips=3):
        main()
    assert "starting again with batches of 2" in capsys.readouterr().out
    pd.testing.assert_frame_equal(pd.read_csv("metrics/predictions.csv"), first, atol=1e-5)
    with memory_for(clips=0):
        assert "evaluate.window_seconds: a single clip or window does not fit" in error_of(main)


def test_a_model_that_answers_with_no_numbers_is_refused(copied: Path) -> None:
    path = "models/finetuned/model.safetensors"
    weights = load_file(path)
    save_file(weights | {"classifier.bias": weights["classifier.bias"] * torch.nan}, path, {"format": "pt"})
    assert "training diverged; lower train.learning_rate" in error_of(main)
