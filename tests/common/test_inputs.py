"""Inputs that change while a stage runs."""

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from fakes.fork_server import make_dvc
from helpers import dvc, find_programs, set_params, user_error

from stages.common.inputs import HASHED_SIZE, find_entry, list_outputs, unchanged_inputs

PIPELINE = {
    "fit": {
        "cmd": "fit",
        "params": ["train", "split.seed"],
        "deps": ["code", "data/table.csv"],
        "outs": ["out/model"],
        "metrics": [{"out/metrics.json": {"cache": False}}],
    },
    "get": {
        "foreach": {"clips": {"out": "out/clips"}},
        "do": {"cmd": "get ${key}", "params": ["get.${key}"], "deps": ["code/${key}.py"], "outs": ["${item.out}"]},
    },
}
PARAMS = {"train": {"rate": 0.003, "freeze": {"layers": 2}}, "split": {"seed": 1, "size": 0.1}, "get": {"clips": 1}}


@pytest.fixture(autouse=True)
def _project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_STAGE", "fit")
    Path(".dvcignore").write_text("__pycache__/\n*.swp\n")
    Path("dvc.yaml").write_text(yaml.safe_dump({"stages": PIPELINE}))
    Path("params.yaml").write_text(yaml.safe_dump(PARAMS))
    for folder in ("code/inner", "data", "out"):
        Path(folder).mkdir(parents=True)
    Path("code/inner/model.py").write_text("layers = 1\n")
    Path("code/clips.py").write_text("clips = 1\n")
    Path("code/weights.bin").write_bytes(bytes(HASHED_SIZE + 1))
    Path("data/table.csv").write_text("clip\na\n")


def run(change: Callable[[], object]) -> bool:
    """Run a stage during which `change` happens; whether its outputs were there already."""
    with unchanged_inputs() as restore_outputs:
        finished = restore_outputs()
        if not finished:
            Path("out/model").mkdir()
            Path("out/model/weights").write_text(Path("params.yaml").read_text())
            Path("out/metrics.json").write_text("{}")
        change()
    return finished


def param(**values: object) -> Callable[[], None]:
    return lambda: set_params(Path(), {key.replace("__", "."): value for key, value in values.items()})


def write(path: str, text: str) -> Callable[[], object]:
    return lambda: Path(path).write_text(text)


