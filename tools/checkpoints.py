"""List what is kept of interrupted downloads, encodings and trainings, and remove it.

A training or an encoding that starts again with the same params, code and inputs goes on from its checkpoint or its
shards, and removes them at its end. So does a download with the results of its checks, whatever the params. The others
stay until you remove them.

Run     python -m tools.checkpoints; python -m tools.checkpoints --clear
"""

import shutil
import time
from pathlib import Path

import filelock

from stages.common.kept_work import lock_of
from stages.common.stage import command_parser, run_command
from stages.download.dataset.kept_results import RESULTS, KeptResults, find_results
from stages.resample_encode.kept_shards import SHARDS
from stages.train.checkpoints import CHECKPOINTS, find_last

KINDS = (RESULTS, SHARDS, CHECKPOINTS)


def describe(folder: Path) -> str:
    """Return a line about a run: its folder, what it keeps, its size and its time."""
    last, shards = find_last(folder), len(list(folder.glob("*.arrow")))
    results = find_results(folder)
    checks = KeptResults(results).describe() if results else ""
    work = f"step {last.name.partition('-')[2]}" if last else f"{shards} shards" if shards else checks
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime((last or folder).stat().st_mtime))
    return f"{folder}: {work or 'no complete work'}, {size:.0f} MB, {when}"


def clear_unused(folder: Path, clear: bool) -> str:
    """Remove a folder if asked and if no run in progress uses it; return what was done."""
    lock = lock_of(folder)
    try:
        with lock.acquire(timeout=0):
            if clear:
                shutil.rmtree(folder)
            Path(lock.lock_file).unlink(missing_ok=True)
            return ": removed" if clear else ""
    except filelock.Timeout:
        return ": in use"


def main() -> None:
    """Print a line for each run."""
    parser = command_parser("tools.checkpoints", __doc__)
    parser.add_argument("--clear", action="store_true", help="remove what no run in progress uses")
    clear = parser.parse_args().clear
    folders = sorted(folder for kind in KINDS for folder in kind.top().glob("*") if folder.is_dir())
    for folder in folders:
        line = describe(folder)
        print(line + clear_unused(folder, clear))
    if not folders:
        print("nothing is kept: no download, encoding or training was interrupted")


if __name__ == "__main__":
    run_command(main)
