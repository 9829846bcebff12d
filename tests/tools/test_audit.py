"""tools.audit on noise: two labels, some clips with the label of the other."""

import re
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from fakes.browser import start_chromium
from fakes.experiments import start_dvc
from helpers import dvc, git, set_params, user_error

from stages.common.tables import read_table
from stages.download.__main__ import download_dataset
from tools.audit import __main__ as audit
from tools.audit import page, probabilities, suspects
from tools.audit.probabilities import OutOfFold

RunTool = Callable[..., str]
SUSPECTS = Path("audit/suspects.csv")


@pytest.fixture
def music(workspace: Path) -> Path:
    """The workspace with data/raw: the labels a and `=b <`, twelve noises each; two of the latter are in folder a."""
    for n in range(24):
        label = "a" if n < 12 else "=b <"
        noise = np.random.default_rng(n).normal(0, 0.1, 22_050)
        file = workspace / "mine" / (label if n > 13 else "a") / f"{label}.{n:05d}.wav"
        file.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(file, np.convolve(noise, np.ones(20) / 5, "same") if label == "a" else noise, 22_050)
    set_params(workspace, {"download.dataset": {"source": "folder", "path": str(workspace / "mine")}})
    download_dataset()
    return workspace


@pytest.mark.slow
def test_audit_from_clips_to_corrections(music: Path, run_tool: RunTool) -> None:
    output = run_tool(audit, "--folds", "3", "--page-clips", "2")
    listed = read_table(SUSPECTS)
    assert set(listed["clip"][:2]) == {"=b <.00012", "=b <.00013"}
    assert listed["suggested"][0] == "=b <"
    assert f"{suspects.CONFIDENT}: 2 clips" in output
    with start_chromium(downloads=music) as chromium:
        chromium.get((music / "audit/audit.html").as_uri())
        first, second = chromium.find_elements("css selector", "article")
        assert "perhaps =b <" in first.text
        save = chromium.find_element("id", "save")
        assert not save.is_enabled()
        choose = "arguments[0].value = '-1'; arguments[0].dispatchEvent(new Event('input', {bubbles: true}))"
        chromium.execute_script(choose, first.find_element("css selector", "select"))
        first.find_element("css selector", ".new").send_keys("=B  <")  # the label =b <
        second.find_element("css selector", "input[value=drop]").click()
        second.find_element("css selector", ".note").send_keys('not "music"')
        # By keys: a decision without a label is none, and notes are typed.
        body = chromium.find_element("css selector", "body")
        body.send_keys("u")  # no clip has the focus
        second.find_element("css selector", "input[value=drop]").send_keys("u")
        assert [one.get_attribute("data-state") for one in (first, second)] == ["change", "undecided"]
        body.send_keys("n")
        chromium.switch_to.active_element.send_keys("d")
        assert [one.get_attribute("data-state") for one in (first, second)] == ["change", "drop"]
        chromium.refresh()
        assert chromium.find_element("id", "status").text == "2 of 2 decided"
        chromium.find_element("id", "save").click()
        file = music / "corrections.csv"
        for _ in range(300):
            if file.exists():
                break
            time.sleep(0.1)
        assert [entry for entry in chromium.get_log("browser") if entry["level"] == "SEVERE"] == []
        requests = re.findall(r'"url":"(\w+):', str([entry["message"] for entry in chromium.get_log("performance")]))
        assert not {"http", "https"} & set(requests)
    file.rename(music / "data/labels/corrections.csv")
    set_params(music, {"download.dataset.corrections": "data/labels/corrections.csv"})
    download_dataset()
    clips = read_table(Path("data/raw/clips.csv")).set_index("clip")
    assert clips.loc[listed["clip"][0], "label"] == "=b <"
    assert listed["clip"][1] not in clips.index
    assert "decided before: 2" in run_tool(audit, "--folds", "3", "--page-clips", "1")
    assert listed["clip"][0] not in set(read_table(SUSPECTS)["clip"])
    assert 'not \\"music\\"' in (music / "audit/audit.html").read_text()


def test_decisions_of_another_table(workspace: Path) -> None:
    (workspace / "mine.csv").write_text("clip,action,label\n7,drop,\nA.wav,keep,\n")
    set_params(workspace, {"download.dataset.corrections": "mine.csv"})
    clips = pd.DataFrame({"clip": ["007", "a"], "label": ["x", "y"], "path": "", "sha256": ""})
    decided = page.read_decisions(clips)
    assert [one.clip for one in decided] == ["7", "a"]  # 7 is dropped, and 007 is another clip
    page.write_page(workspace / "audit.html", [], clips, decided)
    assert "move it to <code>mine.csv</code>" in (workspace / "audit.html").read_text()


