"""The entries of metrics/environment.json."""

import json
import os
import platform
from pathlib import Path

import pytest
import yaml
from helpers import ROOT, dvc, set_params

from stages.common.environment_record import earlier_seconds, record_environment
from stages.common.paths import ENVIRONMENT
from stages.common.stage import _name_entry


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a stage `fit` that has run; the test runs inside it."""
    monkeypatch.chdir(tmp_path)
    earlier_seconds.clear()  # as run_stage does
    Path("dvc.yaml").write_text(yaml.safe_dump({"stages": {"fit": {"cmd": "fit", "outs": ["model", "table.csv"]}}}))
    Path("model").mkdir()
    Path("model/weights").write_text("1")
    Path("table.csv").write_text("a,b\n")
    return tmp_path


def test_entry_stays_until_outputs_change(project: Path) -> None:
    record_environment("fit", 1.26)
    first = ENVIRONMENT.read_bytes()
    assert json.loads(first)["fit"]["seconds"] == 1.3
    assert json.loads(first)["fit"]["python"] == platform.python_version()
    record_environment("fit", 9)
    assert ENVIRONMENT.read_bytes() == first
    Path("model/weights").rename("model/other")
    record_environment("fit", 9)
    assert json.loads(ENVIRONMENT.read_text())["fit"]["seconds"] == 9


def test_entries_of_other_stages_stay(project: Path) -> None:
    ENVIRONMENT.parent.mkdir()
    ENVIRONMENT.write_text('{"other": {"seconds": 1}}')
    record_environment("fit", 2)
    assert json.loads(ENVIRONMENT.read_text())["other"] == {"seconds": 1}
    record_environment("unknown", 2)
    assert set(json.loads(ENVIRONMENT.read_text())) == {"fit", "other"}


@pytest.mark.parametrize("content", ["<<<<<<< HEAD\n{}", "[]", '{"fit": 1}', b"\xff"])
def test_broken_file_gives_a_warning_and_stays(
    project: Path, capsys: pytest.CaptureFixture[str], content: str | bytes
) -> None:
    ENVIRONMENT.parent.mkdir()
    broken = content if isinstance(content, bytes) else content.encode()
    ENVIRONMENT.write_bytes(broken)
    record_environment("fit", 2)
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"warning: {ENVIRONMENT}: the entry of fit was not written: ")
    assert ENVIRONMENT.read_bytes() == broken


def test_place_that_cannot_be_written_gives_a_warning(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("metrics").write_text("a file")
    record_environment("fit", 2)
    assert "was not written: Not a directory" in capsys.readouterr().err
    Path("metrics").unlink()
    ENVIRONMENT.mkdir(parents=True)
    record_environment("fit", 2)
    assert "was not written: Is a directory" in capsys.readouterr().err
    assert os.listdir("metrics") == [ENVIRONMENT.name]  # noqa: PTH208


def test_scripts_that_run_without_dvc_have_the_names_of_dvc_yaml() -> None:
    names = set()
    for name, entry in yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"].items():
        for key in entry.get("foreach", {"": None}):
            command = entry.get("do", entry)["cmd"].replace("${key}", key)
            module, *arguments = command.removeprefix("python -m ").split()
            assert _name_entry(module, arguments) == (f"{name}@{key}" if key else name)
            names.add(name)
    assert len(names) == 8


@pytest.mark.slow
def test_each_stage_has_an_entry_with_the_hashes_of_dvc_lock(finished: Path) -> None:
    text = (finished / ENVIRONMENT).read_text()
    lock = yaml.safe_load((finished / "dvc.lock").read_text())["stages"]
    hashes = {name: {out["path"]: out["md5"] for out in stage["outs"]} for name, stage in lock.items()}
    entries = json.loads(text)
    assert {name: entry["outputs"] for name, entry in entries.items()} == {
        name: outputs for name, outputs in hashes.items() if name != "check"
    }
    for stage in ("train", "evaluate"):
        assert (entries[stage]["threads"], entries[stage]["precision"]) == (1, "fp32")
        assert "torch" in entries[stage]["libraries"]
    assert platform.node() not in text
    assert str(finished) not in text


@pytest.mark.slow
def test_stage_replaces_its_entry_only(copied: Path) -> None:
    before = json.loads(ENVIRONMENT.read_text())
    set_params(copied, {"split.seed": 9})
    dvc(copied, "repro", "--single-item", "split")
    after = json.loads(ENVIRONMENT.read_text())
    assert {name for name in before if before[name] != after[name]} == {"split"}
    ENVIRONMENT.write_text("<<<<<<< HEAD")
    assert "warning: metrics/environment.json" in dvc(copied, "repro", "--force", "--single-item", "split")
