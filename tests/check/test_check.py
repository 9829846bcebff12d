"""The stage that comes before DVC removes anything."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import soundfile
import yaml
from helpers import digests, dvc, problems, set_params, tone, user_error, write_clips

from stages.check.__main__ import main as check
from stages.common.params_check import check_params

FOLDER = {"source": "folder", "max_rejected": 0}


def clips_in_raw() -> dict[str, object]:
    write_clips(Path("data/raw/audio"), number=2)
    return {"download.dataset": FOLDER | {"path": "data/raw/audio"}}


def clips_by_absolute_path() -> dict[str, object]:
    write_clips(Path("data/raw"), number=2)
    return {"download.dataset": FOLDER | {"path": str(Path("data/raw").resolve())}}


def clips_behind_a_link() -> dict[str, object]:
    write_clips(Path("data/raw"), number=2)
    Path("clips").symlink_to("data/raw")
    return {"download.dataset": FOLDER | {"path": "clips"}}


def checkpoint_in_base() -> dict[str, object]:
    Path("models/base").mkdir(parents=True)
    Path("models/base/config.json").write_text("{}")
    return {"download.model": {"source": "folder", "path": "models/base"}}


def list_as_splits() -> dict[str, object]:
    Path("data/splits.csv").write_text("clip,split\nblues.00000,test\n")
    return {"split.method": "published", "split.published": "data/splits.csv"}


def groups_in_raw() -> dict[str, object]:
    Path("data/raw").mkdir(parents=True)
    Path("data/raw/artists.csv").write_text("clip,artist\n")
    return {"split.groups": {"artist": "./data/raw/artists.csv"}}


def background_in_raw() -> dict[str, object]:
    Path("data/raw/noise").mkdir(parents=True)
    soundfile.write("data/raw/noise/1.wav", tone(), 22_050)
    return {"download.dataset.background": "data/raw/noise"}


NAMED = {
    background_in_raw: "download.dataset.background",
    clips_in_raw: "download.dataset.path",
    clips_by_absolute_path: "download.dataset.path",
    clips_behind_a_link: "download.dataset.path",
    checkpoint_in_base: "download.model.path",
    list_as_splits: "split.published",
    groups_in_raw: "split.groups.artist",
}


@pytest.mark.slow
@pytest.mark.parametrize("place", NAMED, ids=lambda place: place.__name__)
def test_named_file_in_an_output(place: Callable[[], dict[str, object]], workspace: Path) -> None:
    set_params(workspace, place())
    [(key, message)] = problems(check).items()
    assert key == NAMED[place]
    assert "move your files" in message


@pytest.mark.parametrize(
    "file",
    ["data/raw/audio/a/1.wav", "data/raw/notes.txt", "models/base/model.safetensors", "models/finetuned/config.json",
     "models/published/app.py", "data/encoded/a.arrow", "data/splits.csv"],
)  # fmt: skip
def test_other_file_in_an_output(file: str, workspace: Path) -> None:
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    Path(file).write_text("mine")
    error = user_error(check)
    assert f"no stage wrote {'/'.join(file.split('/')[2:]) or 'splits.csv'}." in str(error)


def test_link_to_another_disk(workspace: Path) -> None:
    Path("disk").mkdir()
    Path("data/raw").symlink_to("../disk")
    assert "no stage wrote raw." in str(user_error(check))


@pytest.mark.slow
def test_dvc_deletes_nothing_of_the_user(workspace: Path) -> None:
    """With plain DVC, also for the stage alone, and again."""
    values: dict[str, object] = {}
    for place in (clips_in_raw, checkpoint_in_base, list_as_splits):
        values |= place()
    set_params(workspace, values)
    before = digests(Path("data")) | digests(Path("models"))
    for command in (["repro", "download@dataset"], ["repro"], ["repro", "--force"]):
        output = dvc(workspace, *command, check=False)
        assert "error: params.yaml: download.dataset.path: data/raw/audio is in data/raw, an output" in output
        assert digests(Path("data")) | digests(Path("models")) == before


@pytest.mark.slow
def test_outputs_of_the_stages_are_no_files_of_the_user(copied: Path) -> None:
    Path("models/published/onnx").mkdir()
    Path("models/published/onnx/model.onnx").touch()  # with publish.onnx
    check()
    Path("data/raw/.DS_Store").touch()
    shutil.rmtree("models/finetuned")
    check()
    for name in ("data/raw/artists.csv", "models/base/ck/model.safetensors", "data/encoded/x.csv", "data/raw/audio/a"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text("mine")
        assert f"no stage wrote {'/'.join(name.split('/')[2:])}." in str(user_error(check))
        Path(name).unlink()
    clip = next(Path("data/raw/audio").rglob("*.wav"))
    shutil.copyfile(clip, clip.with_name("mine.wav"))
    assert f"no stage wrote audio/{clip.parent.name}/mine.wav." in str(user_error(check))


@pytest.mark.slow
def test_what_a_finished_stage_needed_may_be_gone(copied: Path) -> None:
    """As on a colleague's machine, that got the outputs from a remote."""
    set_params(copied, {"split.published": "gone.csv", "split.method": "published"})
    assert set(problems(lambda: check_params("check"))) == {"split.published"}
    lock = yaml.safe_load(Path("dvc.lock").read_text())
    lock["stages"]["split"]["params"] = {"params.yaml": yaml.safe_load(Path("params.yaml").read_text())}
    Path("dvc.lock").write_text(yaml.safe_dump(lock))
    check_params("check")
