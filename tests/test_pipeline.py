"""The graph, by real DVC."""

import ast
import re
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml
from conftest import dvc, git, set_params, tone

from stages import evaluate, publish, resample_encode, split, train
from stages.common.tables import read_table
from stages.download import download_dataset, download_model

ROOT = Path(__file__).parents[1]
STAGES = ["download", "split", "resample_encode", "train", "evaluate", "publish"]
TRAIN_ON = {"train", "evaluate", "publish"}


def imported_modules(script: Path) -> set[str]:
    """The project's own modules that a script imports, directly or over another, as paths."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(script.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("stages"):
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.name.startswith("stages")]
        for name in names:
            path = ROOT / (name.replace(".", "/") + ".py")
            if path.is_file() and str(path.relative_to(ROOT)) not in found:
                found |= {str(path.relative_to(ROOT))} | imported_modules(path)
    return found


@pytest.mark.parametrize("stage", STAGES)
def test_dvc_watches_all_code_that_a_stage_runs_and_no_more(stage: str) -> None:
    graph = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"][stage]
    deps = {dep for dep in graph.get("do", graph)["deps"] if dep.endswith(".py")}
    assert deps == {f"stages/{stage}.py"} | imported_modules(ROOT / "stages" / f"{stage}.py")


def stages_run(output: str) -> set[str]:
    return set(re.findall(r"Running stage '([^']+)'", output))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (
            {"download.dataset.seed": 9},
            {"download@dataset", "split", "resample_encode"} | TRAIN_ON,
        ),
        ({"download.model.seed": 9}, {"download@model", "resample_encode"} | TRAIN_ON),
        ({"split.seed": 9}, {"split"} | TRAIN_ON),
        ({"resample_encode.max_seconds": 0.9}, {"resample_encode"} | TRAIN_ON),
        ({"train.learning_rate": 0.5}, TRAIN_ON),
        ({"evaluate.batch_size": 9}, {"evaluate", "publish"}),
        ({"publish.name": "other"}, {"publish"}),
        ({}, set()),
    ],
    ids=lambda value: next(iter(value), "nothing") if isinstance(value, dict) else "",
)
def test_one_changed_value_reruns_what_it_affects_and_nothing_else(
    copied: Path, values: dict[str, object], expected: set[str]
) -> None:
    set_params(copied, values)
    assert stages_run(dvc(copied, "repro", "--dry", "--force-downstream")) == expected


def test_a_stage_whose_output_is_the_same_stops_the_chain(copied: Path) -> None:
    set_params(copied, {"resample_encode.workers": 1, "evaluate.batch_size": 3})
    assert stages_run(dvc(copied, "repro")) == {"resample_encode", "evaluate"}
    assert git(copied, "status", "--porcelain").split() == ["M", "dvc.lock", "M", "params.yaml"]


def test_a_second_run_does_nothing_and_leaves_the_tree_clean(copied: Path) -> None:
    assert stages_run(dvc(copied, "repro")) == set()
    assert git(copied, "status", "--porcelain") == ""


def test_a_mistake_ends_in_one_line_and_the_next_run_goes_through(copied: Path) -> None:
    set_params(copied, {"split.tset": 0.3})
    output = dvc(copied, "repro", check=False)
    assert "error: params.yaml: split.tset: unknown key, did you mean test?" in output
    assert "Traceback" not in output
    git(copied, "checkout", "params.yaml")
    assert stages_run(dvc(copied, "repro")) == {"split"}
    assert git(copied, "status", "--porcelain") == ""


def test_odd_names_mixed_lengths_and_channels_go_through_every_stage(workspace: Path) -> None:
    labels = ("None", "R&B, soul", "001")
    for label, hz in zip(labels, (200, 500, 900)):
        (workspace / "clips" / label).mkdir(parents=True)
        for n in range(8):
            samples = tone(0.4 + 0.1 * n, hz=hz)
            samples = np.stack([samples, samples], axis=1) if n % 2 else samples
            soundfile.write(workspace / "clips" / label / f"{n:03d}.wav", samples, 22_050)
    set_params(workspace, {"download.dataset": {"source": "folder", "path": "clips", "max_rejected": 0}})
    for main in (download_dataset, download_model, split.main, resample_encode.main, train.main, evaluate.main):
        main()
    publish.main()
    table = read_table(Path("metrics/predictions.csv"))
    assert list(table.columns) == ["clip", "label", "prediction", *sorted(labels)]
    assert set(table["label"]) == set(labels)
    assert "| R&B, soul | " in Path("models/published/README.md").read_text()


def test_queued_experiments_are_rows_that_a_person_can_read(copied: Path) -> None:
    dvc(copied, "exp", "run", "--queue", "-S", "evaluate.window_seconds=0.4,0.5")
    dvc(copied, "queue", "start")
    for _ in range(120):
        status = dvc(copied, "queue", "status")
        if status.count("Success") + status.count("Failed") == 2:
            break
        time.sleep(1)
    assert status.count("Success") == 2, status
    table = dvc(copied, "exp", "show", "--only-changed", "--csv", "--drop", ".*/.*")
    header, *rows = table.strip().splitlines()
    assert "loss" in header
    assert "evaluate.window_seconds" in header
    assert "per_label" not in header
    assert ".csv" not in header
    assert len(rows) == 4
