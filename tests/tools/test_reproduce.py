"""Run the last commit again, with real DVC, and find what differs."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
from fakes.fork_server import make_python
from helpers import digests, dvc, git, user_error
from safetensors.torch import load_file, save_file

from stages.common.paths import ENVIRONMENT, FINETUNED, PREDICTIONS
from tools import reproduce
from tools.differences import Changes, Difference, compare_environments, compare_weights, find_other_inputs, is_equal


@pytest.fixture
def check(copied: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """A function that runs the tool on the finished run; it returns the exit status and the lines of the result."""
    python = make_python()
    monkeypatch.setenv("PATH", os.pathsep.join([str(python), str(Path(sys.executable).parent), os.environ["PATH"]]))

    def call(*arguments: str) -> str:
        capfd.readouterr()
        monkeypatch.setattr("sys.argv", ["reproduce", *arguments])
        with pytest.raises(SystemExit) as stop:
            reproduce.main()
        output = capfd.readouterr().out
        assert "To track the changes" not in output
        assert "dvc push" not in output
        return f"exit status {stop.value.code:d}\n{output.rpartition(chr(10) * 2)[2]}"

    return call


def commit(folder: Path) -> None:
    """Commit changed outputs as if the stages had written them."""
    dvc(folder, "commit", "--force")
    git(folder, "commit", "-q", "-am", "Change")


@pytest.mark.slow
def test_same_result_is_identical_and_changes_no_file(copied: Path, check: Callable[..., str]) -> None:
    before = {name: digest for name, digest in digests(copied).items() if not name.startswith(".dvc/tmp/")}
    result = check()
    assert result.startswith("exit status 0\nidentical: ")
    after = {name: digest for name, digest in digests(copied).items() if not name.startswith(".dvc/tmp/")}
    assert after == before
    assert not list(Path(".dvc/tmp").glob("reproduce-*"))


@pytest.mark.rare
@pytest.mark.slow
def test_changed_weight_is_the_first_difference(copied: Path, check: Callable[..., str]) -> None:
    file = FINETUNED / "model.safetensors"
    weights = load_file(file)
    weights["classifier.bias"][0] += 9.0
    file.unlink()  # it may be a link to the cache
    save_file(weights, file, metadata={"format": "pt"})
    table = pd.read_csv(PREDICTIONS)
    table.loc[0, "prediction"] = "rock" if table.loc[0, "prediction"] != "rock" else "blues"
    table.loc[1, "pop"] += 0.25
    table.to_csv(PREDICTIONS, index=False)
    entries = json.loads(ENVIRONMENT.read_text())
    entries["evaluate"] |= {"threads": 96, "libraries": entries["evaluate"]["libraries"] | {"torch": "1.0"}}
    ENVIRONMENT.write_text(json.dumps(entries))
    commit(copied)
    status, result, first, second, *others = check().splitlines()
    assert (status, result) == ("exit status 1", "different, first in: weights")
    size = "1 of 4 files differ, first model.safetensors; largest difference of a weight: 9"
    assert first == f"  models/finetuned: {size}"
    assert second == "  metrics/predictions.csv: differs"
    assert others[:2] == [
        "  test clips with another prediction: 1 of 10",
        "  largest difference of a probability: 0.25",
    ]
    assert "  metrics/environment.json: the entry of train describes another run than that of dvc.lock" in others
    assert others[-1].startswith("  evaluate: threads was 96, here 1; torch was 1.0, here 2")


@pytest.mark.rare
@pytest.mark.slow
def test_changed_clip_is_the_first_difference(copied: Path, check: Callable[..., str]) -> None:
    clip = sorted(Path("data/raw/audio").rglob("*.wav"))[0]
    content = bytearray(clip.read_bytes())
    content[-1] ^= 1
    clip.unlink()
    clip.write_bytes(content)
    commit(copied)
    result = check("--all")
    files = len(digests(Path("data/raw")))
    assert result.startswith("exit status 1\ndifferent, first in: data\n  data/raw: 1 of ")
    assert f"data/raw: 1 of {files} files differ, first {clip.relative_to('data/raw')}\n" in result


def test_unfinished_commit_is_named(workspace: Path) -> None:
    error = user_error(lambda: reproduce.reproduce(("evaluate",), upstream=False))
    assert str(error).startswith("dvc.lock: the last commit has no finished run; run dvc repro")


def test_input_that_was_another_version_is_found() -> None:
    lock = {
        "download": {"outs": [{"path": "data/raw", "md5": "1"}]},
        "encode": {"deps": [{"path": "data/raw", "md5": "2"}, {"path": "stages/a.py", "md5": "3"}]},
        "evaluate": {"deps": [{"path": "data/raw", "md5": "1"}]},
    }
    [difference] = find_other_inputs(lock)
    assert difference.describe() == "data/raw: encode ran with another version than the one in dvc.lock"
    assert difference.kind == "data"


def test_outputs_are_in_the_order_of_the_graph() -> None:
    paths = ["mine", "metrics/metrics.json", "models/finetuned", "data/encoded", "models/base", "data/raw"]
    ordered = sorted((Difference(Path(path), "") for path in paths), key=lambda difference: difference.place)
    assert [difference.kind for difference in ordered] == [
        *("data", "base model", "encoding", "weights", "metrics", "other")
    ]


@pytest.mark.parametrize(
    ("path", "changes", "equal"),
    [
        ("metrics/predictions.csv", Changes(0.001, 0, 9), True),
        ("models/finetuned", Changes(0.001, 0, 9), True),
        ("metrics/predictions.csv", Changes(0.0011, 0, 9), False),
        ("metrics/predictions.csv", Changes(float("nan"), 0, 9), False),
        ("metrics/predictions.csv", Changes(0.0, 1, 9), False),
        ("metrics/predictions.csv", None, False),
        ("data/raw", Changes(0.0, 0, 9), False),
    ],
)
def test_tolerance(path: str, changes: Changes | None, equal: bool) -> None:
    assert is_equal([Difference(Path(path), "differs")], changes) == equal


def test_weights_of_other_shapes_are_not_compared(tmp_path: Path) -> None:
    for name, size in (("a", 2), ("b", 3)):
        (tmp_path / name).mkdir()
        save_file({"w": torch.zeros(size)}, tmp_path / name / "model.safetensors")
    assert "shapes differ" in compare_weights(tmp_path / "a", tmp_path / "b")


def test_entry_of_another_run_is_named() -> None:
    lock = {"train": {"outs": [{"path": "models/finetuned", "md5": "1"}]}}
    entries = {"train": {"cpu": "A", "gpu": "H100", "outputs": {"models/finetuned": "2"}, "seconds": 3}}
    here = {"train": {"cpu": "A", "outputs": {"models/finetuned": "1"}, "seconds": 4}}
    assert compare_environments(entries, here, lock, ("train",)) == [
        "metrics/environment.json: the entry of train describes another run than that of dvc.lock",
        "train: gpu was H100, here None",
    ]
    assert compare_environments({}, here, lock, ("train",)) == ["metrics/environment.json: it has no entry for train"]
