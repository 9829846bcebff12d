"""Keep what is found in each clip, so that a download that is killed does not decode all clips again.

A result depends only on the bytes of a file, its extension, the code and the libraries. So a clip that changed, or that
was copied only in part, has no result, and other params can use those of the clips that they select, too.
"""

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stages.common.inputs import find_entry
from stages.common.kept_work import Kind, describe_inputs, open_run

LIBRARIES = ("numpy", "scipy", "soundfile", "soxr")
RESULTS = Kind("checked", "the checks of a download", lambda folder: find_results(folder) is not None)
FILE = "results.txt"
CHECK, ANALYSIS = "check", "analysis"  # steps


class KeptResults:
    """Results for clips, in a file that grows by a line for each. Threads may share it."""

    def __init__(self, file: Path) -> None:
        self._file, self._results = file, dict[str, bytes]()
        with file.open("rb") as lines:
            for line in lines:
                checksum, _, content = line.rstrip(b"\n").partition(b" ")
                key, _, result = content.partition(b" ")
                if key and checksum == _sum(content):  # not if a kill, or a full disk, cut the line
                    self._results[key.decode()] = result

    def describe(self) -> str:
        """Return how many results there are, or "" if there are none."""
        steps = Counter(key.partition(":")[0] for key in self._results)
        return f"the check of {steps[CHECK]} clips and the analysis of {steps[ANALYSIS]}" if steps else ""

    def compute(self, step: str, function: Callable[[Path], list[Any]], file: Path, sha256: str) -> list[Any]:
        """Return the result that is kept for a file, or call the function and keep its result, which JSON must hold.

        Args:
            step: of the stage. sha256: of the file's content.
        """
        key = f"{step}:{sha256}{file.suffix}"
        if kept := self._results.pop(key, None):  # removed, so that memory does not hold all results twice
            return json.loads(kept)
        result = function(file)
        content = f"{key} {json.dumps(result)}".encode()
        with self._file.open("ab", buffering=0) as output:  # in one write, so that those of threads do not mix
            output.write(b"\n%s %s" % (_sum(content), content))  # the line break also ends a line that was cut
        return result


@contextmanager
def open_results() -> Iterator[KeptResults]:
    """Yield the results of earlier runs with the same code and libraries. They are removed if the block succeeds."""
    code = [path for path in find_entry("download@dataset").get("deps", []) if path.startswith("stages/")]
    with open_run(RESULTS, describe_inputs({"deps": code}, [], LIBRARIES)) as folder:
        (folder / FILE).touch()
        results = KeptResults(folder / FILE)
        if kept := results.describe():
            print(f"goes on from {kept}, if their bytes are the same; kept in {folder}", flush=True)
        yield results
        shutil.rmtree(folder, ignore_errors=True)


def find_results(folder: Path) -> Path | None:
    """Return the file of results in the folder of a run, if it has any."""
    file = folder / FILE
    return file if file.is_file() and file.stat().st_size else None


def _sum(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode()
