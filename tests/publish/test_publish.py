import re
from pathlib import Path

import pytest
from fakes.hub.server import LocalHub
from fakes.small_hub import commit_titles, stage, stage_error
from helpers import git, set_params, user_error
from safetensors.numpy import load_file, save_file

from stages.common.paths import FINETUNED
from stages.common.tables import read_json, write_json
from stages.publish.__main__ import check_accuracy, git_commit, main


@pytest.mark.slow
def test_published_files(finished: Path) -> None:
    folder = finished / "models/published"
    assert {str(file.relative_to(folder)) for file in folder.rglob("*")} == {
        "README.md",
        "config.json",
        "metrics.json",
        "model.safetensors",
        "predictions.csv",
        "preprocessor_config.json",
        "result.png",
        "runs",
        "runs/events.out.tfevents.0",
        "training.json",
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", ["metrics.json", "config.json", "training.json", "README.md"])
def test_files_do_not_name_machine(finished: Path, name: str) -> None:
    text = (finished / "models/published" / name).read_text()
    assert str(finished) not in text
    assert str(Path.home()) not in text


@pytest.mark.parametrize("name", ["my model", "my--model", ".x", "x.", "a/b/c", ""])
def test_invalid_name(workspace: Path, name: str) -> None:
    set_params(workspace, {"publish.name": name})
    [problem] = user_error(main).problems
    assert problem.key == "publish.name"


def test_missing_outputs(workspace: Path) -> None:
    assert user_error(main).file == "models/finetuned/training.json"


def test_check_accuracy() -> None:
    check_accuracy(None, 0.1)
    check_accuracy(0.5, 0.5)
    error = user_error(lambda: check_accuracy(0.6, 0.5))
    assert error.key == "publish.min_accuracy"
    assert "test accuracy 0.5 is below 0.6" in str(error)


def test_git_commit(workspace: Path) -> None:
    commit = git(workspace, "rev-parse", "--short=7", "HEAD").strip()
    Path("untracked").touch()
    assert git_commit() == commit
    Path("params.yaml").write_text("changed: true")
    assert git_commit() == f"{commit}+"


def test_git_commit_outside_repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert git_commit() == "unknown"


@pytest.fixture
def publishing(copied: Path, hub: LocalHub) -> LocalHub:
    """A Hub, and a workspace in which all stages but publish ran."""
    set_params(copied, {"publish.push": True})
    return hub


@pytest.mark.slow
def test_push(publishing: LocalHub, copied: Path) -> None:
    set_params(copied, {"publish.space": True})
    output = stage(publishing, "stages.publish", token="hf_ann")
    assert f"{publishing.url}/ann/hubert-demo" in output
    assert "hf_ann" not in output
    titles = commit_titles(publishing, "ann/hubert-demo")
    commit = git(Path.cwd(), "rev-parse", "--short=7", "HEAD").strip()
    assert re.fullmatch(rf"Publish git commit {commit}\+?, test accuracy 0\.\d{{3}}", titles[0])
    assert len(titles) == 2
    repo = publishing.repository("model", "ann/hubert-demo")
    assert [tag for tag in repo.refs["tags"] if tag.startswith(f"git-{commit}")]
    files = {
        str(file.relative_to("models/published")) for file in Path("models/published").rglob("*") if file.is_file()
    }
    assert set(repo.resolve("main").tree) - {".gitattributes"} == files
    assert "ann/hubert-demo" in publishing.private
    space = publishing.repository("space", "ann/hubert-demo").resolve("main").tree
    assert set(space) - {".gitattributes"} == {file.name for file in Path("models/space").iterdir()}
    assert f"{publishing.url}/spaces/ann/hubert-demo" in output
    stage(publishing, "stages.publish", token="hf_ann")
    assert commit_titles(publishing, "ann/hubert-demo") == titles


@pytest.mark.slow
def test_push_to_other_owner(publishing: LocalHub, copied: Path) -> None:
    set_params(copied, {"publish.name": "somebody/else"})
    assert "somebody/else" in stage_error(publishing, "stages.publish", token="hf_ann")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("min_accuracy", "token", "expected"),
    [(1.0, "hf_ann", "publish.min_accuracy"), (None, None, "publish.push"), (None, "hf_unknown", "rejects HF_TOKEN")],
    ids=["accuracy", "no-token", "unknown-token"],
)
def test_refused_push_writes_nothing(
    publishing: LocalHub, copied: Path, min_accuracy: float | None, token: str | None, expected: str
) -> None:
    set_params(copied, {"publish.min_accuracy": min_accuracy})
    before = Path("models/published/README.md").stat().st_mtime_ns
    assert expected in stage_error(publishing, "stages.publish", token=token)
    assert Path("models/published/README.md").stat().st_mtime_ns == before
    assert not publishing.repository("model", "ann/hubert-demo").exists


@pytest.mark.slow
@pytest.mark.parametrize(
    "damage",
    [
        "missing weights",
        "config",
        *(pytest.param(name, marks=pytest.mark.rare) for name in ("cut", "missing file", "feature extractor")),
    ],
)
def test_damaged_model_is_not_pushed(publishing: LocalHub, copied: Path, damage: str) -> None:
    weights = FINETUNED / "model.safetensors"
    if damage == "cut":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif damage == "missing weights":
        tensors = load_file(weights)
        del tensors["projector.weight"]
        save_file(tensors, weights, {"format": "pt"})
    elif damage == "missing file":
        weights.unlink()
    elif damage == "config":
        write_json(FINETUNED / "config.json", read_json(FINETUNED / "config.json") | {"model_type": "hubret"})
    else:
        write_json(FINETUNED / "preprocessor_config.json", {"feature_extractor_type": "None", "sampling_rate": 16_000})
    line = stage_error(publishing, "stages.publish", token="hf_ann")
    assert line.startswith(("error: models/finetuned", "error: models/published"))
    assert not publishing.repository("model", "ann/hubert-demo").exists
