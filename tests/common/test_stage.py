import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Literal

import pytest
from conftest import ROOT, error_of
from pydantic import Field

from stages.common.stage import Number, Section, StageError, load_params, run, whole


class Params(Section):
    epochs: int = Field(ge=1)
    learning_rate: Number = Field(gt=0)
    precision: Literal["fp32", "bf16"] = "fp32"


class Here(Section):
    source: Literal["here"]
    path: str


class There(Section):
    source: Literal["there"]
    id: str


def load(text: str, schema: type = Params, section: str = "train") -> object:
    Path("params.yaml").write_text(text)
    return load_params(section, schema)


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("text", ["5e-5", "5.0e-5", "0.00005"])
def test_a_learning_rate_may_be_written_as_people_write_it(text: str) -> None:
    assert load(f"train: {{epochs: 2, learning_rate: {text}}}") == Params(epochs=2, learning_rate=5e-5)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("train: {epochs: 2, learning_rte: 1.0}", "error: params.yaml: train.learning_rte: unknown key, did you mean"),
        ("train: {epochs: 2, learning_rate: 1.0, x: 1}", "train.x: unknown key; remove it"),
        ("train: {epochs: two, learning_rate: 1.0}", "train.epochs: input should be a valid integer, not 'two'"),
        ("train: {epochs: true, learning_rate: 1.0}", "train.epochs: input should be a valid integer, not True"),
        ("train: {epochs: 0, learning_rate: 1.0}", "train.epochs: input should be greater than or equal to 1, not 0"),
        ("train: {epochs: 2, learning_rate: fast}", "train.learning_rate: input should be a valid number, not 'fast'"),
        ("train: {epochs: 2}", "train.learning_rate: missing; add it"),
        ("train: {epochs: 2, learning_rate: 1, precision: fp8}", "train.precision: input should be 'fp32' or 'bf16'"),
        ("evaluate: {}", "section train is missing"),
        ("train: 7", "params.yaml: train: needs keys of its own, not 7"),
        ("train: {", "params.yaml is not valid YAML"),
    ],
)
def test_a_wrong_param_is_refused_by_name_in_one_line(text: str, expected: str) -> None:
    assert expected in error_of(lambda: load(text))


def test_ctrl_c_ends_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> None:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as stop:
        run(main)
    assert stop.value.code == 130
    assert capsys.readouterr().err.startswith("interrupted: ")


def test_a_private_file_in_an_output_becomes_readable() -> None:
    with whole(Path("thing")) as path:
        path.mkdir()
        (path / "file").touch(mode=0o600)
    assert Path("thing/file").stat().st_mode & 0o444 == 0o444


def test_the_source_of_a_union_is_no_part_of_the_key() -> None:
    union = Annotated[Here | There, Field(discriminator="source")]
    message = error_of(lambda: load("download: {dataset: {source: here, id: x}}", union, "download.dataset"))
    assert "params.yaml: download.dataset.path: missing" in message
    assert "params.yaml: download.dataset.id: unknown key" in message


def test_no_params_file_says_where_to_run() -> None:
    assert "top folder" in error_of(lambda: load_params("train", Params))


@pytest.mark.parametrize("folder", [False, True])
def test_an_output_is_whole_or_as_it_was(folder: bool) -> None:
    target = Path("out/thing")

    def write(path: Path, text: str) -> None:
        if folder:
            path.mkdir()
            path = path / "file"
        path.write_text(text)

    def read() -> str:
        return (target / "file" if folder else target).read_text()

    with whole(target) as path:
        write(path, "first")
    assert read() == "first"
    with pytest.raises(StageError), whole(target) as path:
        write(path, "second, in ha")
        raise StageError("the power went")
    assert read() == "first"
    with whole(target) as path:
        write(path, "third")
    assert read() == "third"
    assert [file.name for file in Path("out").iterdir()] == ["thing"]


COMMANDS = ["download", "split", "resample_encode", "train", "evaluate", "publish"]


@pytest.mark.parametrize("command", [*(f"stages.{name}" for name in COMMANDS), "tools.compare", "tools.gather"])
def test_help_describes_and_runs_nothing(command: str, workspace: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in workspace.rglob("*") if "__pycache__" not in str(path)}
    python, env = [sys.executable, "-m", command], os.environ | {"PYTHONPATH": str(ROOT)}
    shown = subprocess.run([*python, "--help"], env=env, capture_output=True, text=True)
    assert shown.returncode == 0
    assert shown.stdout.startswith(f"usage: python -m {command}")
    assert "Run     python -m" in shown.stdout
    if command.startswith("stages"):
        for part in ("Reads   ", "Writes  ", "keys of "):
            assert part in shown.stdout
        assert "Annotated" not in shown.stdout
    refused = subprocess.run([*python, "a", "b", "c", "--frobnicate"], env=env, capture_output=True, text=True)
    assert refused.returncode == 2
    assert "Traceback" not in refused.stderr
    after = {path: path.stat().st_mtime_ns for path in workspace.rglob("*") if "__pycache__" not in str(path)}
    assert {path: time for path, time in after.items() if path.is_file()} == {
        path: time for path, time in before.items() if path.is_file()
    }
