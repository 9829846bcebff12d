import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import error_of, set_params
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.common.groups import connect, read_groups
from stages.split import Params, assign, count, main

ROOT = Path(__file__).parents[1]
TABLES = ROOT / "data" / "tables"


def clips_of(numbers: dict[str, int]) -> pd.DataFrame:
    rows = [(f"{label}.{n:05d}", label) for label, number in numbers.items() for n in range(number)]
    return pd.DataFrame(rows, columns=["clip", "label"])


def gtzan() -> pd.DataFrame:
    clips = pd.read_csv(TABLES / "gtzan_md5.csv")
    clips["label"] = clips["clip"].str.split(".").str[0]
    return clips[clips["clip"] != "jazz.00054"].reset_index(drop=True)


def params(**values: object) -> Params:
    return Params.model_validate({"method": "stratified", "seed": 42, "test": 0.2, "validation": 0.1} | values)


def put(workspace: Path, clips: pd.DataFrame, rejected: str = "", repetitions: pd.DataFrame | None = None) -> None:
    (workspace / "data/raw").mkdir(parents=True)
    clips.to_csv("data/raw/clips.csv", index=False)
    Path("data/raw/rejected.csv").write_text(f"file,reason\n{rejected}")
    none = pd.DataFrame(columns=["clip", "recording"])
    (none if repetitions is None else repetitions).to_csv("data/raw/repetitions.csv", index=False)


def gtzan_repetitions() -> pd.DataFrame:
    """What `download` would find, were its hearing as good as the listeners' whose table this is."""
    return pd.read_csv(TABLES / "gtzan_repetitions.csv", dtype=str).rename(columns={"repetition": "recording"})


# The course prints its first training clip; the others follow from the names, sorted, and its own call.
FIRST_TRAINED = ["pop.00098", "classical.00080", "classical.00052"]
FIRST_TESTED = ["rock.00078", "rock.00034", "reggae.00060"]
TESTED = {
    "rock": 15,
    "metal": 14,
    "hiphop": 13,
    "blues": 10,
    "classical": 9,
    "jazz": 9,
    "pop": 9,
    "country": 8,
    "reggae": 7,
    "disco": 6,
}


@pytest.mark.parametrize("order", ["sorted", "archive", "shuffled"])
def test_random_split_matches_the_course_in_any_order(workspace: Path, order: str) -> None:
    names = sorted(gtzan()["clip"])
    course = Dataset.from_dict({"clip": names}).train_test_split(seed=42, shuffle=True, test_size=0.1)
    assert course["train"]["clip"][:3] == FIRST_TRAINED
    assert course["test"]["clip"][:3] == FIRST_TESTED
    clips = gtzan().sort_values("clip")
    orders = {"sorted": clips, "archive": clips[::-1], "shuffled": clips.sample(frac=1, random_state=0)}
    put(workspace, orders[order], repetitions=gtzan_repetitions())
    groups = {"artist": "data/tables/gtzan_artists.csv", "repetition": "data/tables/gtzan_repetitions.csv"}
    set_params(
        workspace, {"split.method": "random", "split.test": 0.1, "split.validation": 0.0, "split.groups": groups}
    )
    main()
    splits = pd.read_csv("data/splits.csv")
    assert set(splits.loc[splits["split"] == "train", "clip"]) == set(course["train"]["clip"])
    assert set(splits.loc[splits["split"] == "test", "clip"]) == set(course["test"]["clip"])
    report = json.loads(Path("metrics/split.json").read_text())
    assert report["total"] == {"train": 899, "validation": 0, "test": 100}
    assert {label: counts["test"] for label, counts in report["labels"].items()} == TESTED
    assert report["leakage"]["repetition"] == {"test_clips": 100, "known": 14, "shared": 12}
    assert report["leakage"]["artist"] == {"test_clips": 100, "known": 90, "shared": 57}


@pytest.mark.parametrize("method", ["random", "stratified", "grouped"])
def test_a_split_does_not_depend_on_the_order_of_the_source(workspace: Path, method: str) -> None:
    set_params(workspace, {"split.method": method})
    found = []
    for seed in (0, 1):
        put(workspace, gtzan().sample(frac=1, random_state=seed), repetitions=gtzan_repetitions())
        main()
        found.append(Path("data/splits.csv").read_bytes())
        shutil.rmtree("data/raw")
    assert found[0] == found[1]


