"""Each architecture through all stages, on clips like those of keyword spotting: 35 labels, a second or less each."""

import re
import shutil
import textwrap
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import yaml
from helpers import ROOT, make_workspace, set_params, tone, write_tiny_model
from split.examples import write_raw

from stages.common.paths import (
    CLIPS,
    FIGURE,
    FINETUNED,
    METRICS,
    PREDICTIONS,
    PUBLISHED,
    RAW,
    REPORT,
    SPLIT_COUNTS,
    SPLITS,
)
from stages.common.tables import read_json, read_table
from stages.download.__main__ import download_dataset, download_model
from stages.evaluate import __main__ as evaluate
from stages.evaluate import baselines
from stages.publish import __main__ as publish
from stages.resample_encode import __main__ as resample_encode
from stages.split import __main__ as split
from stages.train import __main__ as train
from tools.classify import __main__ as classify

pytestmark = pytest.mark.slow

RATE = 16_000
SPEAKERS = [f"{number:08x}" for number in range(10)]


def write_words(folder: Path) -> None:
    """Write clips named as those of Speech Commands: of 35 words six to nine, each by another speaker."""
    rng = np.random.default_rng(0)
    for word in range(35):
        (folder / f"word{word}").mkdir(parents=True)
        for number, speaker in enumerate(SPEAKERS[word % 2 : 6 + word % 2 + word % 4]):
            samples = tone(1.0 - 0.3 * (number == 2), RATE, 200 + 100 * word + 7 * number)
            samples += 0.05 * rng.normal(size=len(samples)).astype(np.float32)
            soundfile.write(folder / f"word{word}" / f"{speaker}_nohash_0.wav", samples, RATE)


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with the preset keywords, small, and the stages that need no model."""
    folder = make_workspace(tmp_path_factory.mktemp("words"))
    write_words(folder / "clips")
    params = yaml.safe_load((ROOT / "presets/keywords.yaml").read_text())
    params["download"]["dataset"]["path"] = "clips"
    params["download"]["model"] = {"source": "folder", "path": "base"}
    params["split"] |= {"test_size": 0.3, "validation_size": 0.2}
    params["train"] |= {"epochs": 1, "threads": 1, "batch_size": 16, "gradient_accumulation_steps": 1}
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for main in (download_dataset, split.main, baselines.main):
            main()
    return folder


def test_no_speaker_is_in_two_splits(words: Path) -> None:
    splits = read_table(words / SPLITS)
    assert set(splits["split"]) == {"train", "validation", "test"}
    speakers = splits["clip"].str.extract("([0-9a-f]+)_nohash")[0]
    assert splits.groupby(speakers)["split"].nunique().eq(1).all()
    assert splits["label"].value_counts().agg(["min", "max"]).tolist() == [6, 9]


def check_classify(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compare what tools.classify gives with predictions.csv."""
    expected = read_table(PREDICTIONS)
    labels = list(expected.columns[3:])
    paths = read_table(CLIPS).set_index("clip")["path"]
    files = [str(RAW / paths[name]) for name in expected["clip"]]
    monkeypatch.setattr("sys.argv", ["classify", *files, "--threads", "1", "--out", "found.csv"])
    classify.main()
    found = pd.read_csv("found.csv").set_index("file").loc[files]
    assert found["label"].tolist() == expected["prediction"].tolist()
    np.testing.assert_allclose(found["probability"], expected[labels].astype(float).max(axis=1), atol=2e-6)


def check_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compare what the page shows with predictions.csv, for a clip of 1 s; its timeline has windows of 0.4 s."""
    from tools.classify.model import load_model
    from tools.page.answers import Answers

    expected = read_table(PREDICTIONS).iloc[0]
    labels = list(expected.index[3:])
    file = RAW / read_table(CLIPS).set_index("clip")["path"][expected["clip"]]
    answers = Answers(load_model(PUBLISHED, "fp32", 1), PUBLISHED, 0.4)
    probabilities, windows = answers.classify(file)
    np.testing.assert_allclose(probabilities, expected[labels].astype(float), atol=2e-6)
    assert [round(window.start, 3) for window in windows] == [0, 0.4, 0.6]
    assert len({window.probabilities.tobytes() for window in windows}) == 3
    html = answers.show(file, "a clip", expected["label"])
    is_correct = expected["label"] == expected["prediction"]
    assert f"{expected['prediction']} – {'correct' if is_correct else 'wrong'}" in html
    assert html.count('data-start="') == 3


# What can be done with models/published in the current folder; each compares with predictions.csv.
USES: list[Callable[[pytest.MonkeyPatch], None]] = [check_classify, check_page]


@pytest.mark.usefixtures("quick_figures")
@pytest.mark.parametrize(
    "architecture",
    [pytest.param(name, marks=pytest.mark.rare) for name in ("wav2vec2", "hubert", "wavlm", "ast")] + ["whisper"],
)
def test_architecture_in_all_stages(
    architecture: str, words: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(words, tmp_path / "words")
    monkeypatch.chdir(folder)
    write_tiny_model(architecture, Path("base"))
    for main in (download_model, resample_encode.main, train.main, evaluate.main, publish.main):
        main()
    config = read_json(FINETUNED / "config.json")
    assert len(config["id2label"]) == 35
    assert architecture.replace("ast", "audio-spectrogram-transformer") == config["model_type"]
    metrics = read_json(METRICS)
    assert metrics["n_clips"] == len(read_table(PREDICTIONS))
    assert metrics["interval_of"] == "groups"
    assert len(metrics["per_label"]) == 35
    assert "word34" in REPORT.read_text()
    assert FIGURE.is_file()
    assert "word34" in (PUBLISHED / "README.md").read_text()
    for use in USES:
        use(monkeypatch)


def read_example() -> str:
    """Return the Python code of docs/other-tasks.md, for ESC-50."""
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/other-tasks.md").read_text(), re.DOTALL)
    return textwrap.dedent(block)


def test_folds_of_esc50(workspace: Path) -> None:
    names = [
        f"{1 + source % 5}-{1000 + source}-{take}-{label}"
        for label in range(4)
        for source in range(10 * label, 10 * label + 10)
        for take in "AB"
    ]
    write_raw(pd.DataFrame({"clip": names, "label": [f"label{name[-1]}" for name in names]}))
    shutil.copyfile(ROOT / "presets/environment.yaml", "params.yaml")
    split.main()
    splits = read_table(SPLITS)
    recordings = splits["clip"].str.split("-").str[1]
    assert splits.groupby(recordings)[["split", "group"]].nunique().eq(1).all(axis=None)
    assert splits["group"].nunique() == 40
    exec(read_example(), {})
    set_params(workspace, {"split.method": "published", "split.published": "data/tables/esc50.csv"})
    set_params(workspace, {"split.folds": None})
    split.main()
    assert read_json(SPLIT_COUNTS)["total"] == {"train": 48, "validation": 16, "test": 16}
    assert read_table(SPLITS)["group"].nunique() == 40
