"""Where labelled clips come from. Each source is its own piece of `download.dataset` in params.yaml.

`fetch(audio)` of a source puts the files at audio/<label>/<clip>.<ext> and says what it left out; whether a file
can be decoded is not its business.
"""

import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import soundfile
from pydantic import Field
from tqdm import tqdm

from stages.common import archives, composer
from stages.common.audio import EXTENSIONS
from stages.common.hub_id import HubId
from stages.common.stage import Number, Section, StageError

if TYPE_CHECKING:
    from datasets import DatasetBuilder

HIDDEN = "hidden file"  # the reason for rejecting one
# How the formats that libsndfile reads begin; MP3 has no one beginning.
MAGIC = {b"RIFF": ".wav", b"fLaC": ".flac", b"OggS": ".ogg", b"FORM": ".aiff", b".snd": ".au"}


class Fetched(NamedTuple):
    """What a source brought.

    files: where each was put -> its path inside the data set, in the data set's own order.
    rejected: (path, reason) of what is no clip: hidden, no audio, a double name.
    origin: source, id, revision, licence; it becomes source.json.
    unreadable: (path, reason) of what should be a clip.
    """

    files: dict[Path, str]
    rejected: list[tuple[str, str]]
    origin: dict[str, Any]
    unreadable: list[tuple[str, str]]


class Candidate(NamedTuple):
    """A file of a data set that could be a clip: path inside the data set, label, and file name."""

    path: str
    label: str
    name: str


class _Source(Section):
    max_rejected: Number = Field(ge=0, le=1)
    originals: str | None = None  # a CSV with the columns clip and md5, to compare the files with; never an error


class Procedural(_Source):
    """Music composed from a seed: the embedded demo data."""

    source: Literal["procedural"]
    clips_per_label: int = Field(ge=1)
    seconds: Number = Field(gt=0)
    seed: int = Field(ge=0, lt=2**32)

    def fetch(self, audio: Path) -> Fetched:
        jobs = [
            (audio / genre / f"{genre}.{number:05d}.wav", genre, self.seconds, [self.seed, index, number])
            for index, genre in enumerate(composer.GENRES)
            for number in range(self.clips_per_label)
        ]
        for genre in composer.GENRES:
            (audio / genre).mkdir(parents=True)
        with ProcessPoolExecutor() as pool:
            files = list(tqdm(pool.map(_compose, *zip(*jobs), chunksize=16), "compose", len(jobs), unit="clip"))
        origin = {"source": "procedural", "id": "procedurally composed music", "seed": self.seed, "licence": "cc0-1.0"}
        return Fetched({file: f"{file.parent.name}/{file.name}" for file in files}, [], origin, [])


def _compose(file: Path, genre: str, seconds: float, seed: list[int]) -> Path:
    soundfile.write(file, composer.compose(genre, seconds, seed), composer.SAMPLING_RATE, subtype="PCM_16")
    return file


class Folder(_Source):
    """Any folder of <label>/<file>."""

    source: Literal["folder"]
    path: str
    licence: str = "unknown"

    def fetch(self, audio: Path) -> Fetched:
        root = Path(self.path).expanduser()
        if not root.is_dir():
            raise StageError(
                f"params.yaml: download.dataset.path: no folder {self.path}; it should hold <label>/<file>"
            )
        # Links are followed: a person's folder of labels is often made of them.
        found = sorted(Path(folder, name) for folder, _, names in os.walk(root, followlinks=True) for name in names)
        candidates, rejected = choose((file.relative_to(root).as_posix() for file in found), depth=2)
        if not candidates:
            raise StageError(
                f"params.yaml: download.dataset.path: no audio in {self.path}/<label>/: {', '.join(sorted(EXTENSIONS))}"
            )
        files, unreadable = {}, []
        for candidate in tqdm(candidates, "copy", unit="clip"):
            own, file = root / candidate.path, place(audio, candidate)
            if own.is_file() and os.access(own, os.R_OK):
                shutil.copyfile(own, file)
                files[file] = candidate.path
            else:
                unreadable.append((candidate.path, "cannot be read: a link to nothing, no file, or not permitted"))
        origin = {"source": "folder", "id": root.resolve().name, "licence": self.licence}
        return Fetched(files, rejected, origin, unreadable)


def place(audio: Path, candidate: Candidate) -> Path:
    """Where a clip goes; its label's folder is made."""
    file = audio / candidate.label / candidate.name
    file.parent.mkdir(parents=True, exist_ok=True)
    return file


def choose(paths: Iterable[str], depth: int | None = None) -> tuple[list[Candidate], list[tuple[str, str]]]:
    """Tell clips from the rest by their paths alone; a clip's label is the folder that it lies in.

    A clip's name is its file's, as GTZAN's blues.00000.wav is. Where two labels share a name (1.wav and 1.wav), all
    clips get their label in front, as GTZAN does it. A second file of one name and label is rejected.

    Args:
        paths: with forward slashes, inside the data set, in its order.
        depth: how many parts a clip's path has; None takes any depth from two.
    """
    found, rejected = [], []
    for path in paths:
        parts = PurePosixPath(path).parts
        if not path.isprintable():
            # Such as a name in another encoding than UTF-8: no CSV could hold it.
            rejected.append((ascii(path), "name that cannot be written; rename it"))
        elif path.startswith("/"):
            rejected.append((path, "no label"))
        elif any(part.startswith(".") for part in parts):
            rejected.append((path, HIDDEN))
        elif PurePosixPath(path).suffix.lower() not in EXTENSIONS:
            rejected.append((path, "not an audio file"))
        elif len(parts) < 2 or len(parts) != (depth or len(parts)):
            rejected.append((path, "not at <label>/<file>"))
        else:
            found.append(Candidate(path, parts[-2], parts[-1]))
    stems = Counter(stem for stem, _ in {(Path(c.name).stem, c.label) for c in found})
    if any(count > 1 for count in stems.values()):
        found = [Candidate(c.path, c.label, f"{c.label}.{c.name}") for c in found]
    kept: dict[str, Candidate] = {}
    for candidate in found:
        first = kept.setdefault(Path(candidate.name).stem, candidate)
        if first is not candidate:
            rejected.append((candidate.path, f"duplicate name: {first.path} comes first"))
    return list(kept.values()), rejected


