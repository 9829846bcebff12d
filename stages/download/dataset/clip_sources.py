"""Sources of labelled clips, one class for each value of download.dataset.source in params.yaml.

The method `fetch(folder)` of a source writes the files to <folder>/<label>/<clip>.<ext> and reports what it left
out. It does not decode them.
"""

import io
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Literal

from pydantic import Field
from tqdm import tqdm

from stages.common import interrupts
from stages.common.errors import UserError
from stages.common.hub_id import HubId
from stages.common.params import Number, Seconds
from stages.download.dataset import archives, parquet
from stages.download.dataset.clip_source import LABEL_SPELLINGS, ClipSource, Fetched, check_space, target_path
from stages.download.dataset.folder_clips import FolderClips
from stages.download.dataset.labels import Spellings
from stages.download.dataset.published import name_split
from stages.download.dataset.selection import save_clip, select_clips


class SyntheticClips(ClipSource):
    """Music composed from a seed: the demo's data."""

    source: Literal["synthetic"]
    clips_per_label: int = Field(100, ge=1, description="Number of clips for each of the ten genres.")
    seconds: Seconds = Field(5, description="Length of a clip.")
    seed: int = Field(1, ge=0, lt=2**32, description="Another seed composes other clips.")

    @property
    def clip_counts(self) -> tuple[int, int]:
        """The numbers of clips and of labels; corrections may drop some."""
        return 10 * self.clips_per_label, 10

    def find_obstacles(self) -> Iterator[UserError]:
        """Check that files and folders exist and that the disk has space for the clips."""
        yield from super().find_obstacles()
        # 22,050 Hz, two bytes a sample.
        yield from check_space(round(self.clip_counts[0] * self.seconds * 22_050 * 2), "download.dataset")

    def fetch(self, folder: Path) -> Fetched:
        """Compose the clips."""
        from stages.download.dataset import synthetic_music

        genres = synthetic_music.GENRES
        jobs = [
            (folder / genre / f"{genre}.{number:05d}.wav", genre, self.seconds, [self.seed, index, number])
            for index, genre in enumerate(genres)
            for number in range(self.clips_per_label)
        ]
        for genre in genres:
            (folder / genre).mkdir(parents=True)
        with ProcessPoolExecutor(initializer=interrupts.prepare_worker) as pool:
            written = pool.map(synthetic_music.write_clip, *zip(*jobs), chunksize=16)
            files = list(tqdm(written, "compose", len(jobs), unit="clip"))
        origin = {"source": "synthetic", "id": "synthetic music", "seed": self.seed, "licence": "cc0-1.0"}
        return Fetched({file: f"{file.parent.name}/{file.name}" for file in files}, [], origin, [])


class HubClips(ClipSource):
    """A data set repo on the Hugging Face Hub: Parquet with an audio and a label column, or a tar file of clips."""

    source: Literal["hub"]
    id: HubId = Field(description="owner/name of the data set, or the address of its page.")
    title: str | None = Field(None, description="Name for the model card; null: the last part of the id.")
    revision: str = Field("main", description="Branch, tag or commit; source.json has the resolved commit.")
    archive: str | None = Field(
        None, description="Tar file in the repo, with <anything>/<label>/<file>; null: read the Parquet files."
    )
    config: str | None = Field(None, description="Name of one of several configurations of a Parquet data set.")
    audio_column: str = Field("audio", description="Column of a Parquet data set that holds the clips.")
    label_column: str = Field("label", description="Column of a Parquet data set that holds the labels.")
    licence: str = Field("unknown", description="Licence of the recordings, for the report and the model card.")
    label_spellings: Spellings = LABEL_SPELLINGS
    max_files: int = Field(100_000, ge=1, description="Refuse an archive with more files.")
    max_gigabytes: Number = Field(20, gt=0, description="Refuse an archive that unpacks to more.")

    def fetch(self, folder: Path) -> Fetched:
        """Download the repo's files into the Hub's cache and write its clips."""
        from stages.common import hub

        wanted = [self.archive] if self.archive else ["**/*.parquet", "*.parquet", "README.md"]
        snapshot, commit = hub.fetch_files("dataset", self.id, self.revision, wanted)
        write = self._write_archive if self.archive else self._write_parquet
        fetched = write(snapshot, folder)
        origin = {"source": "hub", "id": self.id, "title": self.title or self.id.split("/")[-1], "config": self.config}
        origin |= fetched.origin | {"revision": commit, "licence": self.licence}
        return fetched._replace(origin=origin)

    def _write_archive(self, snapshot: Path, folder: Path) -> Fetched:
        archive = snapshot / str(self.archive)
        paths = archives.check_archive(archive, self.max_files, self.max_gigabytes)
        candidates, ignored, rejected = select_clips(paths, spellings=self.label_spellings)
        targets = {candidate.path: target_path(folder, candidate) for candidate in candidates}
        unwritten = archives.unpack(archive, targets)
        files = {target: path for path, target in targets.items() if path not in unwritten}
        # `datasets` uses the name train for a data set without splits.
        return Fetched(files, ignored, {"split": "train"}, [*rejected, *unwritten.items()])

    def _write_parquet(self, snapshot: Path, folder: Path) -> Fetched:
        builder = parquet.open_data_set(snapshot, self.config)
        columns = self.audio_column, self.label_column
        selection = parquet.select_rows(parquet.read_rows(builder, *columns), self.label_spellings)
        candidates = {candidate.position: candidate for candidate in selection.candidates}
        files, splits, rejected = {}, {}, list(selection.rejected)
        for position, row in enumerate(tqdm(parquet.read_rows(builder, *columns), "unpack", unit="clip")):
            if candidate := candidates.get(position):
                target = target_path(folder, candidate)
                if reason := save_clip(io.BytesIO(row.content or b""), target):
                    rejected.append((candidate.path, reason))
                else:
                    files[target], splits[target] = candidate.path, name_split(row.split)
        origin = {"split": "+".join(map(str, builder.config.data_files))}
        brought = {target: split for target, split in splits.items() if split}
        # One split is no split, and of splits with other names none is published.
        is_split = len(set(brought.values())) > 1 and len(brought) == len(splits)
        return Fetched(files, [], origin, rejected, splits=brought if is_split else {})


SOURCES = SyntheticClips | FolderClips | HubClips
