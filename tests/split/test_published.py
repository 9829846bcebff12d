from pathlib import Path

import pandas as pd
import pytest
from helpers import set_params, user_error
from split.examples import number_clips, write_artists, write_raw

from stages.common.paths import SPLIT_COUNTS
from stages.common.tables import read_json
from stages.split.__main__ import main
from stages.split.published import read_published_split

CLIPS = pd.DataFrame({"clip": ["a", "b", "c"], "label": "x"})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "mine.csv"


def test_unlisted_clips_are_left_out(file: Path) -> None:
    file.write_text("clip,split\nc,test\na,train\n")
    assert read_published_split(CLIPS, [], str(file)).tolist() == ["train", None, "test"]


def test_rejected_files_may_be_listed(file: Path) -> None:
    file.write_text("clip,split\na,train\nbroken,test\n")
    assert read_published_split(CLIPS, ["x/broken.wav"], str(file)).tolist() == ["train", None, None]


def test_names_and_splits_in_other_forms(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_bytes("Clip\tSplit\r\nx/A.wav\tTrain\r\nc.flac\tTEST \r\nx/Broken.wav\ttest\r\n".encode("utf-16"))
    assert read_published_split(CLIPS, ["x/broken.wav"], str(file)).tolist() == ["train", None, "test"]
    assert "no split for 1 of 3 clips (first: b)" in capsys.readouterr().out


def test_other_data_set_is_refused(file: Path) -> None:
    file.write_text("clip,split\na,train\nz,test\ny,test\n")
    error = user_error(lambda: read_published_split(CLIPS, [], str(file)))
    assert error.file == str(file)
    assert "2 of its clips" in str(error)
    assert "first: y" in str(error)


@pytest.mark.parametrize("name", ["dev", ""])
def test_unknown_split_is_named(file: Path, name: str) -> None:
    file.write_text(f"clip,split\na,{name}\n")
    error = user_error(lambda: read_published_split(CLIPS, [], str(file)))
    assert error.file == str(file)
    assert f"split {name!r}" in str(error)


def test_refused_list_writes_nothing(workspace: Path) -> None:
    write_raw(number_clips({"a": 3, "b": 3}))
    set_params(workspace, {"split.method": "published", "split.published": "mine.csv"})
    error = user_error(main)
    assert error.key == "split.published"
    assert "no file mine.csv" in str(error)
    Path("mine.csv").write_text("clip,split\na.00000,train\nz.00009,test\n")
    error = user_error(main)
    assert error.file == "mine.csv"
    assert "z.00009" in str(error)
    assert not Path("data/splits.csv").exists()
    assert not Path("metrics/split.json").exists()


def test_list_may_be_unused(workspace: Path) -> None:
    write_raw(number_clips({"a": 20, "b": 20}))
    set_params(workspace, {"split.method": "stratified", "split.published": "mine.csv"})
    main()
    assert len(pd.read_csv("data/splits.csv")) == 40


def run_published(labels: dict[str, str], **values: object) -> pd.DataFrame:
    """Split clips by a published list, clip -> split, and return data/splits.csv, indexed by clip."""
    pd.Series(labels, name="split").rename_axis("clip").to_csv("mine.csv")
    keys = {"split.method": "published", "split.published": "mine.csv"}
    set_params(Path(), keys | {f"split.{key}": value for key, value in values.items()})
    main()
    return pd.read_csv("data/splits.csv", index_col="clip")


def test_validation_is_cut_from_train(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Otherwise the test clips would select the best epoch, whatever split.validation_size is."""
    clips = number_clips({"a": 50, "b": 50})
    write_raw(clips)
    published = {clip: "test" if number % 5 == 0 else "train" for number, clip in enumerate(clips["clip"])}
    groups = write_artists(clips, [str(number // 2) for number in range(100)])
    splits = run_published(published, validation_size=0.2, groups=groups)
    assert splits["split"].value_counts().to_dict() == {"train": 60, "validation": 20, "test": 20}
    assert set(splits.index[splits["split"] == "test"]) == {clip for clip, name in published.items() if name == "test"}
    rest = splits[splits["split"] != "test"]
    assert rest.groupby("group")["split"].nunique().max() == 1
    assert rest[rest["split"] == "validation"]["label"].value_counts().to_dict() == {"a": 10, "b": 10}
    assert "20 of its 80 train clips select" in capsys.readouterr().out
    assert read_json(SPLIT_COUNTS)["validation_from_train"]


@pytest.mark.parametrize("share", [0.0, 0.2])
def test_published_validation_is_kept(workspace: Path, share: float) -> None:
    clips = number_clips({"a": 20, "b": 20})
    write_raw(clips)
    with_validation = {clip: ("train", "validation", "test", "train")[n % 4] for n, clip in enumerate(clips["clip"])}
    assert run_published(with_validation, validation_size=share)["split"].to_dict() == with_validation
    without = {clip: name.replace("validation", "train") for clip, name in with_validation.items()}
    assert "validation_from_train" not in read_json(SPLIT_COUNTS)
    assert (run_published(without, validation_size=share)["split"] == "validation").any() == bool(share)


@pytest.mark.parametrize(
    ("train", "artists", "share"),
    [(1, "xyz", 0.5), (8, "xyz", 0.2), (40, "x", 0.1), (40, "xyz", 0.95)],
    ids=["one clip a label", "few train clips", "one group", "large share"],
)
def test_validation_cannot_be_cut_from_train(workspace: Path, train: int, artists: str, share: float) -> None:
    clips = number_clips({"a": 50, "b": 50})
    write_raw(clips)
    groups = write_artists(clips, [artists[n % len(artists)] if train == 40 else str(n) for n in range(100)])
    published = {clip: "train" if int(clip[-5:]) < train else "test" for clip in clips["clip"]}
    error = user_error(lambda: run_published(published, validation_size=share, groups=groups))
    assert error.key == "split.validation_size"
    assert "set 0 to train on all of them" in str(error)
    assert not Path("data/splits.csv").exists()
    run_published(published, validation_size=0, groups=groups)


@pytest.mark.slow
def test_each_label_keeps_a_train_clip(workspace: Path) -> None:
    sizes = {f"rare{n}": 1 for n in range(20)} | {f"label{n}": 40 for n in range(8)}
    clips = number_clips(sizes | {"b": 2})
    write_raw(clips)
    published = {
        clip: "test" if clip.startswith("label") and n % 4 == 0 else "train" for n, clip in enumerate(clips["clip"])
    }
    splits = run_published(published, validation_size=0.1)
    trained = splits.loc[splits["split"] == "train", "label"]
    assert set(trained) == set(sizes) | {"b"}
    assert (splits["split"] == "validation").sum() > 20


def test_few_clips_of_each_label_give_validation_clips(workspace: Path) -> None:
    """A label of which all groups were chosen gets one of them back, not all."""
    sizes = dict(zip("abcdefgh", (16, 12, 12, 6, 5, 4, 4, 3)))
    clips = number_clips(sizes | {"z": 1})
    write_raw(clips)
    splits = run_published(dict.fromkeys(clips["clip"], "train") | {"a.00000": "test"}, validation_size=0.3)
    assert (splits["split"] == "validation").sum() == pytest.approx(0.3 * len(splits), abs=5)
    assert set(splits.loc[splits["split"] == "train", "label"]) == set(sizes) | {"z"}
