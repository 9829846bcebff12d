"""Sources of labelled clips, one class for each value of download.dataset.source in params.yaml.

The method `fetch(folder)` of a source writes the files to <folder>/<label>/<clip>.<ext> and reports what it left
out. It does not decode them.
"""

import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import Field
from tqdm import tqdm

from stages.common import interrupts
from stages.common.audio import EXTENSIONS
from stages.common.errors import UserError
from stages.common.hub_id import HubId
from stages.common.params import Number, Seconds, Section
from stages.download.dataset import archives, parquet
from stages.download.dataset.selection import is_audio, select_clips, target_path


class Fetched(NamedTuple):
    """What a source returns.

    files: path on disk -> path inside the data set, in the data set's order.
    rejected: (path, reason) of files that are no clips: hidden, not audio, duplicate names.
    origin: source, id, revision, licence; it becomes source.json.
    unreadable: (path, reason) of files that should be clips.
    """

    files: dict[Path, str]
    rejected: list[tuple[str, str]]
    origin: dict[str, Any]
    unreadable: list[tuple[str, str]]


class ClipSource(Section):
    """What all sources share."""

    max_rejected: Number = Field(
        0.0, ge=0, le=1, description="Stop if more than this share of the clips cannot be decoded or is silent."
    )
    originals: str | None = Field(
        None, description="CSV file with the columns clip and md5, to count the unmodified originals; null: none."
    )

    def find_obstacles(self) -> Iterator[UserError]:
        """Check that files and folders exist and that the disk has space for the clips."""
        if self.originals and not Path(self.originals).is_file():
            yield UserError(f"no file {self.originals}", key="download.dataset.originals")


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
        description="Folder of <label>/<file>: WAV, FLAC, OGG, MP3, AU or AIFF, of any sampling rate and channel count."
    )
    licence: str = Field("unknown", description="Licence of the recordings, for the report and the model card.")

    def find_obstacles(self) -> Iterator[UserError]:
        """Check that files and folders exist and that the disk has space for the clips."""
        yield from super().find_obstacles()
        root = Path(self.path).expanduser()
        if root.is_dir():
            sizes = (file.stat().st_size for file in _walk(root) if file.is_file() and is_audio(file.name))
            yield from _check_space(sum(sizes), "download.dataset.path")
        else:
            yield UserError(f"no folder {self.path}; it should contain <label>/<file>", key="download.dataset.path")

    def fetch(self, folder: Path) -> Fetched:
        """Copy the clips.

        Raises:
            UserError: there is no such folder, or no audio in it.
        """
        root = Path(self.path).expanduser()
        if not root.is_dir():
            raise UserError(f"no folder {self.path}; it should contain <label>/<file>", key="download.dataset.path")
        candidates, rejected = select_clips((file.relative_to(root).as_posix() for file in _walk(root)), depth=2)
        if not candidates:
            raise UserError(
                f"no audio in {self.path}/<label>/: {', '.join(sorted(EXTENSIONS))}", key="download.dataset.path"
            )
        files, unreadable = {}, []
        for candidate in tqdm(candidates, "copy", unit="clip"):
            source, target = root / candidate.path, target_path(folder, candidate)
            if source.is_file() and os.access(source, os.R_OK):
                shutil.copyfile(source, target)
                files[target] = candidate.path
            else:
                unreadable.append((candidate.path, "cannot be read: a broken link, not a file, or permission denied"))
        origin = {"source": "folder", "id": root.resolve().name, "licence": self.licence}
        return Fetched(files, rejected, origin, unreadable)


def _walk(root: Path) -> list[Path]:
    # Links are followed: folders of labels are often made of them.
    return sorted(Path(folder, name) for folder, _, names in os.walk(root, followlinks=True) for name in names)


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
    max_files: int = Field(100_000, ge=1, description="Refuse an archive with more files.")
    max_gigabytes: Number = Field(20, gt=0, description="Refuse an archive that unpacks to more.")

    def fetch(self, folder: Path) -> Fetched:
        """Download the repo's files into the Hub's cache and write its clips."""
        from stages.common import hub

        wanted = [self.archive] if self.archive else ["**/*.parquet", "*.parquet", "README.md"]
        snapshot, commit = hub.fetch_files("dataset", self.id, self.revision, wanted)
        if self.archive:
            paths = archives.check_archive(snapshot / self.archive, self.max_files, self.max_gigabytes)
            candidates, rejected = select_clips(paths)
            files = {target_path(folder, candidate): candidate.path for candidate in candidates}
            archives.unpack(snapshot / self.archive, {path: file for file, path in files.items()})
            split = "train"  # the name that `datasets` uses for a data set without splits
        else:
            builder = parquet.open_data_set(snapshot, self.config)
            columns = self.audio_column, self.label_column
            candidates, rejected = select_clips((path for path, _ in parquet.read_rows(builder, *columns)), depth=2)
            files = {target_path(folder, candidate): candidate.path for candidate in candidates}
            targets = {path: file for file, path in files.items()}
            for path, content in tqdm(parquet.read_rows(builder, *columns), "unpack", unit="clip"):
                if target := targets.pop(path, None):
                    target.write_bytes(content)
            split = "+".join(map(str, builder.config.data_files))
        origin = {"source": "hub", "id": self.id, "title": self.title or self.id.split("/")[-1], "config": self.config}
        origin |= {"split": split, "revision": commit, "licence": self.licence}
        return Fetched(files, rejected, origin, [])


SOURCES = SyntheticClips | FolderClips | HubClips
