"""Fetch what the pipeline starts from: the labelled clips (`dataset`) and the base model (`model`).

Reads   params.yaml: download.dataset, download.model
Writes  data/raw/     audio/<label>/<clip>.<ext>, clips.csv, repetitions.csv, rejected.csv, source.json
        models/base/  a Transformers checkpoint with its preprocessor config, source.json
Run     python -m stages.download dataset
        python -m stages.download model
"""

import csv
import hashlib
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from tqdm import tqdm

from stages.common import audio, base_models, clip_sources, fingerprints
from stages.common.clip_sources import HIDDEN
from stages.common.stage import StageError, load_params, run, whole

RAW = Path("data/raw")
BASE = Path("models/base")
MOST_TOLD = 10

DatasetParams = Annotated[
    clip_sources.Procedural | clip_sources.Folder | clip_sources.Hub, Field(discriminator="source")
]
ModelParams = Annotated[base_models.Scratch | base_models.Folder | base_models.Hub, Field(discriminator="source")]


def describe(file: Path) -> dict[str, Any] | audio.AudioError:
    """Decode and hash one file at audio/<label>/<clip>.<ext>: its row of clips.csv, or why it cannot be used."""
    try:
        facts = audio.inspect(file)
    except audio.AudioError as error:
        return error
    with file.open("rb") as content:
        sha256 = hashlib.file_digest(content, "sha256").hexdigest()
    return {
        "clip": file.stem,
        "label": file.parent.name,
        "path": str(Path("audio", file.parent.name, file.name)),
        "sha256": sha256,
        "sample_rate": facts.sampling_rate,
        "channels": facts.channels,
        "seconds": round(facts.seconds, 3),
    }


def describe_all(files: list[Path]) -> Iterator[tuple[Path, dict[str, Any] | audio.AudioError]]:
    """Describe files in their order, on all cores (decoding releases the interpreter's lock)."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield from tqdm(zip(files, pool.map(describe, files)), "check", len(files), unit="clip")


def check_usable(clips: list[dict[str, Any]], unusable: list[str], max_rejected: float) -> None:
    """Stop where too many files were rejected, or where nothing is left to tell apart.

    Raises:
        StageError: more than max_rejected (a fraction) of the audio files are unusable, or fewer than two labels.
    """
    total = len(clips) + len(unusable)
    if len(unusable) > max_rejected * total:
        raise StageError(
            f"{len(unusable)} of {total} audio files rejected (first: {unusable[0]}), more than "
            f"download.dataset.max_rejected: {max_rejected}; mend or remove them, or raise it"
        )
    labels = sorted({clip["label"] for clip in clips})
    if taken := {"clip", "label", "prediction"} & set(labels):
        raise StageError(f"label {taken.pop()} is the name of a column of metrics/predictions.csv; rename its folder")
    if len(labels) < 2:
        raise StageError(f"a classifier needs at least two labels, found {labels}; add a folder per label")


def compare(files: list[Path], table: Path) -> dict[str, Any]:
    """Count the files that are, by MD5, the originals that a table lists (columns clip and md5).

    Raises:
        StageError: the table is missing, or has other columns.
    """
    try:
        with table.open(newline="") as content:
            known = {row["clip"]: row["md5"] for row in csv.DictReader(content)}
    except (FileNotFoundError, KeyError):
        raise StageError(f"params.yaml: download.dataset.originals: {table} needs the columns clip and md5") from None
    differ = [file.name for file in files if file.stem in known and md5(file) != known[file.stem]]
    found = {file.stem for file in files} & known.keys()
    return {"table": table.name, "known": len(known), "original": len(found) - len(differ), "differ": differ}


def md5(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def find_repetitions(raw: Path, clips: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of repetitions.csv: the clips that share their recording with another, and its number."""
    numbers = fingerprints.number_recordings([raw / clip["path"] for clip in clips], [clip["sha256"] for clip in clips])
    print(f"{len(numbers)} clips repeat another ({len(set(numbers.values()))} recordings)")
    labels: dict[int, str] = {}
    for i, number in sorted(numbers.items()):
        if labels.setdefault(number, clips[i]["label"]) != clips[i]["label"]:
            print(f"{clips[i]['clip']} is of label {clips[i]['label']}, the same recording is of {labels[number]} too")
    return [{"clip": clips[i]["clip"], "recording": number} for i, number in sorted(numbers.items())]


def tell(rejected: list[tuple[str, str]]) -> None:
    """Print the rejected files: all reasons, and of each no more files than a person reads."""
    by_reason: dict[str, list[str]] = {}
    for name, reason in rejected:
        by_reason.setdefault(reason.split(":")[0], []).append(f"{name}: {reason}")
    for reason, lines in by_reason.items():
        if reason == HIDDEN:
            # macOS puts one beside each clip of an archive: they are no rejected clips.
            print(f"hidden files ignored: {len(lines)} (first: {lines[0].removesuffix(f': {HIDDEN}')})")
        else:
            print_some([f"rejected {line}" for line in lines], "rejected.csv")


def print_some(lines: list[str], table: str) -> None:
    """Print the first MOST_TOLD lines, and how many more a file of data/raw lists."""
    for line in lines[:MOST_TOLD]:
        print(line)
    if len(lines) > MOST_TOLD:
        print(f"{len(lines) - MOST_TOLD} more like that; {RAW / table} lists them all")


def write_csv(path: Path, fields: list[str], rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fields, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def download_dataset() -> None:
    params = load_params("download.dataset", DatasetParams)
    with whole(RAW) as folder:
        fetched = params.fetch(folder / "audio")
        if params.originals:
            fetched.origin["originals"] = found = compare(list(fetched.files), Path(params.originals))
            print(f"{found['original']} of the {found['known']} files of {found['table']} are here, byte for byte")
            print_some([f"not the original: {name}" for name in found["differ"]], "source.json")
        clips, rejected = [], fetched.rejected + fetched.unreadable
        unusable = [f"{name}: {reason}" for name, reason in fetched.unreadable]
        for file, row in describe_all(list(fetched.files)):
            if isinstance(row, audio.AudioError):
                name = fetched.files[file]
                unusable.append(f"{name}: {row}")
                rejected.append((name, str(row)))
                file.unlink()
            else:
                clips.append(row)
        tell(rejected)
        check_usable(clips, unusable, params.max_rejected)
        write_csv(folder / "clips.csv", list(clips[0]), clips)
        repetitions = find_repetitions(folder, clips)
        write_csv(folder / "repetitions.csv", ["clip", "recording"], repetitions)
        write_csv(folder / "rejected.csv", ["file", "reason"], [{"file": f, "reason": r} for f, r in rejected])
        (folder / "source.json").write_text(json.dumps(fetched.origin, indent=2) + "\n")
    labels = len({clip["label"] for clip in clips})
    hidden = sum(reason == HIDDEN for _, reason in rejected)
    ignored = f", hidden files ignored: {hidden}" if hidden else ""
    print(f"{RAW}: {len(clips)} clips of {labels} labels, {len(rejected) - hidden} files rejected{ignored}")


def download_model() -> None:
    params = load_params("download.model", ModelParams)
    with whole(BASE) as folder:
        folder.mkdir()
        origin = params.fetch(folder)
        summary = base_models.check(folder)
        (folder / "source.json").write_text(json.dumps(origin, indent=2) + "\n")
    print(f"{BASE}: {summary}")


def main(target: str) -> None:
    {"dataset": download_dataset, "model": download_model}[target]()


if __name__ == "__main__":
    run(main, {"download.dataset": DatasetParams, "download.model": ModelParams}, targets=["dataset", "model"])
