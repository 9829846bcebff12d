"""Where labelled clips come from. Each source is its own piece of `download.dataset` in params.yaml.

`fetch(audio)` of a source puts the files at audio/<label>/<clip>.<ext> and says what it left out; whether a file
can be decoded is not its business.
"""

import shutil
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NamedTuple

import soundfile
from pydantic import Field
from tqdm import tqdm

from stages.common import composer
from stages.common.audio import EXTENSIONS
from stages.common.stage import Number, Section, StageError


class Fetched(NamedTuple):
    """What a source brought.

    files: in the data set's own order. rejected: (file, reason) of what is no clip: hidden, no audio, a double name.
    origin: source, id, revision, licence; it becomes source.json.
    """

    files: list[Path]
    rejected: list[tuple[str, str]]
    origin: dict[str, Any]


class Candidate(NamedTuple):
    """A file of a data set that could be a clip: path inside the data set, label, and file name."""

    path: str
    label: str
    name: str


class _Source(Section):
    max_rejected: Number = Field(ge=0, le=1)


class Procedural(_Source):
    """Music composed from a seed: the embedded demo data."""

    source: Literal["procedural"]
    clips_per_label: int = Field(ge=1)
    seconds: Number = Field(gt=0)
    seed: int = Field(ge=0)

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
        return Fetched(files, [], origin)


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
            raise StageError(f"download.dataset.path: no folder {self.path}; it should hold <label>/<file>")
        paths = (str(path.relative_to(root).as_posix()) for path in sorted(root.rglob("*")) if path.is_file())
        candidates, rejected = choose(paths, depth=2)
        if not candidates:
            raise StageError(
                f"download.dataset.path: no audio in {self.path}/<label>/ ({', '.join(sorted(EXTENSIONS))})"
            )
        files = []
        for candidate in tqdm(candidates, "copy", unit="clip"):
            files.append(audio / candidate.label / candidate.name)
            files[-1].parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(root / candidate.path, files[-1])
        return Fetched(files, rejected, {"source": "folder", "id": root.resolve().name, "licence": self.licence})


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
        if any(part.startswith(".") for part in parts):
            rejected.append((path, "hidden file"))
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
    """A data set repo on the Hugging Face Hub: Parquet with an audio and a label column, or an archive of files."""

    source: Literal["hub"]
    id: str
    revision: str = "main"
    archive: str | None = None  # a tar file in the repo with <anything>/<label>/<file>
    config: str | None = None
    audio_column: str = "audio"
    label_column: str = "label"
    licence: str = "unknown"

    def fetch(self, audio: Path) -> Fetched:
        from huggingface_hub import HfApi, hf_hub_download

        commit = HfApi().dataset_info(self.id, revision=self.revision).sha
        if self.archive:
            archive = Path(hf_hub_download(self.id, self.archive, repo_type="dataset", revision=commit))
            files, rejected = unpack(archive, audio)
        else:
            files, rejected = self._load_rows(commit, audio), []
        origin = {"source": "hub", "id": self.id, "revision": commit, "licence": self.licence}
        return Fetched(files, rejected, origin)

    def _load_rows(self, commit: str, audio: Path) -> list[Path]:
        from datasets import Audio, concatenate_datasets, load_dataset

        splits = load_dataset(self.id, self.config, revision=commit)
        rows = concatenate_datasets(list(splits.values())).cast_column(self.audio_column, Audio(decode=False))
        label = rows.features[self.label_column]
        files = []
        for number, row in enumerate(tqdm(rows, "unpack", unit="clip")):
            name = row[self.label_column]
            name = label.int2str(name) if hasattr(label, "int2str") else str(name)
            clip = row[self.audio_column]
            file = Path(clip["path"] or f"{name}.{number:05d}.wav").name
            files.append(audio / name / file)
            files[-1].parent.mkdir(parents=True, exist_ok=True)
            files[-1].write_bytes(clip["bytes"])
        return files


def unpack(archive: Path, audio: Path) -> tuple[list[Path], list[tuple[str, str]]]:
    """Unpack the clips of a tar file straight to audio/<label>/<clip>.<ext>, in two passes: names, then bytes."""
    with tarfile.open(archive) as tar:
        candidates, rejected = choose(member.name for member in tar if member.isfile())
    wanted = {candidate.path: candidate for candidate in candidates}
    files = []
    with tarfile.open(archive) as tar:
        for member, candidate in tqdm(_pairs(tar, wanted), "unpack", len(wanted), unit="clip"):
            files.append(audio / candidate.label / candidate.name)
            files[-1].parent.mkdir(parents=True, exist_ok=True)
            with files[-1].open("wb") as file:
                shutil.copyfileobj(tar.extractfile(member), file)
    return files, rejected


def _pairs(tar: tarfile.TarFile, wanted: dict[str, Candidate]) -> Iterator[tuple[tarfile.TarInfo, Candidate]]:
    return ((member, wanted[member.name]) for member in tar if member.isfile() and member.name in wanted)