def test_groups_stay_in_one_fold() -> None:
    # A group is a point, so that only a clip of the same group tells its label.
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(40), 3)
    points, labels = rng.normal(size=(40, 8)), np.array(list("ab") * 20)
    clips = pd.DataFrame({"clip": [f"c{n}" for n in range(120)], "label": labels[groups]})
    mixed = probabilities.cross_validate(clips, points[groups], np.arange(120), 5)
    grouped = probabilities.cross_validate(clips, points[groups], groups, 5)
    right = [(one.probabilities.argmax(axis=1) == one.given).mean() for one in (mixed, grouped)]
    assert right[0] > 0.65 > right[1]


def test_label_of_a_single_group(capsys: pytest.CaptureFixture[str]) -> None:
    """A fold has all of its clips, so the model of that fold does not know the label."""
    labels = list("aaaabbbbcc")
    clips = pd.DataFrame({"clip": [f"c{n}" for n in range(10)], "label": labels})
    groups = np.array(["1", "1", "2", "2", "3", "3", "4", "4", "5", "5"])
    points = np.random.default_rng(0).normal(size=(10, 3))
    folds = probabilities.cross_validate(clips, points, groups, 2)
    assert folds.probabilities[8:, 2].tolist() == [0, 0]
    assert "all clips of c are in one fold" in capsys.readouterr().out
    two = clips.assign(label=[label if label == "c" else "a" for label in labels])
    error = user_error(lambda: probabilities.cross_validate(two, points, groups, 2))
    assert "all clips of c are in one fold" in str(error)


def test_wrong_table_stops_before_the_clips_are_read(
    workspace: Path, run_tool: RunTool, monkeypatch: pytest.MonkeyPatch
) -> None:
    (workspace / "data/raw").mkdir()
    Path("data/raw/clips.csv").write_text(
        "clip,label,path,sha256,sampling_rate,channels,seconds\nx,a,audio/a/x.wav,0,8000,1,1\n"
    )
    Path("data/raw/repetitions.csv").write_text("clip,recording\n")
    Path("data/labels/corrections.csv").write_text("clip,action,label\nx,rename,\n")
    monkeypatch.setattr(probabilities, "summarize_clips", lambda clips: pytest.fail("the clips were read"))
    assert "rename" in str(user_error(lambda: run_tool(audit)))


def test_suspects_are_ranked() -> None:
    given = np.repeat([0, 1], 50)
    chances = np.where(given[:, None] == [0, 1], 0.9, 0.1)
    chances[3], chances[7], chances[60] = [0.01, 0.99], [0.05, 0.95], [0.51, 0.49]
    clips = pd.DataFrame({"clip": [f"c{n}" for n in range(100)], "label": np.array(["x", "y"])[given]})
    folds = OutOfFold(list(clips["clip"]), ["x", "y"], given, chances)
    repeated = pd.DataFrame({"clip": ["c10", "c90", "c11", "c12"], "recording": ["1", "1", "2", "2"]})
    distances = np.linspace(1, 2, 100)
    distances[20] = 50
    ranked = suspects.rank_suspects(folds, clips, repeated, distances)
    assert [one.clip for one in ranked] == ["c10", "c90", "c3", "c7", "c60", "c20"]
    assert ranked[0].reason == "repetition of c90, which is y"
    assert [one.suggested for one in ranked] == ["y", "x", "y", "y", "x", ""]
    assert [one.reason for one in ranked][3:] == [suspects.CONFIDENT, suspects.DIFFERENT, suspects.OUTLIER]


