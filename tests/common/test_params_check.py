import shutil
import subprocess
import sys
import time
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers import RANDOM_WEIGHTS, ROOT, problems, set_params, user_error

from stages.common.params_check import check_params
from stages.common.params_errors import RENAMED_KEYS


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def demo(folder: Path, values: dict[str, Any]) -> None:
    shutil.copyfile(ROOT / "params.yaml", folder / "params.yaml")
    set_params(folder, RANDOM_WEIGHTS | values)


@pytest.mark.parametrize("old", RENAMED_KEYS)
def test_renamed_key(folder: Path, old: str) -> None:
    demo(folder, {old: 1})
    assert RENAMED_KEYS[old].split(".")[1] in problems(lambda: check_params("train"))[old]


@pytest.mark.parametrize(("old", "new"), [("procedural", "synthetic"), ("scratch", "random_weights")])
def test_renamed_source(folder: Path, old: str, new: str) -> None:
    key = "download.dataset.source" if old == "procedural" else "download.model.source"
    demo(folder, {key: old})
    assert f"write {new}" in problems(lambda: check_params("train"))[key]


MISTAKES = {
    "download.dataset.clips_per_labl": 3,
    "split.method": "stratifed",
    "resample_encode.max_seconds": -1,
    "train.warmup": 0.1,
    "evaluate.batch_size": "many",
    "publish.pussh": True,
}


@pytest.mark.parametrize("stage", ["download", "split", "resample_encode", "train", "evaluate", "publish"])
def test_every_stage_checks_all_sections(folder: Path, stage: str) -> None:
    demo(folder, MISTAKES)
    found = problems(lambda: check_params(stage))
    assert set(found) == set(MISTAKES)


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"trian": {}}, "trian"),
        ({"dataset": {}}, "dataset"),
        ({"train.window_seconds": 40}, "train.window_seconds"),
        ({"evaluate.window_seconds": 40}, "evaluate.window_seconds"),
        ({"train.window_seconds": 5.5}, "train.window_seconds"),
        ({"evaluate.window_seconds": 5.5}, "evaluate.window_seconds"),
        ({"download.dataset.seconds": 1e308}, "download.dataset.seconds"),
        ({"resample_encode.max_seconds": 1e308}, "resample_encode.max_seconds"),
        ({"train.threads": 2**40}, "train.threads"),
        ({"train.report_to": ["mlflow", "mlflow"]}, "train.report_to"),
        ({"split.groups": {"a\nb": "x.csv"}}, "split.groups"),
        ({"split.groups": {" ": "x.csv"}}, "split.groups"),
        ({"resample_encode.cache": "feature_encoder"}, "train.freeze"),
        ({"split.validation_size": 0, "evaluate.min_answered_accuracy": 0.9}, "evaluate.min_answered_accuracy"),
        ({"split.folds": 2, "split.validation_size": 0.5}, "split.validation_size"),
    ],
)
def test_conflict(folder: Path, values: dict[str, Any], key: str) -> None:
    demo(folder, values)
    assert list(problems(lambda: check_params("split"))) == [key]


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("train.layers", "weigthed", "must be 'last' or 'weighted', or a valid integer, got 'weigthed'"),
        ("train.layers", 0, "must be 'last' or 'weighted', or greater than or equal to 1, got 0"),
        ("train.layers", [1], "must be 'last' or 'weighted', or a valid integer, got [1]"),
        ("train", 5, "must be a mapping; see presets/, got 5"),
        ("train", None, "must be a mapping; see presets/, got None"),
        ("download", [], "must be a mapping with keys such as dataset, model, got []"),
        ("train.lora", 8, "must be a mapping with keys such as r, lora_alpha, lora_dropout, got 8"),
        ("train.processes", "all", "must be a valid integer, or 'auto', got 'all'"),
        (
            "resample_encode.feature_extractor.x",
            [1],
            "must be a valid boolean, or a valid integer, or a valid number, or a valid string, got [1]",
        ),
    ],
)
def test_value_of_none_of_several_types(folder: Path, key: str, value: Any, message: str) -> None:
    """This is one problem, for which pydantic has an error for each type."""
    demo(folder, {})
    params = yaml.safe_load(Path("params.yaml").read_text())
    *parents, last = key.split(".")
    reduce(getitem, parents, params)[last] = value
    Path("params.yaml").write_text(yaml.safe_dump(params))
    [(where, found)] = problems(lambda: check_params("train")).items()
    assert where == key
    assert found.endswith(message)


