"""A `dvc repro` that finds nothing to do, against one of six stages that do nothing."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

from benchmarks.common import ROOT, set_params, timed

PARTS = ["stages", "data/tables", ".dvc/config", ".dvcignore", "dvc.yaml"]
TIMES = 5


def dvc(folder: Path, *arguments: str) -> None:
    # As a person calls it: the program beside this Python.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(
        ["dvc", *arguments], cwd=folder, env=os.environ | {"PATH": path}, check=True, stdout=subprocess.DEVNULL
    )


def make_git(folder: Path) -> None:
    who = ["-c", "user.name=bench", "-c", "user.email=bench@example.org"]
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    subprocess.run(["git", *who, "commit", "-q", "--allow-empty", "-m", "Start"], cwd=folder, check=True)


def make_project(folder: Path) -> None:
    """The project with the demo's 1200 clips, one epoch."""
    for part in PARTS:
        source, target = ROOT / part, folder / part
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source, target) if source.is_dir() else shutil.copyfile(source, target)
    set_params(folder, "demo.yaml", {"train.epochs": 1})
    make_git(folder)


def make_empty(folder: Path) -> None:
    """Six stages in a row, each with a file of its own."""
    make_git(folder)
    dvc(folder, "init", "-q")
    shutil.copyfile(ROOT / ".dvc/config", folder / ".dvc/config")
    stages = {
        f"stage{i}": {"cmd": f"echo {i} > {i}", "outs": [str(i)]} | ({"deps": [str(i - 1)]} if i else {})
        for i in range(6)
    }
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))


def measure(device: str) -> dict[str, Any]:
    seconds = {}
    with tempfile.TemporaryDirectory() as empty, tempfile.TemporaryDirectory() as project:
        make_empty(Path(empty))
        make_project(Path(project))
        sides = {"six empty stages": Path(empty), "this pipeline, 1200 clips": Path(project)}
        for folder in sides.values():
            dvc(folder, "repro")
        for _ in range(TIMES):
            for name, folder in sides.items():
                seconds.setdefault(name, []).append(timed(lambda folder=folder: dvc(folder, "repro")))
    first = min(seconds["six empty stages"])
    return {
        "title": "A `dvc repro` with nothing to do",
        "text": f"The fastest of {TIMES}, in turns.",
        "header": ["pipeline", "seconds", "ratio"],
        "rows": [[name, f"{min(own):.2f}", f"{min(own) / first:.2f}"] for name, own in seconds.items()],
    }
