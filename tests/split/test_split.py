"""The stage on GTZAN's clips and on small tables: no recordings are read."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from datasets import Dataset
from helpers import ROOT, set_params, user_error
from split.examples import number_clips, read_gtzan, read_gtzan_repetitions, write_artists, write_raw

from stages.common.tables import read_json
from stages.split.__main__ import main

SPLITS = Path("data/splits.csv")
GTZAN_GROUPS = {"artist": "data/tables/gtzan_artists.csv", "repetition": "data/tables/gtzan_repetitions.csv"}
# The course prints its first training clip; the others follow from the sorted names and its call.
FIRST_TRAIN = ["pop.00098", "classical.00080", "classical.00052"]
FIRST_TEST = ["rock.00078", "rock.00034", "reggae.00060"]
N_TEST = {
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


def run_split(**values: object) -> dict[str, Any]:
    """Set keys of the section split, run the stage in the current folder, and return metrics/split.json."""
    set_params(Path(), {f"split.{key}": value for key, value in values.items()})
    main()
    return read_json(Path("metrics/split.json"))


def run_preset(preset: str) -> dict[str, Any]:
    """Split GTZAN's clips as a preset does, and return metrics/split.json."""
    write_raw(read_gtzan(), "genres/jazz/jazz.00054.wav,broken\n", read_gtzan_repetitions())
    shutil.copyfile(ROOT / "presets" / f"{preset}.yaml", "params.yaml")
    return run_split()


@pytest.mark.slow
@pytest.mark.parametrize("order", ["sorted", "archive", "shuffled"])
def test_random_matches_course(workspace: Path, order: str) -> None:
    names = sorted(read_gtzan()["clip"])
    course = Dataset.from_dict({"clip": names}).train_test_split(seed=42, shuffle=True, test_size=0.1)
    assert course["train"]["clip"][:3] == FIRST_TRAIN
    assert course["test"]["clip"][:3] == FIRST_TEST
    clips = read_gtzan().sort_values("clip")
    orders = {"sorted": clips, "archive": clips[::-1], "shuffled": clips.sample(frac=1, random_state=0)}
    write_raw(orders[order], repetitions=read_gtzan_repetitions())
    report = run_split(method="random", test_size=0.1, validation_size=0.0, groups=GTZAN_GROUPS)
    splits = pd.read_csv(SPLITS)
    assert set(splits.loc[splits["split"] == "train", "clip"]) == set(course["train"]["clip"])
    assert set(splits.loc[splits["split"] == "test", "clip"]) == set(course["test"]["clip"])
    assert report["total"] == {"train": 899, "validation": 0, "test": 100}
    assert {counts["label"]: counts["test"] for counts in report["per_label"]} == N_TEST
    assert report["leakage"]["repetition"] == {"test_clips": 100, "known": 14, "shared": 12}
    assert report["leakage"]["artist"] == {"test_clips": 100, "known": 90, "shared": 57}


@pytest.mark.slow
@pytest.mark.parametrize("method", ["random", "stratified", "grouped"])
def test_source_order_changes_nothing(workspace: Path, method: str) -> None:
    results = []
    for seed in (0, 1):
        write_raw(read_gtzan().sample(frac=1, random_state=seed), repetitions=read_gtzan_repetitions())
        run_split(method=method)
        results.append(SPLITS.read_bytes())
        shutil.rmtree("data/raw")
    assert results[0] == results[1]


def test_course_split_leaks(workspace: Path) -> None:
    report = run_preset("course")
    assert report["total"] == {"train": 899, "validation": 0, "test": 100}
    leakage = report["leakage"]
    assert leakage["recording"] == {"test_clips": 100, "known": 100, "shared": leakage["repetition"]["shared"]}
    # Over 200 seeds, 9 and 64 on average.
    assert 5 <= leakage["recording"]["shared"] <= 14
    assert 55 <= leakage["artist"]["shared"] <= 73


@pytest.mark.slow
def test_grouped_gtzan_leaks_nothing(workspace: Path) -> None:
    report = run_preset("gtzan")
    shared = {name: leak["shared"] for name, leak in report["leakage"].items()}
    assert shared == {"recording": 0, "artist": 0, "repetition": 0}
    assert report["total"]["test"] == pytest.approx(100, abs=15)
    assert min(counts["test"] for counts in report["per_label"]) >= 5


@pytest.mark.slow
def test_fault_filtered_preset(workspace: Path) -> None:
    """The list leaves out 70 clips, and contains a clip whose file was rejected."""
    report = run_preset("gtzan-fault-filtered")
    assert report["total"] == {"train": 442, "validation": 197, "test": 290}
    assert report["left_out"] == 999 - 929
    shared = {name: leak["shared"] for name, leak in report["leakage"].items()}
    assert shared == {"recording": 0, "artist": 1, "repetition": 0}
    assert len(pd.read_csv(SPLITS)) == 929


@pytest.mark.slow
def test_gtzan_folds_leak_nothing(workspace: Path) -> None:
    write_raw(read_gtzan(), "", read_gtzan_repetitions())
    tested: list[str] = []
    for fold in range(3):
        report = run_split(method="grouped", validation_size=0.1, folds=3, fold=fold)
        assert (report["method"], report["folds"], report["fold"]) == ("grouped", 3, fold)
        assert report["leakage"]["recording"]["shared"] == 0
        splits = pd.read_csv(SPLITS)
        tested += splits.loc[splits["split"] == "test", "clip"].to_list()
    assert sorted(tested) == sorted(read_gtzan()["clip"])


@pytest.mark.slow
def test_large_group_is_reported(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clips = number_clips({"a": 40, "b": 40})
    write_raw(clips)
    groups = write_artists(clips, ["everyone" if n % 2 else clip for n, clip in enumerate(clips["clip"])])
    shares = []
    for fold in range(5):
        run_split(method="grouped", groups=groups, folds=5, fold=fold, validation_size=0.1)
        output = capsys.readouterr().out
        shares.append((pd.read_csv(SPLITS)["split"] == "test").mean())
        assert (f"test has {shares[-1]:.0%} of the clips, not 20%" in output) == (not 0.1 < shares[-1] < 0.3)
    assert max(shares) >= 0.5
    run_split(groups={})
    assert "groups stay together" not in capsys.readouterr().out


def test_recordings_need_no_table(workspace: Path) -> None:
    clips = number_clips({"a": 40, "b": 40})
    write_raw(clips, repetitions=pd.DataFrame({"clip": clips["clip"], "recording": np.arange(80) // 2})[:60])
    leak = run_split()["leakage"]["recording"]
    assert leak["known"] == leak["test_clips"] == 20
    assert leak["shared"] > 0
    assert run_split(method="grouped")["leakage"]["recording"]["shared"] == 0


def test_too_few_clips_are_refused(workspace: Path) -> None:
    write_raw(number_clips({"a": 2, "b": 1}))
    set_params(workspace, {"split.method": "random", "split.test_size": 0.1})
    assert "label b has no clip in train" in str(user_error(main))
    assert not SPLITS.exists()
