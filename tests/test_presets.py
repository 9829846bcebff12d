import json
import tomllib
from pathlib import Path

import pytest
import yaml
from helpers import ROOT

from stages.common.params import SECTIONS, find_schema
from stages.common.params_check import check_params
from stages.common.params_help import name_type
from tools import presets

PRESETS = sorted((ROOT / "presets").glob("*.yaml"))


@pytest.mark.parametrize("preset", PRESETS, ids=lambda path: path.stem)
def test_preset_is_valid(preset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(preset.read_text())
    check_params("publish")
    params = yaml.safe_load(preset.read_text())
    assert tuple(params) == SECTIONS
    for section in SECTIONS[1:]:
        assert set(params[section]) == set(find_schema(section).model_fields)


@pytest.mark.parametrize("preset", PRESETS, ids=lambda path: path.stem)
def test_preset_is_as_written(preset: Path) -> None:
    assert preset.read_text() == presets.write_preset(preset.stem), "run make presets"
    assert preset.stem in presets.PRESETS


def test_schema_is_as_written() -> None:
    assert (ROOT / presets.SCHEMA).read_text() == presets.write_schema(), "run make presets"
    first, *_ = (ROOT / "params.yaml").read_text().splitlines()
    assert (ROOT / first.partition("$schema=")[2]).is_file()


def test_pins_for_uv_are_those_of_pip() -> None:
    assert (ROOT / "pyproject.toml").read_text() == presets.write_pyproject(), "run make presets"
    pins = (ROOT / "constraints.txt").read_text().splitlines()[1:]
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["uv"]["constraint-dependencies"] == pins


def test_docs_are_as_written() -> None:
    assert (ROOT / "docs/params.md").read_text() == presets.write_docs(), "run make presets"


def test_schema_knows_all_keys() -> None:
    schema = json.loads(presets.write_schema())
    assert set(schema["properties"]) == set(SECTIONS)
    train = schema["$defs"]["TrainParams"]
    assert train["additionalProperties"] is False
    assert set(train["properties"]) == set(find_schema("train").model_fields)
    assert "grouped" in schema["$defs"]["SplitParams"]["properties"]["method"]["enum"]


def test_params_are_the_demo() -> None:
    assert (ROOT / "params.yaml").read_text() == (ROOT / "presets/demo.yaml").read_text()


def test_types_are_named_for_users() -> None:
    fields = find_schema("train").model_fields
    assert name_type(fields["window_seconds"].annotation) == "float or null"
    assert name_type(fields["freeze"].annotation) == "none or feature_encoder or base"
    assert name_type(fields["spec_augment"].annotation) == "mapping or null"


def test_course_preset_has_the_settings_of_the_course() -> None:
    params = yaml.safe_load((ROOT / "presets/course.yaml").read_text())
    assert params["download"]["dataset"]["id"] == "marsyas/gtzan"
    assert params["download"]["model"]["id"] == "ntu-spml/distilhubert"
    split = {"method": "random", "seed": 42, "test_size": 0.1, "validation_size": 0.0}
    assert {key: params["split"][key] for key in split} == split
    assert params["resample_encode"]["max_seconds"] == 30
    assert params["resample_encode"]["feature_extractor"] == {"do_normalize": True, "return_attention_mask": True}
    train = {"epochs": 10, "batch_size": 8, "gradient_accumulation_steps": 1, "learning_rate": 5e-5}
    train |= {"warmup_ratio": 0.1, "precision": "fp16", "window_seconds": None, "freeze": "none"}
    train |= {"weight_decay": 0.0, "logging_steps": 5}
    assert {key: params["train"][key] for key in train} == train
