"""Encoding on two simulated machines of a Ray cluster."""

import os
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pytest
from fakes.fork_server import make_python
from helpers import ROOT, digests, error_of
from resample_encode.test_resample_encode import prepare, rewrite_clip

from stages.common.paths import ENCODED, RAW
from stages.resample_encode.__main__ import main


@pytest.fixture
def four_shards(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The digests of data/encoded in four shards, encoded on one machine."""
    monkeypatch.setattr("stages.common.encoded_clips.SHARD_CLIPS", 2)
    prepare(workspace, workers=1, max_seconds=1.0, segments=True)
    main()
    assert len(list(ENCODED.glob("*.arrow"))) == 4
    return digests(ENCODED)


def kill_first_worker() -> None:
    """Kill the first process of this one's cluster that runs a task."""
    while True:
        for process in psutil.Process().children(recursive=True):
            with suppress(psutil.NoSuchProcess):  # it has ended since it was listed
                if process.name().startswith("ray::_encode"):
                    process.kill()
                    killed.append(process.pid)
                    return
        time.sleep(0.01)


killed: list[int] = []


@pytest.mark.rare
@pytest.mark.slow
def test_same_bytes_if_a_worker_is_lost(
    four_shards: dict[str, str], ray_cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", ray_cluster)
    killer = threading.Thread(target=kill_first_worker, daemon=True)
    killer.start()
    main()
    assert killed
    assert digests(ENCODED) == four_shards


@pytest.mark.rare
@pytest.mark.slow
def test_error_of_a_task_names_the_clip(
    four_shards: dict[str, str], ray_cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = RAW / "audio/c/c.00001.wav"
    rewrite_clip(file, np.full(20, 0.1))
    monkeypatch.setenv("RAY_ADDRESS", ray_cluster)
    assert error_of(main).startswith(f"error: {file}: 15 samples at 16000 Hz")
    assert digests(ENCODED) == four_shards


@pytest.mark.slow
def test_nothing_imports_ray_without_an_address() -> None:
    modules = "stages.resample_encode.encoder, stages.train.ranks, stages.train.training"
    code = f"import sys, {modules}; sys.exit(int('ray' in sys.modules))"
    env = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    subprocess.run([make_python() / "python", "-c", code], cwd=ROOT, env=env, check=True)


@pytest.mark.slow
def test_no_cluster_at_the_address(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray")
    prepare(workspace)
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    assert "RAY_ADDRESS is 127.0.0.1:1" in error_of(main)
    assert not ENCODED.exists()
