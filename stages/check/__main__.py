"""Check all of params.yaml, and that no file of yours is where a stage writes.

DVC deletes the outputs of a stage before it starts the stage, so a check inside the stage would come too late. Both
halves of download depend on this one, and so do all other stages.

Reads   params.yaml; the names of the files in data/ and models/
Writes  data/checked.txt: always the same text, so that no other stage runs because of it
Run     python -m stages.check
"""

import stages.common.interrupts  # noqa: F401  # first, so that Ctrl-C is handled while the rest is imported
from stages.check.own_files import find_own_files
from stages.common.errors import InvalidParamsError
from stages.common.outputs import atomic_outputs
from stages.common.params import read_file
from stages.common.paths import CHECKED
from stages.common.stage import run_stage


def main() -> None:
    """Stop if DVC would delete files that no stage wrote. `run_stage` has checked params.yaml."""
    if found := list(find_own_files(read_file())):
        raise InvalidParamsError(found)
    with atomic_outputs(CHECKED) as [file]:
        file.write_text("No file that the stages did not write is in the way.\n", encoding="utf-8")


if __name__ == "__main__":
    run_stage(main)