@settings(max_examples=25, deadline=None)
@given(
    sizes=st.lists(st.integers(10, 40), min_size=2, max_size=5),
    method=st.sampled_from(["random", "stratified", "grouped"]),
    validation=st.sampled_from([0.0, 0.1, 0.2]),
    seed=st.integers(0, 1000),
)
def test_every_clip_is_in_one_split_and_shares_are_kept(
    sizes: list[int], method: str, validation: float, seed: int
) -> None:
    clips = clips_of({f"label{i}": size for i, size in enumerate(sizes)})
    groups = np.arange(len(clips)) // 2 if method == "grouped" else np.arange(len(clips))
    wanted = params(method=method, seed=seed, validation=validation, groups={"artist": "x.csv"})
    split = assign(clips, groups, wanted)
    assert set(split) == {"train", "test"} | ({"validation"} if validation else set())
    assert (split == "test").mean() == pytest.approx(0.2, abs=0.1)
    assert (split == "validation").mean() == pytest.approx(validation, abs=0.1)
    assert pd.Series(split).groupby(groups).nunique().max() == 1
    assert (assign(clips, groups, wanted) == split).all()


def test_stratified_gives_every_label_its_share() -> None:
    clips = clips_of({"a": 50, "b": 20})
    table = pd.crosstab(clips["label"], assign(clips, np.arange(70), params()))
    assert table.loc["a", "test"] == 10
    assert table.loc["b", "test"] == 4


def test_another_seed_is_another_split() -> None:
    clips = clips_of({"a": 50, "b": 50})
    one, other = (assign(clips, np.arange(100), params(seed=seed)) for seed in (1, 2))
    assert (one != other).any()


def test_groups_connect_over_one_another() -> None:
    table = pd.DataFrame({"artist": ["x", "x", None, None], "recording": [None, "1", "1", None]}, index=list("abcd"))
    groups = connect(table)
    assert groups[0] == groups[1] == groups[2] != groups[3]


def test_leakage_is_counted_where_groups_are_known() -> None:
    splits = pd.DataFrame(
        {"clip": list("abcde"), "label": "x", "split": ["train", "validation", "test", "test", "test"]}
    )
    groups = pd.DataFrame({"artist": ["1", "2", "1", "3", None]}, index=list("abcde"))
    assert count(splits, groups, 0)["leakage"] == {"artist": {"test_clips": 3, "known": 2, "shared": 1}}


def report_of(workspace: Path, preset: str) -> dict[str, Any]:
    """metrics/split.json of a preset on GTZAN's clips."""
    put(workspace, gtzan(), "genres/jazz/jazz.00054.wav,broken\n", gtzan_repetitions())
    shutil.copyfile(ROOT / "presets" / f"{preset}.yaml", "params.yaml")
    main()
    return json.loads(Path("metrics/split.json").read_text())


def test_the_course_s_split_of_gtzan_leaks_recordings_and_artists(workspace: Path) -> None:
    report = report_of(workspace, "course")
    assert report["total"] == {"train": 899, "validation": 0, "test": 100}
    leakage = report["leakage"]
    assert leakage["recording"] == {"test_clips": 100, "known": 100, "shared": leakage["repetition"]["shared"]}
    # Over 200 seeds, 9 and 64 on average.
    assert 5 <= leakage["recording"]["shared"] <= 14
    assert 55 <= leakage["artist"]["shared"] <= 73


def test_a_grouped_split_of_gtzan_leaks_nothing(workspace: Path) -> None:
    report = report_of(workspace, "gtzan")
    shared = {kind: leak["shared"] for kind, leak in report["leakage"].items()}
    assert shared == {"recording": 0, "artist": 0, "repetition": 0}
    assert report["total"]["test"] == pytest.approx(100, abs=15)
    assert min(label["test"] for label in report["labels"].values()) >= 5


def test_a_published_split_leaves_out_what_it_does_not_list_and_forgives_rejected_files(workspace: Path) -> None:
    report = report_of(workspace, "gtzan-fault-filtered")
    assert report["total"] == {"train": 442, "validation": 197, "test": 290}
    assert report["left_out"] == 999 - 929
    assert {kind: leak["shared"] for kind, leak in report["leakage"].items()} == {
        "recording": 0,
        "artist": 1,
        "repetition": 0,
    }
    assert len(pd.read_csv("data/splits.csv")) == 929


