import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import set_params
from transformers import AutoModelForAudioClassification, pipeline

from stages.common import audio, batches, scores
from stages.common.tables import read_table
from stages.evaluate import main, measure


def test_predictions_agree_with_pipeline_on_the_published_model(finished: Path) -> None:
    table = pd.read_csv(finished / "metrics/predictions.csv").set_index("clip")
    labels = list(table.columns[2:])
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


def test_measure_against_numbers_worked_out_by_hand() -> None:
    probabilities = np.array([[0.8, 0.2], [0.6, 0.4], [0.1, 0.9], [0.7, 0.3]])
    metrics = measure(probabilities, np.array([0, 0, 1, 1]), ["x", "y"], "test")
    assert metrics["accuracy"] == 0.75
    assert metrics["macro_f1"] == pytest.approx((4 / 5 + 2 / 3) / 2)
    assert metrics["loss"] == pytest.approx(-np.log([0.8, 0.6, 0.9, 0.3]).mean())
    assert metrics["selected_on"] == "test"
    assert metrics["per_label"][1] == {
        "label": "y",
        "precision": 1.0,
        "recall": 0.5,
        "f1": pytest.approx(2 / 3),
        "n": 2,
    }


def test_the_course_s_083_of_100_clips_means_074_to_089() -> None:
    assert [round(bound, 2) for bound in scores.interval(83, 100)] == [0.74, 0.89]
    assert scores.interval(0, 10)[0] == 0.0
    assert scores.interval(10, 10)[1] == 1.0