CHANGES = {
    "param": (param(train__rate=1e-5), "train.rate", None),
    "inner": (param(train__freeze__layers=3), "train.freeze.layers", None),
    "removed key": (write("params.yaml", "split: {seed: 1}\ntrain: {rate: 0.003}"), "train.freeze.layers", None),
    "one key of a section": (param(split__seed=2), "split.seed", None),
    "empty mapping": (param(train__freeze={}), "train.freeze", None),
    "new null": (param(train__window=None), "train.window", None),
    "truth": (param(split__seed=True), "split.seed", None),
    "invalid": (write("params.yaml", "train: ["), "split.seed", None),
    "code": (write("code/inner/model.py", "layers = 2\n"), None, "code/inner/model.py"),
    "new file": (write("code/new.py", ""), None, "code/new.py"),
    "removed file": (lambda: Path("data/table.csv").unlink(), None, "data/table.csv"),
    "large file": (lambda: Path("code/weights.bin").write_bytes(bytes(HASHED_SIZE + 2)), None, "code/weights.bin"),
    "large file, same size": (lambda: os.utime("code/weights.bin", ns=(1, 1)), None, "code/weights.bin"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changed_input_is_named_and_outputs_are_kept_aside(change: str) -> None:
    action, key, file = CHANGES[change]
    error = user_error(lambda: run(action))
    assert (error.key, error.file) == (key, file)
    assert not Path("out/model").exists()
    assert not Path("out/metrics.json").exists()
    assert "0.003" in Path("unrecorded/fit/out/model/weights").read_text()


@pytest.mark.parametrize(
    "change",
    [
        param(split__size=0.2),
        param(get__clips=2),
        lambda: Path("params.yaml").write_text("# a comment\n" + Path("params.yaml").read_text()),
        lambda: os.utime("code/inner/model.py", ns=(1, 1)),
        write("code/.model.py.swp", "of an editor"),
        lambda: (Path("code/__pycache__").mkdir(), Path("code/__pycache__/model.pyc").touch()),
        write("other.py", ""),
        write("dvc.yaml", "stages: {}"),
    ],
    ids=["key of another stage", "section", "comment", "time", "editor", "cache", "other file", "dvc.yaml"],
)
def test_other_changes_do_not_matter(change: Callable[[], object]) -> None:
    assert not run(change)
    assert Path("out/model").exists()
    assert not Path("unrecorded").exists()


def test_outputs_return_if_the_change_is_undone(capsys: pytest.CaptureFixture[str]) -> None:
    old = Path("params.yaml").read_text()
    user_error(lambda: run(param(train__rate=1e-5)))
    assert not run(lambda: None)  # with the new rate
    Path("out/model").rename("out/other")
    Path("params.yaml").write_text(old)
    assert run(lambda: None)
    assert Path("out/model/weights").read_text() == old
    assert not Path("unrecorded/fit").exists()
    assert "out/model" in capsys.readouterr().out


def test_without_a_restored_run_the_kept_outputs_stay() -> None:
    """For example if params.yaml has a mistake: nothing was asked for yet."""
    old = Path("params.yaml").read_text()
    user_error(lambda: run(param(train__rate=1e-5)))
    Path("params.yaml").write_text(old)
    with unchanged_inputs():
        pass
    assert Path("unrecorded/fit/out/model/weights").exists()
    assert run(lambda: None)


def test_incomplete_outputs_are_not_restored() -> None:
    old = Path("params.yaml").read_text()
    user_error(lambda: run(param(train__rate=1e-5)))
    Path("params.yaml").write_text(old)
    Path("unrecorded/fit/out/metrics.json").unlink()
    assert not run(lambda: None)


def test_outputs_stay_if_they_cannot_be_kept(capsys: pytest.CaptureFixture[str]) -> None:
    Path("unrecorded").touch()
    assert user_error(lambda: run(param(train__rate=1e-5))).key == "train.rate"
    assert Path("out/model/weights").exists()
    assert capsys.readouterr().err.startswith("warning: unrecorded/fit: ")


def test_missing_output_is_not_kept() -> None:
    def change() -> None:
        Path("out/metrics.json").unlink()
        param(train__rate=1e-5)()

    assert user_error(lambda: run(change)).key == "train.rate"
    assert Path("unrecorded/fit/out/model").is_dir()


@pytest.mark.parametrize("stage", ["../dvc.yaml:fit", "/top/dvc.yaml:fit"])
def test_dvc_that_runs_in_another_folder(stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """DVC then names the stage by the path of its dvc.yaml, and still runs it in the folder of dvc.yaml."""
    monkeypatch.setenv("DVC_STAGE", stage)
    assert user_error(lambda: run(param(train__rate=1))).key == "train.rate"


@pytest.mark.parametrize("content", ["", "stages: [", "stages:", "[]", "- 1", "stages: {fit: {deps: [code]}}"])
def test_odd_dvc_yaml(content: str) -> None:
    Path("dvc.yaml").write_text(content)
    Path(".dvcignore").unlink()
    assert not run(lambda: None)


def test_several_changes_end_in_one_line() -> None:
    def change() -> None:
        param(train__rate=1, split__seed=3)()
        Path("code/clips.py").unlink()

    error = user_error(lambda: run(change))
    assert error.file == "code/clips.py"
    assert "params.yaml: split.seed, params.yaml: train.rate" in str(error)
    assert "\n" not in str(error)


def test_stage_of_a_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_STAGE", "get@clips")

    def get() -> None:
        with unchanged_inputs():
            Path("out/clips").mkdir()
            write("code/clips.py", "clips = 2\n")()

    assert user_error(get).file == "code/clips.py"
    assert Path("unrecorded/get@clips/out/clips").is_dir()


@pytest.mark.parametrize("stage", ["download@dataset", "publish"])
def test_stage_that_depends_on_more_is_run_again(stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clips outside the project may have changed, and a push may be wanted again."""
    monkeypatch.setenv("DVC_STAGE", stage)
    name, _, key = stage.partition("@")
    entry = PIPELINE["fit"]
    stages = {name: {"foreach": {key: {}}, "do": entry} if key else entry}
    Path("dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    old = Path("params.yaml").read_text()
    assert "undo" not in str(user_error(lambda: run(param(train__rate=1e-5))))
    Path("params.yaml").write_text(old)
    assert not run(lambda: None)


@pytest.mark.parametrize("name", [None, "", "other", "other@fit"])
def test_without_an_entry_nothing_is_compared(name: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_STAGE", name) if name else monkeypatch.delenv("DVC_STAGE")
    assert not run(param(train__rate=1))
    assert Path("out/model").exists()


@pytest.mark.slow
def test_dvc_records_nothing_false(copied: Path) -> None:
    """Edit params, code and data while `dvc repro` trains, then undo the edits."""
    set_params(copied, {"train.learning_rate": 1e-3})
    dvc(copied, "repro", "check")
    lock = Path("dvc.lock").read_bytes()
    edited = [Path("params.yaml"), Path("stages/train/loss.py"), Path("data/splits.csv")]
    old = {file: file.read_text() for file in edited}
    env = os.environ | {"PATH": find_programs(os.environ["PATH"], fork=True)}
    env.pop("DVC_STAGE")
    with subprocess.Popen(
        [make_dvc() / "dvc", "repro", "train"], env=env, stderr=subprocess.PIPE, text=True
    ) as running:
        while not Path("models/.finetuned.partial").exists():
            assert running.poll() is None
            time.sleep(0.02)
        for file in edited:
            file.unlink()  # it may be a link to DVC's cache
            file.write_text(old[file].replace("0.001", "0.9").replace("test", "train").replace("import", "import ", 1))
        assert running.stderr is not None
        errors = running.stderr.read()
    assert running.returncode != 0
    assert "error: data/splits.csv: changed" in errors
    assert "(also changed: params.yaml: train.learning_rate, stages/train/loss.py)" in errors
    assert Path("dvc.lock").read_bytes() == lock
    for file in edited:
        file.write_text(old[file])
    assert "from unrecorded/train/" in dvc(copied, "repro", "train")
    assert "learning_rate: 0.001" in Path("dvc.lock").read_text()
    assert "train" not in dvc(copied, "status", "train")


def test_foreach_over_a_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stage that a user adds must not hide the others."""
    monkeypatch.chdir(tmp_path)
    Path("dvc.yaml").write_text(
        "stages:\n  train: {cmd: a, deps: [x]}\n"
        "  own: {foreach: [1, b], do: {cmd: 'echo ${item}', outs: ['o/${item}']}}\n"
    )
    assert find_entry("train") == {"cmd": "a", "deps": ["x"]}
    assert find_entry("own@b")["outs"] == ["o/b"]
    assert list_outputs() == [Path("o/1"), Path("o/b")]
