"""The course's preset from the Hub to the Hub, with small versions of its data set and model."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from fakes.fork_server import run_python
from fakes.hub.server import LocalHub
from fakes.small_hub import ARCHIVE, DISTILHUBERT, GTZAN, checkpoint, pack, small_gtzan
from helpers import ROOT, dvc, git
from huggingface_hub import ModelCard

from stages.common.tables import read_json

REPO = "ann/distilhubert-finetuned-gtzan"
# Classifies clips with a published model, as its users do.
CLASSIFY = """
import json, sys
from pathlib import Path
from transformers import pipeline
from stages.common.audio import load_audio
classify = pipeline("audio-classification", model=sys.argv[1], top_k=None)
print(json.dumps({clip: classify(load_audio(Path(file), 16_000)) for clip, file in json.loads(sys.argv[2]).items()}))
"""


def check_card(card: ModelCard) -> None:
    """Check what the course's exercise, the Hub's search and its leaderboards read."""
    accuracy, _ = card.data.eval_results
    assert (accuracy.dataset_type, accuracy.dataset_name, accuracy.dataset_config) == (GTZAN, "GTZAN", "all")
    assert (accuracy.task_type, accuracy.metric_type) == ("audio-classification", "accuracy")
    assert card.data.base_model == DISTILHUBERT
    assert card.data.datasets == [GTZAN]
    assert "generated_from_trainer" in card.data.tags
    assert "optimistic" in card.text


@pytest.mark.slow
def test_course_preset(hub: LocalHub, workspace: Path, tmp_path: Path) -> None:
    hub.commit("dataset", GTZAN, {ARCHIVE: pack(small_gtzan())})
    hub.commit("model", DISTILHUBERT, checkpoint(tmp_path / "made", old=True))
    params = yaml.safe_load((ROOT / "presets/course.yaml").read_text())
    params["download"]["dataset"]["max_rejected"] = 0.1
    params["train"] |= {"precision": "fp32", "epochs": 2, "threads": 1}
    params["split"]["test_size"] = 0.2
    params["evaluate"] |= {"threads": 1}
    params["publish"] |= {"push": True}
    (workspace / "params.yaml").write_text(yaml.safe_dump(params))
    git(workspace, "commit", "-qam", "Use the course's preset")
    env = hub.env(workspace / ".home", "hf_ann")
    output = dvc(workspace, "repro", "download", env=env, fork=True, server="hub")
    output += dvc(workspace, "repro", "evaluate", env=env, fork=True)  # these stages do not contact the Hub
    output += dvc(workspace, "repro", env=env)  # as users run it
    assert "0 of the 1000 files of gtzan_md5.csv" in output
    assert f"{hub.url}/{REPO}" in output
    for file in (workspace / "dvc.lock", workspace / "models/published/README.md"):
        assert "hf_ann" not in file.read_text()
    check_card(ModelCard.load(workspace / "models/published/README.md"))
    assert read_json(Path("metrics/metrics.json"))["selected_on"] == "test"
    table = pd.read_csv("metrics/predictions.csv").set_index("clip")
    files = {clip: f"data/raw/audio/{label}/{clip}.wav" for clip, label in table["label"].items()}
    status, printed = run_python("-c", CLASSIFY, REPO, json.dumps(files), env=env)
    assert status == 0, printed
    [found] = [line for line in printed.splitlines() if line.startswith("{")]  # the others are warnings
    for clip, predictions in json.loads(found).items():
        for item in predictions:
            np.testing.assert_allclose(item["score"], table.loc[clip, item["label"]], atol=2e-3)
