"""The source `folder`: clips on the disk."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import Field
from tqdm import tqdm

from stages.common.errors import UserError
from stages.common.extensions import EXTENSIONS
from stages.common.user_paths import expand_path
from stages.download.dataset import background
from stages.download.dataset.clip_source import LABEL_SPELLINGS, ClipSource, Fetched, check_space, target_path
from stages.download.dataset.folders import copy_clip, has_clips, list_files, measure_clips
from stages.download.dataset.labels import Spellings
from stages.download.dataset.selection import select_clips


class FolderClips(ClipSource):
    """A folder of <label>/<file>, of <split>/<label>/<file>, or with a table of labels."""

    source: Literal["folder"]
    path: str = Field(
        description="Folder of <label>/<file>: audio that libsndfile decodes, of any sampling rate and channel count."
    )
    table: str | None = Field(
        None,
        description="Table with the files' labels; null: metadata.csv, if the folder has it, or the folders.",
    )
    file_column: str | None = Field(None, description="Column of the table with the names of the files; null: find it.")
    label_column: str | None = Field(None, description="Column of the table with the labels; null: find it.")
    split_column: str | None = Field(
        None, description="Column of the table with train, validation or test; null: find it."
    )
    licence: str = Field("unknown", description="Licence of the recordings, for the report and the model card.")
    label_spellings: Spellings = LABEL_SPELLINGS

    def find_obstacles(self) -> Iterator[UserError]:
        """Check that files and folders exist and that the disk has space for the clips."""
        yield from super().find_obstacles()
        try:
            root = self._find_root()
            if self.table is not None:
                from stages.download.dataset.table_files import find_table  # imports pandas

                find_table(root, self.table)
            if not has_clips(root):
                yield self._no_audio()
            size = measure_clips(root) + background.measure(self.background)
            yield from check_space(size, "download.dataset.path")
        except UserError as error:
            yield error

    def _find_root(self) -> Path:
        root = expand_path(self.path, "download.dataset.path")
        if not root.is_dir():
            raise UserError(f"no folder {self.path}; it should contain <label>/<file>", key="download.dataset.path")
        return root

    def _no_audio(self) -> UserError:
        names = ", ".join(sorted(EXTENSIONS))
        return UserError(f"no audio in {self.path}/<label>/: {names}", key="download.dataset.path")

    def fetch(self, folder: Path) -> Fetched:
        """Copy the clips.

        Raises:
            UserError: there is no such folder, or no audio in it.
        """
        from stages.download.dataset.label_tables import Columns
        from stages.download.dataset.labelling import find_labels, require_labels

        root = self._find_root()
        listing = list_files(root)
        columns = Columns(self.file_column, self.label_column, self.split_column)
        known = find_labels(root, listing.files, self.table, columns)
        others = [path for path in listing.files if path not in known.used]
        candidates, ignored, rejected = select_clips(others, 2, self.label_spellings, known.labels)
        ignored, rejected = listing.ignored + known.ignored + ignored, listing.rejected + known.rejected + rejected
        if not candidates and not rejected:
            raise self._no_audio()
        if known.labels is None:
            require_labels((candidate.label for candidate in candidates), listing.files, known.unused)
        files, splits = {}, {}
        for candidate in tqdm(candidates, "copy", unit="clip"):
            target = target_path(folder, candidate)
            if reason := copy_clip(root / candidate.path, target):
                rejected.append((candidate.path, reason))
            else:
                files[target] = candidate.path
                if split := known.splits.get(candidate.path):
                    splits[target] = split
        origin = {"source": "folder", "id": root.resolve().name, "licence": self.licence}
        labels = known.labels or {}
        # A file that is left out has the name that the clips of its label got.
        names = {labels[one.path]: one.label for one in candidates if labels}
        lost = {path: names.get(label, label.replace("/", "-")) for path, label in (known.lost | labels).items()}
        return Fetched(files, ignored, origin, rejected, splits, lost)
