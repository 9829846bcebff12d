"""Sources of labelled clips, one class for each value of download.dataset.source in params.yaml.

The method `fetch(folder)` of a source writes the files to <folder>/<label>/<clip>.<ext> and reports what it left
out. It does not decode them.
"""

import io
import shutil
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import Field
from tqdm import tqdm

from stages.common import interrupts
from stages.common.errors import UserError
from stages.common.extensions import EXTENSIONS
from stages.common.hub_id import HubId
from stages.common.params import Number, Seconds, Section
from stages.common.user_paths import expand_path
from stages.download.dataset import archives, background, parquet
from stages.download.dataset.folders import copy_clip, has_clips, list_files, measure_clips
from stages.download.dataset.labels import Spellings
from stages.download.dataset.selection import Candidate, save_clip, select_clips


class Fetched(NamedTuple):
    """What a source returns.

    files: path on disk -> path inside the data set, in the data set's order.
    ignored: (path, reason) of files that are no clips: hidden, or not audio.
    origin: source, id, revision, licence; it becomes source.json.
    rejected: (path, reason) of files that should be clips.
    """

    files: dict[Path, str]
    ignored: list[tuple[str, str]]
    origin: dict[str, Any]
    rejected: list[tuple[str, str]]


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

    def find_obstacles(self) -> Iterator[UserError]:
        """Check that files and folders exist and that the disk has space for the clips."""
        if self.originals is not None:
            try:
                if not expand_path(self.originals, "download.dataset.originals").is_file():
                    yield UserError(f"no file {self.originals}", key="download.dataset.originals")
            except UserError as error:
                yield error
        yield from background.find_obstacles(self.background, getattr(self, "path", None))


def _check_space(needed: int, key: str) -> Iterator[UserError]:
    free = shutil.disk_usage(".").free
    if needed > free:
        message = f"the clips need {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free; free some space"
        yield UserError(message, key=key)


class SyntheticClips(ClipSource):
    """Music composed from a seed: the demo's data."""

    source: Literal["synthetic"]
    clips_per_label: int = Field(120, ge=1, description="Number of clips for each of the ten genres.")
    seconds: Seconds = Field(5, description="Length of a clip.")
    seed: int = Field(1, ge=0, lt=2**32, description="Another seed composes other clips.")

    def find_obstacles(self) -> Iterator[UserError]:
        """Check that files and folders exist and that the disk has space for the clips."""
        yield from super().find_obstacles()
        # Ten genres, 22,050 Hz, two bytes a sample.
        yield from _check_space(round(10 * self.clips_per_label * self.seconds * 22_050 * 2), "download.dataset")

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


class FolderClips(ClipSource):
    """A folder of <label>/<file>."""

    source: Literal["folder"]
    path: str = Field(
        description="Folder of <label>/<file>: audio that libsndfile decodes, of any sampling rate and channel count."
    )
    licence: str = Field("unknown", description="Licence of the recordings, for the report and the model card.")
    label_spellings: Spellings = LABEL_SPELLINGS

    def find_obstacles(self) -> Iterator[UserError]:
        """Check that files and folders exist and that the disk has space for the clips."""
        yield from super().find_obstacles()
        try:
            root = self._find_root()
            if not has_clips(root):
                yield self._no_audio()
            size = measure_clips(root) + background.measure(self.background)
            yield from _check_space(size, "download.dataset.path")
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
        root = self._find_root()
        listing = list_files(root)
        candidates, ignored, rejected = select_clips(listing.files, depth=2, spellings=self.label_spellings)
        ignored, rejected = listing.ignored + ignored, listing.rejected + rejected
        if not candidates and not rejected:
            raise self._no_audio()
        files = {}
        for candidate in tqdm(candidates, "copy", unit="clip"):
            target = target_path(folder, candidate)
            if reason := copy_clip(root / candidate.path, target):
                rejected.append((candidate.path, reason))
            else:
                files[target] = candidate.path
        origin = {"source": "folder", "id": root.resolve().name, "licence": self.licence}
        return Fetched(files, ignored, origin, rejected)


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
        files, rejected = {}, list(selection.rejected)
        for position, row in enumerate(tqdm(parquet.read_rows(builder, *columns), "unpack", unit="clip")):
            if candidate := candidates.get(position):
                target = target_path(folder, candidate)
                if reason := save_clip(io.BytesIO(row.content or b""), target):
                    rejected.append((candidate.path, reason))
                else:
                    files[target] = candidate.path
        return Fetched(files, [], {"split": "+".join(map(str, builder.config.data_files))}, rejected)


def target_path(folder: Path, candidate: Candidate) -> Path:
    """Return where a clip is written."""
    return folder / candidate.label / candidate.name


SOURCES = SyntheticClips | FolderClips | HubClips