class Hub(_Source):
    """A data set repo on the Hugging Face Hub: Parquet with an audio and a label column, or a tar file of clips."""

    source: Literal["hub"]
    id: HubId
    title: str | None = None  # for the model card; null takes the last part of the id
    revision: str = "main"
    archive: str | None = None  # a tar file in the repo, with <anything>/<label>/<file>; null reads the Parquet files
    config: str | None = None  # of a Parquet data set that has several
    audio_column: str = "audio"
    label_column: str = "label"
    licence: str = "unknown"
    max_files: int = Field(100_000, ge=1)  # that an archive may hold
    max_gigabytes: Number = Field(20, gt=0)  # that an archive may unpack to

    def fetch(self, audio: Path) -> Fetched:
        from stages.common import hub

        wanted = [self.archive] if self.archive else ["**/*.parquet", "*.parquet", "README.md"]
        folder, commit = hub.fetch("dataset", self.id, self.revision, wanted)
        if self.archive:
            paths = archives.check(folder / self.archive, self.max_files, self.max_gigabytes)
            chosen, rejected = choose(paths)
            files = {place(audio, candidate): candidate.path for candidate in chosen}
            archives.unpack(folder / self.archive, {path: file for file, path in files.items()})
            split = "train"  # what `datasets` calls a data set that has no splits
        else:
            builder = self._builder(folder)
            files, rejected = self._write_rows(builder, audio)
            split = "+".join(map(str, builder.config.data_files))
        origin = {"source": "hub", "id": self.id, "title": self.title or self.id.split("/")[-1], "config": self.config}
        origin |= {"split": split, "revision": commit, "licence": self.licence}
        return Fetched(files, rejected, origin, [])

    def _builder(self, folder: Path) -> "DatasetBuilder":
        from datasets import load_dataset_builder

        try:
            return load_dataset_builder(str(folder), self.config)
        except (ValueError, OSError) as error:
            raise StageError(f"dataset {self.id}: {str(error).splitlines()[0]}; set download.dataset.config") from None

    def _write_rows(self, builder: "DatasetBuilder", audio: Path) -> tuple[dict[Path, str], list[tuple[str, str]]]:
        chosen, rejected = choose((path for path, _ in self._rows(builder)), depth=2)
        wanted = {candidate.path: candidate for candidate in chosen}
        with tqdm(desc="unpack", total=len(wanted), unit="clip") as bar:
            for path, content in self._rows(builder):
                if candidate := wanted.pop(path, None):
                    place(audio, candidate).write_bytes(content)
                    bar.update()
        return {place(audio, candidate): candidate.path for candidate in chosen}, rejected

    def _rows(self, builder: "DatasetBuilder") -> Iterator[tuple[str, bytes]]:
        """<label>/<file> and content of each row, in the data set's order, straight from the Parquet files.

        `load_dataset` would first write all of it once more, as Arrow.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        number = 0
        for file in (file for files in builder.config.data_files.values() for file in files):
            parquet = pq.ParquetFile(file)
            to_name = _label_names(parquet.schema_arrow, builder.info.features, self.label_column)
            if missing := {self.audio_column, self.label_column} - set(parquet.schema_arrow.names):
                known = ", ".join(parquet.schema_arrow.names)
                raise StageError(f"dataset {self.id} has no column {missing.pop()}; it has {known}")
            if not pa.types.is_struct(parquet.schema_arrow.field(self.audio_column).type):
                raise StageError(f"dataset {self.id}: column {self.audio_column} holds no audio; set audio_column")
            for batch in parquet.iter_batches(64, columns=[self.audio_column, self.label_column]):
                for row in batch.to_pylist():
                    clip, label = row[self.audio_column] or {}, to_name(row[self.label_column])
                    content = clip.get("bytes") or b""
                    name = Path(clip.get("path") or f"{label}.{number:05d}{_suffix(content)}").name
                    number += 1
                    yield f"{label}/{name}", content


def _label_names(schema: Any, features: Any, column: str) -> Callable[[Any], str]:
    """How a label column's values become names: by its ClassLabel in the card or the file, or as they are.

    Null, and -1 of a ClassLabel, which the Hub's data sets use for what is not labelled, have none: "".
    """
    from datasets import ClassLabel, Features

    features = features or Features.from_arrow_schema(schema)
    label = features.get(column)
    names = dict(enumerate(label.names)) | {-1: ""} if isinstance(label, ClassLabel) else {}

    def to_name(value: Any) -> str:
        # A label becomes a folder.
        return "" if value is None else str(names.get(value, value)).replace("/", "-")

    return to_name


def _suffix(content: bytes) -> str:
    return MAGIC.get(content[:4], ".mp3")
