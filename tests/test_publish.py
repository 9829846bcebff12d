from pathlib import Path

import pytest
from conftest import error_of, set_params
from huggingface_hub import ModelCard

from stages.publish import main


def test_the_card_says_what_was_measured_and_what_it_does_not_mean(finished: Path) -> None:
    card = ModelCard.load(finished / "models/published/README.md")
    results = {result.metric_type: result for result in card.data.eval_results}
    assert results["accuracy"].task_type == card.data.pipeline_tag == "audio-classification"
    assert f"**{results['accuracy'].metric_value:.3f}**" in card.text
    assert "says nothing about" in card.text
    assert "chosen on the validation clips" in card.text.replace("\n", " ")
    assert "| epoch | eval accuracy | eval loss | train loss |\n|---|---|---|---|\n| 1 | " in card.text
    assert "| learning_rate | " in card.text
    assert "| blues | " in card.text


def test_published_is_what_the_hub_would_hold(finished: Path) -> None:
    files = {
        str(file.relative_to(finished / "models/published")) for file in (finished / "models/published").rglob("*")
    }
    assert files == {
        "README.md",
        "config.json",
        "metrics.json",
        "model.safetensors",
        "predictions.csv",
        "preprocessor_config.json",
        "result.png",
        "runs",
        "runs/events.out.tfevents.0",
    }


def test_choosing_the_epoch_on_test_is_admitted(copied: Path) -> None:
    path = Path("metrics/metrics.json")
    path.write_text(path.read_text().replace('"selected_on": "validation"', '"selected_on": "test"'))
    main()
    assert "the accuracy above is optimistic" in Path("models/published/README.md").read_text()


@pytest.mark.parametrize("name", ["my model", "my--model", ".x", "x.", "a/b/c", ""])
def test_a_name_that_no_repo_can_have_is_refused(copied: Path, name: str) -> None:
    set_params(copied, {"publish.name": name})
    assert "publish.name" in error_of(main)


@pytest.mark.parametrize("part", ["metrics.json", "config.json", "README.md"])
def test_nothing_names_this_machine(finished: Path, part: str) -> None:
    text = (finished / "models/published" / part).read_text()
    assert str(finished) not in text
    assert str(Path.home()) not in text
