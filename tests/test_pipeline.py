"""The graph, with real DVC."""

import gc
import json
import re
import shlex
import shutil
import subprocess
import sys
import time
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml
from datasets import StreamingDownloadManager, load_dataset_builder, load_from_disk
from helpers import ROOT, digests, dvc, git, set_params, tone, user_error

from stages.common.tables import read_table
from stages.download.__main__ import download_dataset, download_model
from stages.evaluate import baselines
from stages.evaluate.__main__ import main as evaluate
from stages.publish.__main__ import main as publish
from stages.resample_encode.__main__ import main as resample_encode
from stages.split.__main__ import main as split
from stages.train.__main__ import main as train
from tools.push import push_runs

pytestmark = pytest.mark.slow
TRAIN_ON = {"train", "evaluate", "publish"}
SPLIT_ON = {"split", "evaluate_baselines"} | TRAIN_ON
ALL_STAGES = {"check", "download@dataset", "download@model", "resample_encode"} | SPLIT_ON


def stages_run(output: str) -> set[str]:
    """Return the names of the stages that DVC ran or would run."""
    return set(re.findall(r"Running stage '([^']+)'", output))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"download.dataset.seed": 9}, {"download@dataset", "resample_encode"} | SPLIT_ON),
        pytest.param(
            {"download.model.seed": 9}, {"download@model", "resample_encode"} | TRAIN_ON, marks=pytest.mark.rare
        ),
        pytest.param({"split.seed": 9}, SPLIT_ON, marks=pytest.mark.rare),
        ({"resample_encode.max_seconds": 0.9}, {"resample_encode", "evaluate_baselines"} | TRAIN_ON),
        pytest.param({"resample_encode.workers": 1}, {"resample_encode"} | TRAIN_ON, marks=pytest.mark.rare),
        pytest.param({"train.learning_rate": 0.5}, TRAIN_ON, marks=pytest.mark.rare),
        ({"evaluate.batch_size": 9}, {"evaluate", "publish"}),
        pytest.param({"publish.name": "other"}, {"publish"}, marks=pytest.mark.rare),
        ({}, set()),
    ],
    ids=lambda value: next(iter(value), "nothing") if isinstance(value, dict) else "",
)
def test_changed_value_reruns_what_it_affects(copied: Path, values: dict[str, object], expected: set[str]) -> None:
    set_params(copied, values)
    # First check: its output is always the same, which a dry run does not know.
    assert stages_run(dvc(copied, "repro", "check")) == ({"check"} if values else set())
    assert stages_run(dvc(copied, "repro", "--dry", "--force-downstream")) == expected


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("stages/evaluate/metrics.py", {"evaluate", "publish"}),
        pytest.param("stages/evaluate/figures.py", {"evaluate", "publish"}, marks=pytest.mark.rare),
        ("stages/evaluate/baselines.py", {"evaluate_baselines", "evaluate", "publish"}),
        (
            "stages/download/dataset/synthetic_music.py",
            {"download@dataset", "resample_encode"} | SPLIT_ON,
        ),
        ("stages/download/model/checkpoint_sources.py", {"download@model", "resample_encode"} | TRAIN_ON),
        ("stages/train/loss.py", TRAIN_ON),
        pytest.param("stages/publish/card.py", {"publish"}, marks=pytest.mark.rare),
        pytest.param(
            "data/labels/README.md", {"download@dataset", "resample_encode"} | SPLIT_ON, marks=pytest.mark.rare
        ),
    ],
    ids=lambda value: Path(value).stem if isinstance(value, str) else "",
)
def test_changed_code_reruns_what_uses_it(copied: Path, file: str, expected: set[str]) -> None:
    with Path(file).open("a") as code:
        code.write("# a comment\n")
    assert stages_run(dvc(copied, "repro", "--dry", "--force-downstream")) == expected


@pytest.mark.parametrize(
    ("key", "value"),
    [("resample_encode.workers", 1), pytest.param("evaluate.batch_size", 3, marks=pytest.mark.rare)],
)
def test_same_output_stops_the_chain(copied: Path, key: str, value: int) -> None:
    set_params(copied, {key: value})
    assert stages_run(dvc(copied, "repro")) == {"check", key.partition(".")[0]}
    assert git(copied, "status", "--porcelain").split() == ["M", "dvc.lock", "M", "params.yaml"]


def test_second_run_does_nothing(copied: Path) -> None:
    assert stages_run(dvc(copied, "repro")) == set()
    assert git(copied, "status", "--porcelain") == ""