def test_key_that_is_no_text(folder: Path) -> None:
    demo(folder, {"split.groups": {1: 1}})
    found = user_error(lambda: check_params("train")).problems
    assert [problem.key for problem in found] == ["split.groups.1.[key]", "split.groups.1"]


@pytest.mark.parametrize(
    ("key", "value", "keys"),
    [("train.lora", {"rank": 8}, "the keys are r, lora_alpha"), ("train.augment", {"loud": 1}, "the keys are mixup")],
)
def test_keys_of_a_small_section_are_listed(folder: Path, key: str, value: dict[str, int], keys: str) -> None:
    demo(folder, {key: value})
    [(where, message)] = problems(lambda: check_params("train")).items()
    assert where == f"{key}.{next(iter(value))}"
    assert keys in message


def test_conflicts_with_a_cached_base(folder: Path) -> None:
    values = {"resample_encode.cache": "base", "evaluate.window_seconds": 1, "train.dropout": 0.1}
    demo(folder, values | {"train.spec_augment": {"mask_time_prob": 0.1}})
    keys = {"train.freeze", "train.window_seconds", "train.dropout", "train.spec_augment", "evaluate.window_seconds"}
    assert set(problems(lambda: check_params("download"))) == keys


@pytest.mark.parametrize("key", ["train.window_second", "train.frozn", "train.attention"])
def test_misspelled_keys_hide_no_conflict(folder: Path, key: str) -> None:
    demo(folder, {"resample_encode.cache": "base", "train.window_seconds": 40})
    before = set(problems(lambda: check_params("train")))
    params = yaml.safe_load(Path("params.yaml").read_text())
    params["train"][key.partition(".")[2]] = params["train"].pop("window_seconds") if "window" in key else "x"
    Path("params.yaml").write_text(yaml.safe_dump(params))
    assert set(problems(lambda: check_params("train"))) == before | {key}


@pytest.mark.parametrize("section", ["split", "train"])
@pytest.mark.parametrize("extra", [{"source": "foo", "foo": 1}, {"source": "source"}, {"source": None, 3: None}])
def test_source_where_there_is_none(folder: Path, section: str, extra: dict[Any, Any]) -> None:
    demo(folder, {})
    params = yaml.safe_load(Path("params.yaml").read_text())
    params[section] |= extra
    Path("params.yaml").write_text(yaml.safe_dump(params))
    assert set(problems(lambda: check_params("train"))) == {f"{section}.{key}" for key in extra}


def test_misspelled_half_of_download_hides_no_obstacle(folder: Path) -> None:
    demo(folder, {"download.dataset": {"source": "folder", "path": "gone"}})
    text = Path("params.yaml").read_text()
    Path("params.yaml").write_text(text.replace("dataset:", "datset:"))
    found = problems(lambda: check_params("download", "dataset"))
    assert set(found) == {"download.datset", "download.dataset.path"}


def test_renamed_key_hides_no_conflict(folder: Path) -> None:
    demo(folder, {})
    params = yaml.safe_load(Path("params.yaml").read_text())
    del params["resample_encode"]["cache"]
    params["resample_encode"]["representation"] = "feature_encoder"
    Path("params.yaml").write_text(yaml.safe_dump(params))
    assert set(problems(lambda: check_params("split"))) == {"resample_encode.representation", "train.freeze"}


def test_misspelled_section_hides_no_mistake(folder: Path) -> None:
    demo(folder, {})
    params = yaml.safe_load(Path("params.yaml").read_text())
    params["trian"] = params.pop("train") | {"epochs": -1}
    Path("params.yaml").write_text(yaml.safe_dump(params))
    assert set(problems(lambda: check_params("split"))) == {"trian", "train.epochs"}


