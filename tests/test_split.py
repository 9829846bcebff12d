import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import error_of, set_params
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.split import Params, assign, connect, count, main, read_groups

ROOT = Path(__file__).parents[1]
TABLES = ROOT / "data" / "tables"


def clips_of(numbers: dict[str, int]) -> pd.DataFrame:
    rows = [(f"{label}.{n:05d}", label) for label, number in numbers.items() for n in range(number)]
    return pd.DataFrame(rows, columns=["clip", "label"])


def gtzan() -> pd.DataFrame:
    clips = pd.read_csv(TABLES / "gtzan_md5.csv")
    clips["label"] = clips["clip"].str.split(".").str[0]
    clips["sha256"] = clips["md5"]
    return clips[clips["clip"] != "jazz.00054"].reset_index(drop=True)


def params(**values: object) -> Params:
    return Params.model_validate({"method": "stratified", "seed": 42, "test": 0.2, "validation": 0.1} | values)


def put(workspace: Path, clips: pd.DataFrame, rejected: str = "") -> None:
    (workspace / "data/raw").mkdir(parents=True)
    clips.assign(sha256=clips.get("sha256", clips["clip"])).to_csv("data/raw/clips.csv", index=False)
    Path("data/raw/rejected.csv").write_text(f"file,reason\n{rejected}")


def test_random_is_the_course_s_own_call() -> None:
    clips = gtzan()
    split = assign(clips, np.arange(len(clips)), params(method="random", test=0.1, validation=0.0))
    course = Dataset.from_pandas(clips).train_test_split(seed=42, shuffle=True, test_size=0.1)
    assert (len(course["train"]), len(course["test"])) == (899, 100)
    assert set(clips["clip"][split == "test"]) == set(course["test"]["clip"])
    assert set(clips["clip"][split == "train"]) == set(course["train"]["clip"])


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


def test_a_grouped_split_of_gtzan_leaks_nothing() -> None:
    clips = gtzan()
    kinds = {kind: str(TABLES / f"gtzan_{kind}s.csv") for kind in ("artist", "repetition")}
    groups = read_groups(kinds, clips)
    clips["split"] = assign(clips, connect(groups), params(method="grouped", test=0.1, groups=kinds))
    report = count(clips, groups, 0)
    shared = {kind: leak["shared"] for kind, leak in report["leakage"].items()}
    assert shared == {"bytes": 0, "artist": 0, "repetition": 0}
    assert report["total"]["test"] == pytest.approx(100, abs=15)
    assert min(label["test"] for label in report["labels"].values()) >= 5


def test_a_published_split_leaves_out_what_it_does_not_list_and_forgives_rejected_files(workspace: Path) -> None:
    put(workspace, gtzan(), "genres/jazz/jazz.00054.wav,broken\n")
    table = "data/tables/gtzan_fault_filtered.csv"
    set_params(workspace, {"split.method": "published", "split.published": table})
    main()
    report = json.loads(Path("metrics/split.json").read_text())
    assert report["total"] == {"train": 442, "validation": 197, "test": 290}
    assert report["left_out"] == 999 - 929
    assert len(pd.read_csv("data/splits.csv")) == 929


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
        ({"split.method": "grouped"}, "grouped needs groups"),
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


def test_files_of_the_same_bytes_are_counted_and_grouped(workspace: Path) -> None:
    clips = clips_of({"a": 40, "b": 40})
    clips["sha256"] = [str(row // 2) for row in range(80)]
    put(workspace, clips)
    main()
    assert json.loads(Path("metrics/split.json").read_text())["leakage"]["bytes"]["shared"] > 0
    Path("mine.csv").write_text("clip,artist\na.00000,x\n")
    set_params(workspace, {"split.method": "grouped", "split.groups": {"artist": "mine.csv"}})
    main()
    assert json.loads(Path("metrics/split.json").read_text())["leakage"]["bytes"]["shared"] == 0
