"""What all sources of clips share."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import Field

from stages.common.errors import UserError
from stages.common.params import Number, Section
from stages.common.user_paths import expand_path
from stages.download.dataset import background
from stages.download.dataset.selection import Candidate


class Fetched(NamedTuple):
    """What a source returns.

    files: path on disk -> path inside the data set, in the data set's order.
    ignored: (path, reason) of files that are no clips: hidden, or not audio.
    origin: source, id, revision, licence; it becomes source.json.
    rejected: (path, reason) of files that should be clips.
    splits: path on disk -> split, if the data set brings one.
    lost: path of an ignored or rejected file -> its label, if this is not the name of its folder.
    """

    files: dict[Path, str]
    ignored: list[tuple[str, str]]
    origin: dict[str, Any]
    rejected: list[tuple[str, str]]
    splits: dict[Path, str] = {}
    lost: dict[str, str] = {}


LABEL_SPELLINGS: Any = Field(
    "refuse",
    description="If labels differ only in case, spaces or Unicode form: refuse, join (one label) or keep (several).",
)


class ClipSource(Section):
    """What all sources share."""

    max_rejected: Number = Field(
        0.0, ge=0, le=1, description="Stop if more than this share of the clips cannot be decoded or is silent."
    )
    originals: str | None = Field(
        None, description="CSV file with the columns clip and md5, to count the unmodified originals; null: none."
    )
    background: str | None = Field(
        None, description="Clips that have none of the labels: a label, or the path of a folder, with a slash."
    )

    corrections: str | None = Field(
        None, description="Table of corrected labels and dropped clips, which tools.audit writes; null: none."
    )

    def find_obstacles(self) -> Iterator[UserError]:
        """Check that files and folders exist and that the disk has space for the clips."""
        for name, path in (("originals", self.originals), ("corrections", self.corrections)):
            try:
                if path is not None and not expand_path(path, f"download.dataset.{name}").is_file():
                    yield UserError(f"no file {path}", key=f"download.dataset.{name}")
            except UserError as error:
                yield error
        yield from background.find_obstacles(self.background, getattr(self, "path", None))


def check_space(needed: int, key: str) -> Iterator[UserError]:
    """Check that the disk has space. needed: bytes."""
    free = shutil.disk_usage(".").free
    if needed > free:
        message = f"the clips need {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free; free some space"
        yield UserError(message, key=key)


def target_path(folder: Path, candidate: Candidate) -> Path:
    """Return where a clip is written."""
    return folder / candidate.label / candidate.name
