import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
from helpers import ROOT, set_params
from huggingface_hub import ModelCard

from stages.common.paths import METRICS, PREDICTIONS, RAW, TRAINING
from stages.common.tables import read_json, select_scores, write_json
from stages.evaluate.__main__ import main as evaluate
from stages.publish.__main__ import main as publish
from stages.publish.card import card_data, write_card
from stages.resample_encode.__main__ import main as resample_encode
from stages.train.__main__ import main as train


@pytest.fixture
def card(finished: Path) -> ModelCard:
    return ModelCard.load(finished / "models/published/README.md")


def change_metrics(values: dict[str, Any]) -> str:
    """Change metrics.json, and return the text of the card written then, in one line."""
    write_json(METRICS, read_json(METRICS) | values)
    write_card(Path("card.md"), "ann/model")
    return Path("card.md").read_text().replace("\n", " ")


@pytest.mark.slow
def test_results(card: ModelCard) -> None:
    results = {result.metric_type: result for result in card.data.eval_results}
    assert results["accuracy"].task_type == card.data.pipeline_tag == "audio-classification"
    assert f"**{results['accuracy'].metric_value:.3f}**" in card.text
    assert "| blues | " in card.text


@pytest.mark.slow
def test_limits_of_results(card: ModelCard) -> None:
    text = card.text.replace("\n", " ")
    assert "no estimate for" in text
    assert "selected on the validation clips, not on the test clips" in text
    assert "The interval counts the clips as independent" in text
    assert "0 of 10 test clips share their recording" in text


@pytest.mark.slow
def test_metrics(card: ModelCard, finished: Path) -> None:
    metrics = read_json(finished / METRICS)
    for key, value in select_scores(metrics).items():
        assert f"| {key.replace('_', ' ')} | {value:.3f} |" in card.text
    assert "selection accuracy" not in card.text  # not of the test clips
    assert set(metrics["baselines"]) == {"majority", "spectrum"}
    for name, accuracy in metrics["baselines"].items():
        assert f"| baseline: {name} | {accuracy:.3f} |" in card.text


@pytest.mark.slow
def test_training(card: ModelCard) -> None:
    assert "| epoch | eval accuracy | eval loss | train loss |\n|---|---|---|---|\n| 1 | " in card.text
    assert "| learning_rate | " in card.text
    assert "| resample_encode.cache | input |" in card.text


@pytest.mark.slow
def test_checker_of_course(card: ModelCard) -> None:
    """The course looks for the accuracy by this expression; the data set and the tag are tested with the Hub."""
    [found] = re.findall(r"(?:Accuracy|eval_accuracy): (\d+\.\d+)", card.text)
    assert float(found) == pytest.approx(card.data.eval_results[0].metric_value, abs=5e-4)
    assert "audio-classification" in card.data.tags


@pytest.mark.slow
def test_how_the_weights_were_selected(copied: Path) -> None:
    training = read_json(TRAINING)
    chosen = "(1, the highest accuracy; among equals, the lowest loss) was selected on the validation clips"
    assert chosen in change_metrics({}).replace(f"({training['best_epoch']},", "(1,")
    training["train"]["select_by"] = "macro_f1"
    write_json(TRAINING, training | {"averaged_epochs": [2, 3]})
    chosen = "The mean of the weights after epochs 2 to 3 (its macro f1 was higher than that of each epoch, or equal "
    assert chosen + "with a lower loss) was selected on the validation clips, not on the test clips." in change_metrics(
        {}
    )


@pytest.mark.slow
def test_epoch_selected_on_test(copied: Path) -> None:
    assert "so the accuracy is optimistic" in change_metrics({"selected_on": "test"})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("beats_baselines", "expected"),
    [
        ("no", "The model is not better than the better baseline"),
        ("not significantly", "The model is not significantly better than the better baseline"),
        ("yes", None),
    ],
)
def test_comparison_with_baselines(copied: Path, beats_baselines: str, expected: str | None) -> None:
    text = change_metrics({"beats_baselines": beats_baselines})
    assert expected in text if expected else "than the better baseline" not in text


@pytest.mark.slow
def test_interval_over_groups(copied: Path) -> None:
    text = change_metrics({"interval_of": "groups", "n_groups": 7})
    assert "The interval is over 7 groups: clips that share recording are not counted as independent" in text


def test_metadata_of_hub_sources() -> None:
    data = {"source": "hub", "id": "marsyas/gtzan", "title": "GTZAN", "config": "all", "split": "train"}
    base = {"source": "hub", "id": "ntu-spml/distilhubert", "licence": "apache-2.0"}
    metadata = card_data("model", data, base, {"accuracy": 0.8, "macro_f1": 0.7})
    assert (metadata.datasets, metadata.base_model, metadata.license) == ([data["id"]], base["id"], "apache-2.0")
    assert [result.metric_value for result in metadata.eval_results] == [0.8, 0.7]


def test_metadata_of_folders() -> None:
    data = {"source": "folder", "id": "mine"}
    base = {"source": "folder", "id": "checkpoint", "licence": "unknown"}
    metadata = card_data("model", data, base, {"accuracy": 0.8, "macro_f1": 0.7})
    assert (metadata.datasets, metadata.base_model, metadata.license) == (None, None, None)
    assert metadata.eval_results[0].dataset_type == "folder"


def code_of(text: str) -> str:
    """Return the Python code in a Markdown text."""
    [code] = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    return code


@pytest.mark.slow
@pytest.mark.parametrize("max_seconds", [pytest.param(30, marks=pytest.mark.rare), 0.7])
def test_code_of_the_card_gives_the_predictions(copied: Path, max_seconds: float) -> None:
    set_params(copied, {"resample_encode.max_seconds": max_seconds, "train.epochs": 1})
    for stage in (resample_encode, train, evaluate, publish):
        stage()
    expected = pd.read_csv(PREDICTIONS).iloc[0]
    samples, rate = soundfile.read(RAW / f"audio/{expected['label']}/{expected['clip']}.wav", dtype="float32")
    code = code_of(Path("models/published/README.md").read_text())
    code = code.replace("your-name/hubert-demo", "models/published").replace("print(", "found = (")
    for channels in (1, 2):
        soundfile.write("clip.wav", np.stack([samples] * channels, axis=1), rate, subtype="FLOAT")
        names: dict[str, Any] = {}
        exec(code, names)
        assert len(names["found"]) == 10
        for item in names["found"]:
            assert item["score"] == pytest.approx(expected[item["label"]], abs=5e-4)


@pytest.mark.slow
def test_code_of_the_docs_is_that_of_the_card(finished: Path) -> None:
    card = code_of((finished / "models/published/README.md").read_text())
    docs = code_of((ROOT / "docs/hub.md").read_text())
    # The formatter adds the space in the template, where it does not see a number, and removes it in the docs.
    card = card.replace("your-name/hubert-demo", "models/published").replace("[: ", "[:")
    assert docs == card.replace("clip.wav", "data/raw/audio/jazz/jazz.00003.wav")