@settings(max_examples=15, deadline=None)
@given(
    sizes=st.lists(st.integers(12, 30), min_size=2, max_size=4),
    group_size=st.integers(1, 4),
    method=st.sampled_from(["stratified", "grouped"]),
    folds=st.integers(2, 5),
    validation=st.sampled_from([0.0, 0.1]),
    seed=st.integers(0, 1000),
)
def test_folds_partition_the_clips_and_share_no_group(
    sizes: list[int], group_size: int, method: str, folds: int, validation: float, seed: int
) -> None:
    clips = clips_of({f"label{i}": size for i, size in enumerate(sizes)})
    groups = np.arange(len(clips)) // group_size
    wanted = {"method": method, "seed": seed, "validation": validation, "folds": folds}
    splits = [assign(clips, groups, params(**wanted, fold=fold)) for fold in range(folds)]
    in_test = np.array([split == "test" for split in splits])
    assert (in_test.sum(axis=0) == 1).all()
    assert in_test.mean(axis=1) == pytest.approx(1 / folds, abs=0.15)
    for split in splits:
        assert ("validation" in split) == (validation > 0)
        if method == "grouped":
            assert pd.Series(split).groupby(groups).nunique().max() == 1
        else:
            test = clips["label"][split == "test"].value_counts()
            assert all(abs(test[f"label{i}"] - size / folds) < 2 for i, size in enumerate(sizes))


def test_the_folds_of_gtzan_leak_nothing_and_are_named_in_the_report(workspace: Path) -> None:
    put(workspace, gtzan(), "", gtzan_repetitions())
    set_params(workspace, {"split.method": "grouped", "split.validation": 0.1, "split.folds": 3})
    tested: list[str] = []
    for fold in range(3):
        set_params(workspace, {"split.fold": fold})
        main()
        report = json.loads(Path("metrics/split.json").read_text())
        assert (report["method"], report["folds"], report["fold"]) == ("grouped", 3, fold)
        assert report["leakage"]["recording"]["shared"] == 0
        splits = pd.read_csv("data/splits.csv")
        tested += splits.loc[splits["split"] == "test", "clip"].to_list()
    assert sorted(tested) == sorted(gtzan()["clip"])


def test_a_published_split_of_another_data_set_is_refused(workspace: Path) -> None:
    put(workspace, clips_of({"a": 3, "b": 3}))
    set_params(workspace, {"split.method": "published", "split.published": "mine.csv"})
    assert "no file mine.csv" in error_of(main)
    Path("mine.csv").write_text("clip,split\na.00000,train\nz.00009,test\n")
    message = error_of(main)
    assert "names 1 clips" in message
    assert "z.00009" in message
    Path("mine.csv").write_text("clip,split\na.00000,dev\n")
    assert "split 'dev'" in error_of(main)
    Path("mine.csv").write_text("name,split\na.00000,train\n")
    assert "needs the columns clip and split" in error_of(main)
    assert not Path("data/splits.csv").exists()


def test_a_label_with_one_clip_cannot_be_stratified(workspace: Path) -> None:
    put(workspace, clips_of({"a": 20, "lonely": 1}))
    message = error_of(main)
    assert "label lonely has a single clip" in message
    assert "split.method: random" in message


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"split.test": 0.6, "split.validation": 0.5}, "nothing to train on"),
        ({"split.folds": 5, "split.fold": 5}, "there is no fold 5 of 5, counted from 0"),
        ({"split.fold": 1}, "there is no fold 1 of none; set folds too"),
        ({"split.folds": 1}, "split.folds: input should be greater than or equal to 2"),
        ({"split.folds": 2, "split.validation": 0.5}, "nothing to train on"),
        ({"split.folds": 5, "split.method": "random"}, "folds needs method stratified or grouped, not random"),
        ({"split.folds": 5, "split.method": "published"}, "folds needs method stratified or grouped, not published"),
        ({"split.groups": {"recording": "mine.csv"}}, "recording is found in the audio"),
        ({"split.folds": 50}, "40 groups cannot be cut into 50"),
        ({"split.method": "published"}, "published needs published"),
        ({"split.groups": {"artist": "nowhere.csv"}}, "split.groups.artist: no file nowhere.csv"),
        (
            {"split.groups": {"artist": "data/tables/gtzan_artists.csv"}},
            "know none of the clips, such as a.00000",
        ),
        ({"split.seed": 2**32}, "split.seed: input should be less than 4294967296"),
    ],
)
def test_params_that_do_not_fit_together_are_refused(workspace: Path, values: dict[str, object], expected: str) -> None:
    put(workspace, clips_of({"a": 20, "b": 20}))
    set_params(workspace, values)
    assert expected in error_of(main)