@pytest.mark.slow
def test_folds_of_experiments(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = ["c0,x,x,0.7,0.3", "c1,z,z,0.3,0.7", "c2,x,z,0.4,0.6", "c3,z,z,0.2,0.8"]
    for fold in range(2):
        listed = ["clip,label,prediction,x,z", *rows[2 * fold : 2 * fold + 2], ""]
        (project / "metrics/predictions.csv").write_text("\n".join(listed))
        (project / "params.yaml").write_text(f"split: {{folds: 2, fold: {fold}}}\n")
        git(project, "add", ".")
        git(project, "commit", "-q", "-m", "Fold")
        git(project, "tag", f"fold-{fold}")
    clips = pd.DataFrame({"clip": [f"c{n}" for n in range(5)], "label": ["x", "z", "z", "z", "x"], "sha256": ""})
    folds = probabilities.read_experiments(["fold-1", "fold-0"], clips)
    assert folds.clips == ["c0", "c1", "c2", "c3"]
    assert folds.given.tolist() == [0, 1, 1, 1]
    assert folds.probabilities[1].tolist() == [0.3, 0.7]
    output = capsys.readouterr().out
    assert "1 of 5 clips have no test prediction" in output
    assert "1 labels were changed since these experiments" in output
    assert "the clips of fold-0" in output  # are not in a cache
    others = clips.assign(clip="other " + clips["clip"])
    assert "other clips than data/raw" in str(
        user_error(lambda: probabilities.read_experiments(["fold-1", "fold-0"], others))
    )


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (["clip,label,prediction", "c0,x,x"], "fold-0: its predictions have no probability for each label"),
        (["clip,label,prediction,x,z", "c0,x,x,0.7,much"], "the probabilities of c0"),
        (["clip,label,prediction,x,z", "c0,x,x,0,0"], "the probabilities of c0"),
        (["clip,label,prediction,x,z", "c0,x,x,1.5,-0.5"], "the probabilities of c0"),
        (["clip,label,prediction,x,z", "c1,x,x,0.7,0.3"], "clip c1 is a test clip of fold-0 and of fold-1"),
    ],
)
def test_wrong_predictions_of_experiments(project: Path, rows: list[str], expected: str) -> None:
    for fold, lines in enumerate([rows, ["clip,label,prediction,x,z", "c1,z,z,0.3,0.7"]]):
        (project / "metrics/predictions.csv").write_text("\n".join([*lines, ""]))
        (project / "params.yaml").write_text(f"split: {{folds: 2, fold: {fold}}}\n")
        git(project, "add", ".")
        git(project, "commit", "-q", "-m", "Fold")
        git(project, "tag", f"fold-{fold}")
    clips = pd.DataFrame({"clip": ["c0", "c1"], "label": ["x", "z"], "sha256": ""})
    error = user_error(lambda: probabilities.read_experiments(["fold-0", "fold-1"], clips))
    assert expected in str(error)


# A stage with the outputs of download, split and evaluate: four recordings, two of them in the test split of each fold.
RUN = """
from pathlib import Path
import yaml
params = yaml.safe_load(open("params.yaml"))
lines = {
    "data/raw/clips.csv": ["clip,label,sha256", *(f"c{n},{'xz'[n % 2]},{params['seed']}{n}" for n in range(4))],
    "data/splits.csv": ["clip,label,split,group", *(f"c{n},x,test,{'aabb'[n]}" for n in range(4))],
    "metrics/predictions.csv": ["clip,label,prediction,x,z"]
    + [f"c{n},{'xz'[n % 2]},x,0.{9 - n},0.{1 + n}" for n in range(params["split"]["fold"], 4, 2)],
}
for path, rows in lines.items():
    Path(path).parent.mkdir(exist_ok=True)
    Path(path).write_text("\\n".join([*rows, ""]))
"""


@pytest.mark.rare
@pytest.mark.slow
def test_folds_of_dvc_experiments(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "run.py").write_text(RUN)
    outs = ["data/raw", "data/splits.csv", {"metrics/predictions.csv": {"cache": False}}]
    run = {"cmd": "python -c \"exec(open('run.py').read())\"", "params": ["split", "seed"], "outs": outs}
    start_dvc(project, run, "split: {folds: 2, fold: 0}\nseed: 1\n")
    for fold in range(2):
        dvc(project, "exp", "run", "--name", f"k{fold}", "-S", f"split.fold={fold}")
    clips = read_table(project / "data/raw/clips.csv")
    folds = probabilities.read_experiments([], clips)
    assert folds.clips == ["c0", "c2", "c1", "c3"]
    assert folds.probabilities[:, 0].tolist() == [0.9, 0.7, 0.8, 0.6]
    assert capsys.readouterr().out.startswith("the groups of 4 clips are in several folds")
    # A name is not a recording: c1 is another one now.
    changed = clips.assign(sha256=clips["sha256"].replace("11", "21"))
    assert probabilities.read_experiments([], changed).clips == ["c0", "c2", "c3"]
    dvc(project, "exp", "remove", "k1")
    assert "fold 1 of 2 is missing" in str(user_error(lambda: probabilities.read_experiments([], clips)))


@pytest.mark.parametrize("arguments", [["--crossval", "--base"], ["--folds", "3", "k0"], ["--page-clips", "0"]])
def test_options_that_contradict(run_tool: RunTool, arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        run_tool(audit, *arguments)
    assert stop.value.code == 2
