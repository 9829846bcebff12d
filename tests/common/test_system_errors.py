"""Errors of the operating system, as libraries in Python, C++ and Rust pass them on."""

import errno
import os
import re
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import soundfile
import torch
from fakes.small_disk import small_disk
from helpers import ROOT
from safetensors.numpy import save_file

from stages.common.system_errors import describe_full_disk, describe_system_error

LARGE = np.zeros(1 << 20, np.uint8)


def write_arrow(file: Path) -> None:
    with pa.OSFile(str(file), "wb") as sink:
        sink.write(LARGE)


WRITERS: dict[str, Callable[[Path], object]] = {
    "Python": lambda file: file.write_bytes(LARGE),
    "NumPy": lambda file: np.save(file, LARGE),
    "Arrow": write_arrow,
    "safetensors": lambda file: save_file({"x": LARGE}, file),
    "torch": lambda file: torch.save(torch.from_numpy(LARGE), file),
    "soundfile": lambda file: soundfile.write(file, LARGE.astype(np.float32), 8_000, format="WAV"),
}


@pytest.mark.parametrize("library", WRITERS)
def test_full_disk(library: str, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", kilobytes=100):
        with pytest.raises(Exception) as found:  # noqa: PT011  # each library has its own
            WRITERS[library](tmp_path / "disk" / "file")
        line = describe_full_disk(found.value, [tmp_path / "disk" / "file"])
        assert line is not None
        assert re.match(r"the disk is full: it needs more than 0.\d MB, 0.\d MB are free; free some", line)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.EROFS, "read-only"),
        (errno.EACCES, "permission denied"),
        (errno.EMFILE, "too many open files"),
        (errno.EDQUOT, "quota"),
        (errno.EFBIG, "ulimit -f"),
        (errno.ENAMETOOLONG, "too long"),
        (errno.EIO, "check the disk"),
    ],
    ids=lambda value: errno.errorcode[value] if isinstance(value, int) else "",
)
def test_one_line_names_the_file(code: int, words: str) -> None:
    for error in (OSError(code, os.strerror(code), "data/raw"), wrapped(OSError(code, os.strerror(code), "data/raw"))):
        line = str(describe_system_error(error))
        assert line.startswith("data/raw: ")
        assert words in line
        assert "\n" not in line


def wrapped(error: Exception) -> Exception:
    try:
        try:
            raise error
        except OSError as cause:
            raise RuntimeError("cannot save") from cause
    except RuntimeError as outer:
        return outer


def test_killed_worker() -> None:
    with ProcessPoolExecutor(1) as pool, pytest.raises(Exception) as found:  # noqa: PT011
        pool.submit(os._exit, 9).result()
    assert "worker process was killed" in str(describe_system_error(found.value))


@pytest.mark.parametrize("error", [ValueError("a bug"), OSError("no number"), OSError(errno.EPIPE, "Broken pipe")])
def test_other_errors_are_not_described(error: Exception) -> None:
    assert describe_system_error(error) is None
    assert describe_full_disk(error, [Path("file")]) is None


@pytest.mark.slow
@pytest.mark.parametrize(("limit", "words"), [("ulimit -n 12", "too many open files"), ("ulimit -f 10", "ulimit -f")])
def test_limits_of_a_shell(limit: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(
        "from pathlib import Path\n"
        "from stages.common.stage import run_command\n"
        "def write() -> None:\n"
        f"    files = [Path({str(tmp_path)!r}, str(number)).open('wb') for number in range(12)]\n"
        "    files[0].write(bytes(100_000))\n"
        "run_command(write)\n"
    )
    command = ["bash", "-c", f"{limit}; exec {sys.executable} {tmp_path}/script.py"]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, text=True, capture_output=True)
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert words in line
