"""Settings of the process, whatever environment it starts in."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from fakes.fork_server import make_python
from helpers import ROOT, digests

from stages.common.environment import ignore_launchers

LEFT_OVER = [
    {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29555"},
    {"WORLD_SIZE": "4"},
    {"LOCAL_RANK": "0"},
    {"PMI_SIZE": "2", "PMI_RANK": "1"},
    {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_LOCAL_RANK": "1"},
    {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"},
    {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_MIXED_PRECISION": "fp16"},
    {"TORCHELASTIC_RUN_ID": "a"},
]


@pytest.mark.parametrize("variables", LEFT_OVER, ids=lambda variables: next(iter(variables)))
def test_variables_of_launchers_are_ignored(
    variables: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("TORCHELASTIC_SIGNALS_TO_HANDLE", raising=False)  # left by a test of several processes
    before = dict(os.environ)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    ignore_launchers()
    assert dict(os.environ) == before
    [line] = capsys.readouterr().err.splitlines()
    assert all(name in line for name in variables)
    ignore_launchers()
    assert not capsys.readouterr().err


@pytest.mark.slow
def test_train_runs_alone_with_left_over_variables(copied: Path) -> None:
    before = digests(Path("models/finetuned"))
    every = {name: value for variables in LEFT_OVER for name, value in variables.items()}
    command = [make_python() / "python", "-m", "stages.train"]
    done = subprocess.run(command, env=os.environ | every, timeout=120, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert digests(Path("models/finetuned")) == before


@pytest.mark.slow
@pytest.mark.parametrize("module", ["stages.split", "tools.compare"])
def test_checkout_is_found_without_the_current_folder(module: str, tmp_path: Path) -> None:
    """With PYTHONSAFEPATH, Python finds only what is installed."""
    env = os.environ | {"PYTHONSAFEPATH": "1"}
    done = subprocess.run([sys.executable, "-m", module, "--help"], cwd=ROOT, env=env, text=True, capture_output=True)
    assert done.stdout.startswith(f"usage: python -m {module}"), done.stderr
