"""Fixtures: params of a workspace."""

from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import set_params


@pytest.fixture
def use_folder(workspace: Path) -> Callable[..., None]:
    """A function that names a folder of clips in params.yaml."""

    def use(clips: Path, max_rejected: float = 0.5) -> None:
        params = {"source": "folder", "path": str(clips), "max_rejected": max_rejected}
        set_params(workspace, {"download.dataset": params})

    return use


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An empty folder for clips."""
    (tmp_path / "clips").mkdir()
    return tmp_path / "clips"
