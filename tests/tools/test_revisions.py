from pathlib import Path

import pandas as pd
import pytest
from fakes.experiments import commit_run, predictions, write_splits
from helpers import HARD_NAMES, git, user_error

from stages.common.tables import write_table
from tools.compare import shared
from tools.revisions import groups_of, read_predictions, show

CLIPS = pd.Index([f"c{n}" for n in range(4)])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (predictions("11") + "c0,x,x\n", "b.csv: clip c0 is listed twice"),
        ("clip,label\nc0,x\n", "b.csv: its predictions need the columns clip, label and prediction"),
        ("", "b.csv: its predictions need the columns"),
        ("clip,label,prediction\n", "b.csv: it has no clips"),
    ],
)
def test_invalid_predictions(project: Path, text: str, expected: str) -> None:
    (project / "b.csv").write_text(text)
    assert expected in str(user_error(lambda: read_predictions("b.csv")))


def test_workspace_without_predictions(project: Path) -> None:
    assert str(user_error(lambda: read_predictions("workspace"))) == "metrics/predictions.csv: missing; run dvc repro"


def test_names_of_a_file_and_a_revision(project: Path) -> None:
    table = pd.DataFrame({"clip": HARD_NAMES, "label": HARD_NAMES, "prediction": HARD_NAMES[::-1]})
    write_table(project / "metrics/predictions.csv", table)
    write_table(project / "data/splits.csv", table[["clip", "label"]].assign(group="1"))
    git(project, "add", ".")
    git(project, "commit", "-q", "-m", "A run")
    git(project, "tag", "run")
    for source in ("metrics/predictions.csv", "workspace", "run"):
        found = read_predictions(source)
        pd.testing.assert_frame_equal(found.reset_index(), table)
        assert shared(found, found).tolist() == HARD_NAMES
    groups = groups_of("metrics/predictions.csv", found.index)
    assert groups is not None
    assert set(groups) == {"1"}


def test_revision_without_predictions(project: Path) -> None:
    (project / "a.csv").write_text(predictions("1010"))
    git(project, "add", "a.csv")
    git(project, "commit", "-q", "-m", "Without a run")
    assert "HEAD does not have metrics/predictions.csv" in str(user_error(lambda: read_predictions("HEAD")))


@pytest.mark.parametrize("name", ["nothing", "--all"])
def test_unknown_revision(project: Path, name: str) -> None:
    commit_run(project, "run", "1010")
    message = str(user_error(lambda: read_predictions(name)))
    assert f"{name} is not a file, git revision, experiment or workspace" in message


def test_predictions_of_revision(project: Path) -> None:
    commit_run(project, "run", "1010")
    (project / "metrics/predictions.csv").unlink()
    table = read_predictions("run")
    assert table.index.tolist() == CLIPS.tolist()
    assert table["prediction"].tolist() == ["x", "z", "x", "z"]


def test_project_in_subfolder(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("metrics", "data"):
        (project / "inner" / folder).mkdir(parents=True)
    commit_run(project / "inner", "run", "1010")
    monkeypatch.chdir(project / "inner")
    assert show("run", "metrics/predictions.csv") == predictions("1010")


def test_groups_of_revision(project: Path) -> None:
    write_splits(project, 4, size=2)
    commit_run(project, "run", "1010")
    write_splits(project, 4, size=1)
    groups = groups_of("run", CLIPS)
    assert groups is not None
    assert groups.tolist() == ["0", "0", "1", "1"]


def test_groups_of_unlisted_clips(project: Path) -> None:
    write_splits(project, 3, size=1)
    commit_run(project, "run", "1010")
    assert groups_of("run", CLIPS) is None