def test_a_table_that_is_not_as_it_should_be_is_named(workspace: Path) -> None:
    put(workspace, clips_of({"a": 20, "b": 20}))
    set_params(workspace, {"split.method": "published", "split.published": "mine.csv"})
    Path("mine.csv").write_text("clip,split\na.00000,train\na.00000,test\n")
    assert "mine.csv: clip a.00000 is listed twice" in error_of(main)
    Path("mine.csv").write_bytes("clip,split\ncafé,train\n".encode("latin-1"))
    assert "mine.csv is not UTF-8" in error_of(main)
    Path("mine.csv").write_text("clip,split\na.00000,train\nb.00000,train\n")
    assert "no clip is in test" in error_of(main)
    Path("mine.csv").write_text("clip,split\na.00000,train\na.00001,test\n")
    assert "label b has no clip in train" in error_of(main)


@pytest.mark.parametrize("method", ["random", "grouped"])
def test_too_few_clips_end_in_one_line(workspace: Path, method: str) -> None:
    clips = clips_of({"a": 2, "b": 1})
    put(workspace, clips)
    clips.assign(artist=clips["clip"])[["clip", "artist"]].to_csv("mine.csv", index=False)
    set_params(workspace, {"split.method": method, "split.test": 0.1, "split.groups": {"artist": "mine.csv"}})
    assert "add clips" in error_of(main)


def test_a_grouped_share_that_no_fold_has_is_refused(workspace: Path) -> None:
    clips = clips_of({"a": 300, "b": 300})
    put(workspace, clips)
    clips.assign(artist=clips["clip"])[["clip", "artist"]].to_csv("mine.csv", index=False)
    set_params(workspace, {"split.method": "grouped", "split.test": 0.02, "split.groups": {"artist": "mine.csv"}})
    assert "between 1/20 and 19/20" in error_of(main)


def test_a_group_too_large_for_its_split_is_told_of(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clips = clips_of({"a": 40, "b": 40})
    put(workspace, clips)
    artists = ["everyone" if n % 2 else clip for n, clip in enumerate(clips["clip"])]
    clips.assign(artist=artists)[["clip", "artist"]].to_csv("mine.csv", index=False)
    values = {"split.method": "grouped", "split.groups": {"artist": "mine.csv"}, "split.folds": 5}
    shares = []
    for fold in range(5):
        set_params(workspace, values | {"split.validation": 0.1, "split.fold": fold})
        main()
        told = capsys.readouterr().out
        shares.append((pd.read_csv("data/splits.csv")["split"] == "test").mean())
        assert ("test holds" in told) == (not 0.1 < shares[-1] < 0.3)
    assert max(shares) >= 0.5
    set_params(workspace, {"split.groups": {}})
    main()
    assert "holds" not in capsys.readouterr().out


def test_clips_of_one_recording_are_counted_and_grouped_without_a_table(workspace: Path) -> None:
    clips = clips_of({"a": 40, "b": 40})
    put(workspace, clips, repetitions=pd.DataFrame({"clip": clips["clip"], "recording": np.arange(80) // 2})[:60])
    main()
    leak = json.loads(Path("metrics/split.json").read_text())["leakage"]["recording"]
    assert leak["known"] == leak["test_clips"] == 20
    assert leak["shared"] > 0
    set_params(workspace, {"split.method": "grouped"})
    main()
    assert json.loads(Path("metrics/split.json").read_text())["leakage"]["recording"]["shared"] == 0


def test_a_clip_named_like_a_recording_s_number_is_not_of_it(workspace: Path) -> None:
    clips, repetitions = pd.Series(["0", "1", "2"]), pd.DataFrame({"clip": ["1", "2"], "recording": ["0", "0"]})
    groups = connect(read_groups({}, clips, repetitions))
    assert groups[0] != groups[1] == groups[2]
