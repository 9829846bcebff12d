"""List the checkpoints of interrupted trainings, and remove them.

A training that starts again with the same params, code and inputs goes on from its checkpoint, and removes it at its
end. The others stay until you remove them.

Run     python -m tools.checkpoints; python -m tools.checkpoints --clear
"""

import shutil
import time
from pathlib import Path

import filelock

from stages.common.stage import command_parser, run_command
from stages.train.checkpoints import checkpoints_folder, find_last, lock_of


def describe(folder: Path) -> str:
    """Return a line about a training: its folder, the step of its checkpoint, its size and its time."""
    last = find_last(folder)
    step = f"step {last.name.partition('-')[2]}" if last else "no complete checkpoint"
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime((last or folder).stat().st_mtime))
    return f"{folder}: {step}, {size:.0f} MB, {when}"


def is_used(folder: Path) -> bool:
    """Return whether a training that runs uses the folder."""
    lock = lock_of(folder)
    try:
        with lock.acquire(timeout=0):
            Path(lock.lock_file).unlink(missing_ok=True)
            return False
    except filelock.Timeout:
        return True


def main() -> None:
    """Print a line for each training."""
    parser = command_parser("tools.checkpoints", __doc__)
    parser.add_argument("--clear", action="store_true", help="remove those that no training uses")
    clear = parser.parse_args().clear
    folders = sorted(folder for folder in checkpoints_folder().glob("*") if folder.is_dir())
    for folder in folders:
        used = is_used(folder)
        print(describe(folder) + (": in use" if used else ": removed" if clear else ""))
        if clear and not used:
            shutil.rmtree(folder)
    if not folders:
        print("there are no checkpoints of interrupted trainings")


if __name__ == "__main__":
    run_command(main)