PUBLISH = {"publish.name": "other"}
EVERYWHERE = PUBLISH | {
    "train.learning_rate": 0.5,
    "evaluate.window_seconds": 0.5,
    "download.dataset.seed": 9,
    "download.model.seed": 9,
    "split.seed": 9,
    "resample_encode.max_seconds": 0.9,
}


def changed_files(folder: Path) -> str:
    """Return what git status lists, but not metrics/environment.json: it is about the last run, not a restored one."""
    return git(folder, "status", "--porcelain", "--", ".", ":!metrics/environment.json")


@pytest.mark.parametrize(
    ("values", "stages"),
    [(PUBLISH, {"check", "publish"}), pytest.param(EVERYWHERE, ALL_STAGES, marks=pytest.mark.rare)],
    ids=["publish", "everywhere"],
)
def test_going_back_to_old_params_runs_nothing(
    copied: Path, tmp_path: Path, values: dict[str, object], stages: set[str]
) -> None:
    """Neither here, nor in a clone that got the runs from a remote."""
    dvc(copied, "remote", "add", "-d", "storage", str(tmp_path / "storage"))
    git(copied, "commit", "-q", "-am", "Add a remote")
    old = Path("params.yaml").read_bytes()
    set_params(copied, values)
    assert stages_run(dvc(copied, "repro")) == stages
    Path("params.yaml").write_bytes(old)
    assert not stages_run(dvc(copied, "repro"))
    assert not changed_files(copied)
    # What DVC removed before an interrupted run.
    shutil.rmtree("metrics/train")
    Path("metrics/metrics.json").unlink()
    assert not stages_run(dvc(copied, "repro"))
    assert not changed_files(copied)
    set_params(copied, values)
    assert not stages_run(dvc(copied, "repro"))
    push_runs(None)
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "-q", str(copied), str(clone))
    dvc(clone, "pull", "--run-cache")
    set_params(clone, values)
    assert not stages_run(dvc(clone, "repro", "--pull"))
    assert (clone / "dvc.lock").read_bytes() == Path("dvc.lock").read_bytes()
    assert changed_files(clone) == changed_files(copied)


def test_pushing_runs_needs_a_remote(copied: Path) -> None:
    assert "no remote" in str(user_error(lambda: push_runs(None)))


