"""Faults that stop a download: no partial output remains, and the next run succeeds."""

import tarfile
from io import BytesIO
from pathlib import Path

import pytest
from fakes.hub.server import Fault, LocalHub
from fakes.small_disk import small_disk
from fakes.small_hub import ARCHIVE, GTZAN, listed_clips, stage, stage_error
from helpers import error_of, set_params, write_clips

from stages.download.__main__ import download_dataset


def test_failure_leaves_no_output(workspace: Path) -> None:
    clips = write_clips(workspace / "mine")
    (clips / "a/text.wav").write_text("not audio")
    set_params(workspace, {"download.dataset": {"source": "folder", "path": "mine", "max_rejected": 0.1}})
    assert "max_rejected" in error_of(download_dataset)
    assert not list(Path("data").glob("raw*"))


@pytest.mark.slow
def test_run_after_fault_of_hub(gtzan: LocalHub) -> None:
    gtzan.fail(r"GET /api/datasets/marsyas/gtzan", Fault(status=401))
    assert GTZAN in stage_error(gtzan, "stages.download", "dataset")
    assert not Path("data/raw").exists()
    gtzan.repair()
    stage(gtzan, "stages.download", "dataset")
    assert len(listed_clips()) == 18


@pytest.mark.slow
def test_malicious_archive_of_hub(gtzan: LocalHub, workspace: Path) -> None:
    packed = BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        tar.addfile(tarfile.TarInfo("../evil.wav"), BytesIO())
    gtzan.commit("dataset", GTZAN, {ARCHIVE: packed.getvalue()})
    assert "'../evil.wav' points out" in stage_error(gtzan, "stages.download", "dataset")
    assert not list(workspace.parent.rglob("evil*"))
    assert not Path("data/raw").exists()


@pytest.mark.slow
def test_offline_output_is_same(gtzan: LocalHub) -> None:
    stage(gtzan, "stages.download", "dataset")
    first = Path("data/raw/source.json").read_bytes()
    gtzan.close()
    stage(gtzan, "stages.download", "dataset", HF_HUB_OFFLINE="1")
    assert Path("data/raw/source.json").read_bytes() == first
    assert len(listed_clips()) == 18


@pytest.mark.slow
def test_full_disk_of_project(gtzan: LocalHub, workspace: Path) -> None:
    with small_disk(workspace / "data", kilobytes=400):
        line = stage_error(gtzan, "stages.download", "dataset")
    assert line.startswith("error: data/raw: the disk is full: it needs more than ")
    assert line.endswith(" are free; free some space, then run dvc repro again")
