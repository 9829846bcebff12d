from importlib import import_module
from pathlib import Path

import pytest
import yaml
from pydantic import TypeAdapter

ROOT = Path(__file__).parents[1]
PRESETS = sorted((ROOT / "presets").glob("*.yaml"))
SECTIONS = ["split", "resample_encode", "train", "evaluate", "publish"]


@pytest.mark.parametrize("preset", PRESETS, ids=lambda path: path.stem)
def test_every_preset_is_a_whole_valid_params_file(preset: Path) -> None:
    from stages.download import DatasetParams, ModelParams

    params = yaml.safe_load(preset.read_text())
    assert list(params) == ["download", *SECTIONS]
    TypeAdapter(DatasetParams).validate_python(params["download"]["dataset"])
    TypeAdapter(ModelParams).validate_python(params["download"]["model"])
    for section in SECTIONS:
        import_module(f"stages.{section}").Params.model_validate(params[section])


def test_the_params_as_committed_are_the_demo() -> None:
    assert (ROOT / "params.yaml").read_text() == (ROOT / "presets" / "demo.yaml").read_text()


def test_the_course_preset_is_the_course() -> None:
    params = yaml.safe_load((ROOT / "presets" / "course.yaml").read_text())
    assert params["download"]["dataset"]["id"] == "marsyas/gtzan"
    assert params["download"]["model"]["id"] == "ntu-spml/distilhubert"
    assert {key: params["split"][key] for key in ("method", "seed", "test", "validation")} == {
        "method": "random",
        "seed": 42,
        "test": 0.1,
        "validation": 0.0,
    }
    assert params["resample_encode"]["max_seconds"] == 30
    course = {"epochs": 10, "batch_size": 8, "accumulation": 1, "learning_rate": 5e-5, "warmup": 0.1}
    course |= {"precision": "fp16", "window_seconds": None, "frozen": "none", "weight_decay": 0.0, "logging_steps": 5}
    assert {key: params["train"][key] for key in course} == course
