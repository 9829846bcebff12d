"""Compare `dvc repro` without changes: this pipeline, and one of six stages that do nothing."""

import os
import shutil
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from benchmarks.common import ROOT, Benchmark, Result, set_params, time_call

PARTS = ["stages", "pretrained", "data/tables", "data/labels", ".dvc/config", ".dvcignore", "dvc.yaml"]
RUNS, CLIPS_PER_LABEL = 5, 120


def run_dvc(folder: Path, *arguments: str) -> None:
    """Run DVC as a user would: the program beside this Python."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(
        ["dvc", *arguments], cwd=folder, env=os.environ | {"PATH": path}, check=True, stdout=subprocess.DEVNULL
    )


def make_git(folder: Path) -> None:
    """Make a git repository with an empty commit."""
    who = ["-c", "user.name=bench", "-c", "user.email=bench@example.org"]
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    subprocess.run(["git", *who, "commit", "-q", "--allow-empty", "-m", "Start"], cwd=folder, check=True)


def make_project(folder: Path, preset: str, values: dict[str, Any]) -> None:
    """Copy the project into a new git repository, with a preset as params.yaml and some of its dotted keys changed."""
    for part in PARTS:
        source, target = ROOT / part, folder / part
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target)
        else:
            shutil.copyfile(source, target)
    set_params(folder, preset, values)
    make_git(folder)


def make_empty(folder: Path) -> None:
    """Make a pipeline of six stages in a row, each of which writes one file."""
    make_git(folder)
    run_dvc(folder, "init", "-q")
    shutil.copyfile(ROOT / ".dvc/config", folder / ".dvc/config")
    stages = {
        f"stage{i}": {"cmd": f"echo {i} > {i}", "outs": [str(i)]} | ({"deps": [str(i - 1)]} if i else {})
        for i in range(6)
    }
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))


def measure(device: str) -> Result:
    """Run both pipelines once, then time them in turns."""
    seconds: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as empty, tempfile.TemporaryDirectory() as project:
        make_empty(Path(empty))
        values = {"download.dataset.clips_per_label": CLIPS_PER_LABEL, "train.epochs": 1}
        make_project(Path(project), "demo.yaml", values)
        pipelines = {"six empty stages": Path(empty), f"this pipeline, {10 * CLIPS_PER_LABEL} clips": Path(project)}
        for folder in pipelines.values():
            run_dvc(folder, "repro")
        for _ in range(RUNS):
            for name, folder in pipelines.items():
                seconds.setdefault(name, []).append(time_call(partial(run_dvc, folder, "repro")))
    first = min(seconds["six empty stages"])
    return {"rows": [[name, f"{min(runs):.2f}", f"{min(runs) / first:.2f}"] for name, runs in seconds.items()]}


BENCHMARK = Benchmark(
    title="`dvc repro` without changes",
    text=f"Time is that of the fastest of {RUNS} runs; the two pipelines run in turns.",
    header=["pipeline", "time (s)", "ratio"],
    measure=measure,
)
