"""The stages on real music with a real pretrained encoder, if both are available; they are not part of the project."""

from pathlib import Path

import pandas as pd
import pytest
import yaml
from helpers import ROOT, dvc, git

from stages.common.tables import read_json

GENRES = ("classical", "metal")


@pytest.fixture
def folder_preset(workspace: Path, shared: Path) -> Path:
    """A workspace with the folder preset: two genres, one epoch."""
    for genre in GENRES:
        (workspace / "clips" / genre).mkdir(parents=True)
        for file in sorted((shared / "data/gtzan-sample" / genre).iterdir()):
            (workspace / "clips" / genre / file.name).symlink_to(file)
    params = yaml.safe_load((ROOT / "presets/folder.yaml").read_text())
    params["download"]["model"]["path"] = str(shared / "models/whisper-tiny-en")
    params["split"]["test_size"] = 0.4
    params["train"] |= {"epochs": 1, "batch_size": 2, "threads": 1}
    params["evaluate"] |= {"threads": 1}
    (workspace / "params.yaml").write_text(yaml.safe_dump(params))
    git(workspace, "commit", "-qam", "Use the folder preset")
    return workspace


@pytest.mark.rare
def test_whisper_learns_two_genres(folder_preset: Path) -> None:
    dvc(folder_preset, "repro")
    clips = pd.read_csv("data/raw/clips.csv")
    assert len(clips) == 10
    assert set(clips["sampling_rate"]) == {22_050}
    assert Path("data/raw/rejected.csv").read_text() == "file,reason\n"
    metrics = read_json(Path("metrics/metrics.json"))
    assert metrics["n_clips"] == 4
    assert metrics["selected_on"] == "test"
    assert metrics["accuracy"] > 0.7
