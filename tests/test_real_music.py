"""The stages on real music with a real pretrained encoder, where both are at hand; they are no part of the project."""

import json
from pathlib import Path

import pandas as pd
import pytest
import yaml
from conftest import ROOT, dvc, git

GENRES = ("classical", "metal", "hiphop")


@pytest.fixture
def folder_preset(workspace: Path, shared: Path) -> Path:
    """The folder preset in small: three genres, whole clips cut at 10 s, two epochs."""
    for genre in GENRES:
        (workspace / "clips" / genre).mkdir(parents=True)
        for file in sorted((shared / "data/gtzan-sample" / genre).iterdir()):
            (workspace / "clips" / genre / file.name).symlink_to(file)
    params = yaml.safe_load((ROOT / "presets/folder.yaml").read_text())
    params["download"]["model"]["path"] = str(shared / "models/whisper-tiny-en")
    params["split"]["test"] = 0.4
    params["train"] |= {"epochs": 2, "batch_size": 3}
    (workspace / "params.yaml").write_text(yaml.safe_dump(params))
    git(workspace, "commit", "-qam", "Use the folder preset")
    return workspace


def test_whisper_tells_three_genres_apart_after_two_epochs(folder_preset: Path) -> None:
    dvc(folder_preset, "repro")
    clips = pd.read_csv("data/raw/clips.csv")
    assert len(clips) == 15
    assert set(clips["sample_rate"]) == {22_050}
    assert Path("data/raw/rejected.csv").read_text() == "file,reason\n"
    metrics = json.loads(Path("metrics/metrics.json").read_text())
    assert metrics["n"] == 6
    assert metrics["selected_on"] == "test"
    assert metrics["accuracy"] > 0.5
