import re
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from stages.common.paths import METRICS
from stages.common.tables import read_json, select_scores, write_json
from stages.publish.card import card_data, write_card


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
    text = change_metrics({"interval_of": "groups"})
    assert "The interval is over groups: clips that share recording are not counted as independent" in text


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
