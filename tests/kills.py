"""Kill stages at random moments, and count what is left behind.

For each kill: start a stage of a finished workspace with its old outputs in place; send a signal; check that all
processes ended and that outputs are complete; run another stage, which must remove what was left; run the stage to its
end, and compare all outputs.

Run     python tests/kills.py --kills 200 --seed 1
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import psutil
from helpers import digests, dvc, make_workspace

STAGES = {
    "check": ["stages.check"],
    "download@dataset": ["stages.download", "dataset"],
    "download@model": ["stages.download", "model"],
    "split": ["stages.split"],
    "resample_encode": ["stages.resample_encode"],
    "train": ["stages.train"],
    "evaluate_baselines": ["stages.evaluate.baselines"],
    "evaluate": ["stages.evaluate"],
    "publish": ["stages.publish"],
}
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
OUTSIDE = "while Python starts or ends"
PLACES = ("data", "models", "metrics")


def outputs(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each file in the folders of outputs."""
    return {f"{place}/{name}": digest for place in PLACES for name, digest in digests(folder / place).items()}


def leftovers(files: dict[str, str]) -> list[str]:
    """Return the files that are partial or old outputs."""
    return [name for name in files if any(part.endswith((".partial", ".replaced")) for part in name.split("/"))]


def start(folder: Path, stage: str) -> subprocess.Popen[str]:
    """Start a stage in a session of its own."""
    command = [sys.executable, "-m", *STAGES[stage]]
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, cwd=folder, text=True, start_new_session=True, **pipes)  # type: ignore[call-overload]


def run(folder: Path, stage: str) -> float:
    """Run a stage to its end, and return its seconds."""
    begin = time.monotonic()
    with start(folder, stage) as process:
        errors = process.communicate()[1]
    assert process.returncode == 0, errors
    return time.monotonic() - begin


def in_session(session: int) -> list[int]:
    """Return the processes that are alive in a session."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
        except (psutil.Error, ProcessLookupError):
            continue
    return found


def kill_once(folder: Path, expected: dict[str, str], stage: str, number: signal.Signals, delay: float) -> set[str]:
    """Kill a stage once, and return what went wrong."""
    wrong = set()
    with start(folder, stage) as process:
        time.sleep(delay)
        # A terminal sends SIGINT to the whole group.
        os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)
        errors = process.communicate()[1]
    time.sleep(0 if number == signal.SIGINT else 1)
    if in_session(process.pid):
        wrong.add("process left")
    if number != signal.SIGKILL and process.returncode:
        if process.returncode in (-number, 1) and "stages/" not in errors:
            wrong.add(OUTSIDE)
        elif process.returncode != 128 + number:
            wrong.add(f"exit status {process.returncode}")
        elif "Traceback" in errors or not (errors.splitlines() or [""])[-1].startswith(("interrupted; ", "ended by ")):
            wrong.add("not one line")
    files = outputs(folder)
    if number != signal.SIGKILL and leftovers(files):
        wrong.add("leftover after a signal")
    if any(files.get(name) != digest for name, digest in expected.items()):
        wrong.add("output not complete before the next run")
    run(folder, "split" if stage == "check" else "check")
    if leftovers(outputs(folder)):
        wrong.add("leftover after the next run")
    if outputs(folder) != expected:
        wrong.add("output not complete after the next run")
    run(folder, stage)
    if outputs(folder) != expected:
        wrong.add("other bytes after the stage ran again")
    return wrong


def kill_many(folder: Path, stages: list[str], kills: int, seed: int) -> Counter[str]:
    """Kill stages of a finished workspace, and count the kills and all that went wrong."""
    durations = {stage: run(folder, stage) for stage in stages}
    expected, choose, counts = outputs(folder), random.Random(seed), Counter[str]()
    for done in range(1, kills + 1):
        stage, number = choose.choice(stages), choose.choice(SIGNALS)
        delay = choose.uniform(0, durations[stage])
        wrong = kill_once(folder, expected, stage, number, delay)
        counts.update([number.name, *wrong])
        if wrong:
            print(f"{stage}, {number.name} after {delay:.2f} s: {', '.join(sorted(wrong))}", flush=True)
        if done % 10 == 0:
            print(f"{done} kills", flush=True)
    return counts


def main() -> None:
    """Make a workspace, and kill its stages."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        workspace = make_workspace(Path(folder))
        dvc(workspace, "repro")
        for name, count in kill_many(workspace, list(STAGES), options.kills, options.seed).items():
            print(f"{name}: {count}")


if __name__ == "__main__":
    main()
