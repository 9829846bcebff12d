"""A workspace for every test: the project's files, copied to a folder of its own under git and DVC."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import yaml

pytest_plugins = ["hub_fixtures"]

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"
PARTS = ["stages", "data/tables", "presets", ".dvc/config", ".dvcignore", ".gitignore", "dvc.yaml", "params.yaml"]

# The demo in small: every stage runs in seconds.
TINY = {
    "download.dataset.clips_per_label": 4,
    "download.dataset.seconds": 1.0,
    "download.model.config": {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "conv_dim": [8, 8],
        "conv_kernel": [400, 4],
        "conv_stride": [160, 4],
        "feat_extract_norm": "layer",
        "num_conv_pos_embeddings": 4,
        "num_conv_pos_embedding_groups": 2,
        "apply_spec_augment": False,
        "layerdrop": 0.0,
    },
    "split.test": 0.25,
    "split.validation": 0.25,
    "train.threads": 1,  # two busy processes on two cores wait for each other's threads
    "evaluate.threads": 1,
    "train.epochs": 3,
    "train.batch_size": 2,
    "train.window_seconds": 0.5,
}


def set_params(folder: Path, values: dict[str, Any]) -> None:
    """Change dotted keys of a workspace's params.yaml; None in place of a section's key sets null."""
    path = folder / "params.yaml"
    params = yaml.safe_load(path.read_text())
    for key, value in values.items():
        *sections, last = key.split(".")
        node = params
        for section in sections:
            node = node[section]
        node[last] = value
    path.write_text(yaml.safe_dump(params, sort_keys=False))


def dvc(folder: Path, *arguments: str, check: bool = True, env: dict[str, str] | None = None) -> str:
    """Run real DVC in a workspace, with this test's Python first on the path; its output, both streams."""
    env = dict(env or os.environ) | {"COLUMNS": "400"}
    env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"
    done = subprocess.run(["dvc", *arguments], cwd=folder, env=env, text=True, capture_output=True)
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    return subprocess.run(["git", *who, *arguments], cwd=folder, check=True, text=True, capture_output=True).stdout


def make_workspace(folder: Path) -> Path:
    for part in PARTS:
        source, target = ROOT / part, folder / part
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(source, target)
    set_params(folder, TINY)
    git(folder, "init", "-q", "-b", "main")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "Start")
    return folder


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh workspace with tiny params; the test runs inside it."""
    monkeypatch.chdir(make_workspace(tmp_path))
    return tmp_path


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace in which `dvc repro` ran once, committed. Read it, or copy it; do not change it."""
    folder = make_workspace(tmp_path_factory.mktemp("finished"))
    dvc(folder, "repro")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "Run the pipeline")
    return folder


@pytest.fixture
def copied(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The finished workspace once more, to change; the test runs inside it."""
    folder = tmp_path / "copied"
    shutil.copytree(finished, folder)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real clips and a real pretrained encoder, which are not part of the project."""
    if not (SHARED / "data" / "gtzan-sample").is_dir():
        pytest.skip(f"no real clips at {SHARED.name}/data/gtzan-sample beside the project")
    return SHARED


def error_of(main: Callable[[], None]) -> str:
    """The one line with which a stage ends on a person's mistake; fails the test where it does not end so."""
    from stages.common.stage import run

    with pytest.raises(SystemExit) as stop:
        run(main)
    message = str(stop.value.code)
    assert message.startswith("error: ")
    assert "\n" not in message
    return message


@contextmanager
def memory_for(clips: int) -> Iterator[None]:
    """A device that runs out of memory for more clips than that at once."""
    import torch
    from transformers import HubertForSequenceClassification

    original = HubertForSequenceClassification.forward

    @wraps(original)  # the Trainer reads the signature
    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        if len(args[0] if args else kwargs["input_values"]) > clips:
            raise torch.OutOfMemoryError("out of memory")
        return original(self, *args, **kwargs)

    HubertForSequenceClassification.forward = forward
    try:
        yield
    finally:
        HubertForSequenceClassification.forward = original


def tone(seconds: float = 1.0, sampling_rate: int = 22_050, hz: float = 440.0) -> np.ndarray:
    """float32, shape (samples,)."""
    times = np.arange(round(seconds * sampling_rate)) / sampling_rate
    return (0.3 * np.sin(2 * np.pi * hz * times)).astype(np.float32)


def write_clips(folder: Path, labels: tuple[str, ...] = ("a", "b"), number: int = 4, seconds: float = 1.0) -> Path:
    """A folder of <label>/<label>.<number>.wav, every clip another tone."""
    for i, label in enumerate(labels):
        (folder / label).mkdir(parents=True, exist_ok=True)
        for n in range(number):
            samples = tone(seconds, hz=200 + 40 * n + 300 * i)
            soundfile.write(folder / label / f"{label}.{n:05d}.wav", samples, 22_050)
    return folder
