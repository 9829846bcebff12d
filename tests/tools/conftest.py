"""Fixtures: a project under git, and tools that run in it."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from helpers import git


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project under git; the test runs inside it."""
    monkeypatch.chdir(tmp_path)
    git(tmp_path, "init", "-q", "-b", "main")
    for folder in ("metrics", "data"):
        (tmp_path / folder).mkdir()
    return tmp_path


@pytest.fixture
def run_tool(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """A function that calls a tool with arguments and returns what it prints."""

    def call(tool: ModuleType, *arguments: str) -> str:
        monkeypatch.setattr("sys.argv", ["tool", *arguments])
        tool.main()
        return capsys.readouterr().out

    return call