def test_pushing_runs_skips_those_whose_outputs_are_gone(
    copied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dvc(copied, "remote", "add", "-d", "storage", str(tmp_path / "storage"))
    lock = yaml.safe_load(Path("dvc.lock").read_text())["stages"]["publish"]["outs"][0]["md5"]
    Path(".dvc/cache/files/md5", lock[:2], lock[2:]).unlink()
    assert push_runs(None) == 8
    assert "not pushed: 1 " in capsys.readouterr().out
    assert push_runs("storage") == 8


def test_publish_needs_no_plotting() -> None:
    code = "import stages.publish.card, stages.common.hub, sys; assert 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_mistake_removes_nothing(copied: Path) -> None:
    before = digests(Path("data")) | digests(Path("models")) | digests(Path("metrics"))
    set_params(copied, {"split.tset_size": 0.3})
    output = dvc(copied, "repro", check=False)
    assert "error: params.yaml: split.tset_size: unknown key, did you mean test_size?" in output
    assert "Traceback" not in output
    missing = {file: content for file, content in before.items() if file != "checked.txt"}
    assert digests(Path("data")) | digests(Path("models")) | digests(Path("metrics")) == missing
    git(copied, "checkout", ".")
    assert stages_run(dvc(copied, "repro")) == set()
    assert git(copied, "status", "--porcelain") == ""


def test_filtered_clips_leave_no_trace(copied: Path) -> None:
    """Datasets writes cache files into the folder that it opened."""
    rows = load_from_disk("data/encoded")
    assert len(rows.filter(lambda row: row["label"] == 0)) == 4
    rows.map(lambda row: {"length": len(row["input_values"])})
    assert list(Path("data/encoded").glob("cache-*.arrow"))
    assert "up to date" in dvc(copied, "status")
    assert stages_run(dvc(copied, "repro")) == set()


@pytest.mark.filterwarnings("ignore:unclosed file", "ignore::pytest.PytestUnraisableExceptionWarning")  # in datasets
def test_raw_clips_open_as_audiofolder(copied: Path) -> None:
    """Without load_dataset's last step, which imports torchcodec and so needs FFmpeg."""
    Path("data/raw/audio").rename("clips")
    Path("clips/disco").rename("clips/train")
    shutil.copyfile("clips/blues/blues.00000.wav", "clips/blues/copy.wav")
    set_params(copied, {"download.dataset": {"source": "folder", "path": "clips", "max_rejected": 0}})
    download_dataset()
    before = digests(Path("data/raw"))
    files = {"all": "data/raw/**"}  # data_dir would take the label "train" for a split
    builder = load_dataset_builder("audiofolder", data_files=files, cache_dir=copied / "cache")
    [split_files] = builder._split_generators(StreamingDownloadManager())
    rows = [row for _, row in builder._generate_examples(**split_files.gen_kwargs)]
    assert set(builder.info.features) == {"audio", "label", "sha256", "recording"}
    assert len(rows) == len(read_table(Path("data/raw/clips.csv"))) == 41
    for row in rows:
        assert Path(row["audio"]).parent.name == row["label"]
        assert sha256(Path(row["audio"]).read_bytes()).hexdigest() == row["sha256"]
    assert sorted(Path(row["audio"]).stem for row in rows if row["recording"] is not None) == ["blues.00000", "copy"]
    assert digests(Path("data/raw")) == before
    gc.collect()  # warns of the files here, not in a later test


def test_confusion_plot_has_all_labels(copied: Path) -> None:
    """The first layers of the plot put actual and predicted labels on both axes."""
    plots = json.loads(dvc(copied, "plots", "show", "metrics/predictions.csv", "--json"))
    [plot] = plots["data"]["metrics/predictions.csv"]
    content = plot["content"] if isinstance(plot["content"], dict) else json.loads(plot["content"])
    actual, predicted, counts = content["spec"]["layer"]
    for layer, field in ((actual, "label"), (predicted, "prediction")):
        assert layer["encoding"]["x"]["field"] == layer["encoding"]["y"]["field"] == field
    assert (counts["encoding"]["x"]["field"], counts["encoding"]["y"]["field"]) == ("label", "prediction")
    count, total, share = counts["transform"]
    assert count["groupby"] == ["rev", "label", "prediction"]
    assert total["groupby"] == ["rev", "label"]
    assert share["calculate"] == "datum.clips / datum.clips_of_label"
    assert [layer["mark"] for layer in counts["layer"]] == ["rect", "text"]
    assert len(content["data"]["values"]) == 10
    assert "<DVC" not in json.dumps(content)


@pytest.mark.usefixtures("quick_figures")
def test_odd_names_go_through_every_stage(workspace: Path) -> None:
    labels = ("None", "R&B, soul", "001", "$x^$")
    for label, hz in zip(labels, (200, 500, 900, 1500)):
        (workspace / "clips" / label).mkdir(parents=True)
        for n in range(8):
            samples = tone(0.4 + 0.1 * n, hz=hz)
            samples = np.stack([samples, samples], axis=1) if n % 2 else samples
            soundfile.write(workspace / "clips" / label / f"{n:03d}.wav", samples, 22_050)
    set_params(workspace, {"download.dataset": {"source": "folder", "path": "clips", "max_rejected": 0}})
    for stage in (download_dataset, download_model, split, resample_encode, train, baselines.main, evaluate, publish):
        stage()
    table = read_table(Path("metrics/predictions.csv"))
    assert list(table.columns) == ["clip", "label", "prediction", *sorted(labels)]
    assert set(table["label"]) == set(labels)
    assert "| R&B, soul | " in Path("models/published/README.md").read_text()


@pytest.mark.rare
def test_queued_experiments_are_readable_rows(copied: Path) -> None:
    dvc(copied, "exp", "run", "--queue", "-S", "evaluate.window_seconds=0.5")
    dvc(copied, "queue", "start")
    for _ in range(120):
        status = dvc(copied, "queue", "status")
        if status.count("Success") + status.count("Failed") == 1:
            break
        time.sleep(1)
    assert status.count("Success") == 1, status
    [command] = re.findall(r"^dvc (exp show .*)$", (ROOT / "README.md").read_text(), re.MULTILINE)
    rows = dvc(copied, *shlex.split(command)).splitlines()
    assert "evaluate.window_seconds" in " ".join(rows)
    assert max(len(row.rstrip()) for row in rows) <= 120
    table = dvc(copied, "exp", "show", "--only-changed", "--csv", "--drop", ".*/.*")
    header, *rows = table.strip().splitlines()
    assert "log_loss" in header
    assert "evaluate.window_seconds" in header
    assert "per_label" not in header
    assert ".csv" not in header
    assert len(rows) == 3