def test_mistake_in_one_half_of_download_hides_no_obstacle_of_the_other(folder: Path) -> None:
    demo(folder, {"download.dataset.clips_per_label": "many", "download.model": {"source": "folder", "path": "gone"}})
    found = problems(lambda: check_params("download", "dataset"))
    assert set(found) == {"download.dataset.clips_per_label", "download.model.path"}


OBSTACLES = [
    ("download.dataset", {"source": "folder", "path": "nowhere"}, "download.dataset.path"),
    ("download.dataset", {"source": "synthetic", "originals": "no.csv"}, "download.dataset.originals"),
    ("download.dataset", {"source": "synthetic", "seconds": 1e6}, "download.dataset"),
    ("download.model", {"source": "folder", "path": "."}, "download.model.path"),
    ("split.groups", {"artist": "no.csv"}, "split.groups.artist"),
    ("split", {"method": "published", "published": "no.csv"}, "split.published"),
]


@pytest.mark.parametrize(("section", "value", "key"), OBSTACLES, ids=[key for _, _, key in OBSTACLES])
def test_obstacle(folder: Path, section: str, value: Any, key: str) -> None:
    demo(folder, {section: value})
    assert list(problems(lambda: check_params("download", "dataset"))) == [key]
    # The outputs of earlier stages may come from a DVC remote, without what they were made from.
    check_params("train")


def test_push_without_token(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    demo(folder, {"publish.push": True})
    assert list(problems(lambda: check_params("download", "dataset"))) == ["publish.push"]
    monkeypatch.setattr("huggingface_hub.get_token", lambda: "hf_x")
    check_params("download", "dataset")


def test_finished_half_of_download_is_not_checked(folder: Path) -> None:
    demo(folder, {"download.model": {"source": "folder", "path": "gone"}})
    assert list(problems(lambda: check_params("download", "dataset"))) == ["download.model.path"]
    params = {"params.yaml": {"download.model": {"source": "folder", "path": "gone"}}}
    Path("dvc.lock").write_text(yaml.safe_dump({"stages": {"download@model": {"params": params}}}))
    check_params("download", "dataset")
    assert list(problems(lambda: check_params("download", "model"))) == ["download.model.path"]


@pytest.mark.parametrize("text", ["a: " + "9" * 5000, "a: " + "[" * 3000, "a: 2001-13-01", "a: !!int x"])
def test_value_that_cannot_be_read(text: str) -> None:
    Path("params.yaml").write_text(text)
    error = user_error(lambda: check_params("train"))
    assert error.file == "params.yaml"
    assert "\n" not in str(error)


def test_params_that_are_a_folder() -> None:
    Path("params.yaml").mkdir()
    assert user_error(lambda: check_params("train")).file == "params.yaml"


def test_path_too_long(folder: Path) -> None:
    demo(folder, {"download.model": {"source": "folder", "path": "a" * 5000}})
    assert list(problems(lambda: check_params("download", "model"))) == ["download.model.path"]


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"\xff", b"\x01", b"stages: 3", b"stages: {download@model: {params: {params.yaml: 3}}}"],
)
def test_damaged_lock_is_ignored(folder: Path, content: bytes) -> None:
    demo(folder, {})
    Path("dvc.lock").write_bytes(content)
    check_params("download", "dataset")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "mistakes"),
    [
        ("stages.train", MISTAKES),
        ("stages.evaluate.baselines", MISTAKES),
        ("stages.check", {"train.layers": 2, "train.lora": {"target_modules": ["fc1"]}}),
    ],
)
def test_mistakes_show_before_torch_is_imported(folder: Path, script: str, mistakes: dict[str, Any]) -> None:
    demo(folder, mistakes)
    start = time.monotonic()
    code = (
        "import sys, runpy\n"
        f"try: runpy.run_module('{script}', run_name='__main__', alter_sys=True)\n"
        "finally: assert not {'torch', 'pandas', 'transformers'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert len(lines) == len(mistakes)
    assert all(line.startswith("error: params.yaml: ") for line in lines)
    assert time.monotonic() - start < 10  # two seconds on a quiet machine
    assert [path.name for path in folder.iterdir()] == ["params.yaml"]
