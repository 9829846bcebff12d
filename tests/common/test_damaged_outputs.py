"""Outputs of earlier stages that are damaged."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers import user_error

from stages.common.classifier import load_classifier
from stages.common.configs import load_config, load_extractor
from stages.common.encoded_clips import open_encoded_clips, select_split
from stages.common.paths import BASE, CLIPS, ENCODED, EPOCHS, FINETUNED, RAW, SPLITS
from stages.common.tables import (
    CONTENTS,
    TABLES,
    read_epochs,
    read_json,
    read_table,
    require_intact,
    require_same_labels,
)

pytestmark = pytest.mark.slow  # the pipeline runs once for all of them


def flip(file: Path, share: float) -> None:
    content = bytearray(file.read_bytes())
    content[int(share * (len(content) - 1))] ^= 0xFF
    file.write_bytes(content)


def replace_by_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


# Faults of any file -> what makes them.
FAULTS: dict[str, Callable[[Path], Any]] = {
    "empty": lambda file: file.write_bytes(b""),
    "half": lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2]),
    "first byte": lambda file: flip(file, 0),
    "a byte": lambda file: flip(file, 0.5),
    "text": lambda file: file.write_text("hello\nworld, again\n"),
    "list": lambda file: file.write_text("[]"),
    "zeros": lambda file: file.write_bytes(bytes(500)),
    "folder": replace_by_folder,
    "missing": Path.unlink,
}
every_fault = pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)


def copy(finished: Path, *paths: Path) -> None:
    """Copy outputs of the finished workspace into the current folder."""
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        copy_one = shutil.copytree if (finished / path).is_dir() else shutil.copyfile
        copy_one(finished / path, path)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def assert_damaged(read: Callable[[], object], file: Path) -> None:
    error = user_error(read)
    assert error.file is not None
    assert Path(error.file).is_relative_to(file)
    assert "damaged: " in str(error) or "missing; " in str(error)
    assert "dvc repro" in str(error)
    assert len(str(error).splitlines()) == 1


@every_fault
@pytest.mark.parametrize("path", TABLES, ids=str)
def test_damaged_table(finished: Path, path: Path, fault: Callable[[Path], Any]) -> None:
    copy(finished, path)
    read_table(path)
    fault(path)
    assert_damaged(lambda: read_table(path), path)


CLIP = "a,x,audio/x/a.wav,00,22050,1,1.5"
HEADER = "clip,label,path,sha256,sampling_rate,channels,seconds"


@pytest.mark.parametrize(
    "lines",
    [
        [HEADER],
        [CLIP],
        [HEADER, CLIP, CLIP],
        [HEADER.replace("sha256,", ""), CLIP],
        [HEADER, CLIP + ",b"],
        [HEADER, CLIP.removesuffix(",1.5")],
        [HEADER, CLIP.replace("22050", "fast")],
        [HEADER, CLIP.replace("1.5", "nan")],
        [HEADER, CLIP.replace("a,x", ",x")],
    ],
)
def test_table_with_other_rows(lines: list[str]) -> None:
    CLIPS.parent.mkdir(parents=True)
    CLIPS.write_text("\n".join(lines) + "\n")
    assert_damaged(lambda: read_table(CLIPS), CLIPS)


@every_fault
@pytest.mark.parametrize("path", CONTENTS, ids=str)
def test_damaged_json(finished: Path, path: Path, fault: Callable[[Path], Any]) -> None:
    copy(finished, path)
    read_json(path)
    fault(path)
    assert_damaged(lambda: read_json(path), path)


@pytest.mark.parametrize("path", CONTENTS, ids=str)
@pytest.mark.parametrize("value", [None, [1, "a"], -1, {}])
def test_json_with_other_values(finished: Path, path: Path, value: Any) -> None:
    copy(finished, path)
    content = read_json(path)
    path.write_text(json.dumps(dict.fromkeys(content, value)))
    assert_damaged(lambda: read_json(path), path)


@every_fault
def test_damaged_epochs(finished: Path, fault: Callable[[Path], Any]) -> None:
    copy(finished, EPOCHS)
    fault(EPOCHS / "plots/metrics/eval_loss.tsv")
    assert_damaged(lambda: read_epochs(EPOCHS), EPOCHS)


@every_fault
@pytest.mark.parametrize("name", ["state.json", "dataset_info.json", "encoding.json", "preprocessor_config.json"])
def test_damaged_encoded_clips(finished: Path, name: str, fault: Callable[[Path], Any]) -> None:
    copy(finished, ENCODED)
    fault(ENCODED / name)
    assert_damaged(lambda: open_encoded_clips(ENCODED), ENCODED)


@pytest.mark.parametrize("fault", [name for name in FAULTS if name != "a byte"])  # one of the features is not noticed
def test_damaged_features(finished: Path, fault: str) -> None:
    copy(finished, ENCODED)
    FAULTS[fault](ENCODED / "data-00000-of-00001.arrow")
    assert_damaged(lambda: open_encoded_clips(ENCODED), ENCODED)


@pytest.mark.parametrize("change", ["label", "split", "clip"])
def test_splits_of_other_clips(finished: Path, change: str) -> None:
    copy(finished, ENCODED, SPLITS)
    encoded, splits = open_encoded_clips(ENCODED), read_table(SPLITS)
    splits.loc[splits["split"] == "test", change] = {"label": "pop", "split": "train", "clip": "x"}[change]
    assert "dvc repro" in str(user_error(lambda: select_split(encoded, splits, "test")))


@every_fault
@pytest.mark.parametrize("folder_", [BASE, FINETUNED], ids=str)
def test_damaged_config(finished: Path, folder_: Path, fault: Callable[[Path], Any]) -> None:
    copy(finished, folder_)
    fault(folder_ / "config.json")
    assert_damaged(lambda: load_config(folder_), folder_)
    copy(finished, folder_ / "preprocessor_config.json")
    fault(folder_ / "preprocessor_config.json")
    assert_damaged(lambda: load_extractor(folder_), folder_)


@pytest.mark.parametrize("fault", [name for name in FAULTS if name != "a byte"])  # one of the weights is not noticed
def test_damaged_weights(finished: Path, fault: str) -> None:
    copy(finished, FINETUNED)
    FAULTS[fault](FINETUNED / "model.safetensors")
    assert_damaged(lambda: load_classifier(FINETUNED, load_config(FINETUNED), new_head=False), FINETUNED)


@every_fault
def test_damaged_recording(finished: Path, fault: Callable[[Path], Any]) -> None:
    copy(finished, RAW)
    clip = read_table(CLIPS).iloc[3]
    require_intact(RAW / clip["path"], clip["sha256"])
    fault(RAW / clip["path"])
    assert_damaged(lambda: require_intact(RAW / clip["path"], clip["sha256"]), RAW / clip["path"])


@pytest.mark.parametrize(("column", "value"), [("clip", "x"), ("label", "pop")])
def test_clips_of_another_table(finished: Path, column: str, value: str) -> None:
    copy(finished, RAW)
    clips, splits = read_table(CLIPS), read_table(CLIPS)
    splits.loc[0, column] = value
    assert f" {value}" in str(user_error(lambda: require_same_labels(clips, splits)))
