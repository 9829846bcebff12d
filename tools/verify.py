"""Find damaged files: hash DVC's cache, the outputs in the workspace and, if asked, a remote.

DVC trusts the files in its cache, so it hands on a file that the disk damaged. This tool prints each file whose content
is not what dvc.lock or the file's name in the cache promises, and how to repair it.

Run     python -m tools.verify; python -m tools.verify --repair; python -m tools.verify --remote storage
"""

import hashlib
import json
import shutil
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml
from dvc.exceptions import DvcException
from dvc.repo import Repo
from tqdm import tqdm

from stages.common.errors import UserError
from stages.common.stage import command_parser, run_command
from stages.common.threads import map_in_threads


def md5_of(odb: Any, path: str) -> str | None:
    """Compute the MD5 of a file of the cache or of a remote; None if it is missing."""
    try:
        with odb.fs.open(path, "rb") as content:
            return hashlib.file_digest(content, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    except FileNotFoundError:
        return None


def find_damaged(odb: Any, title: str) -> list[str]:
    """Return the ids of objects of the cache or of a remote that do not have the MD5 that is their name."""
    oids = sorted(odb.all())
    sums = map_in_threads(lambda oid: md5_of(odb, odb.oid_to_path(oid)), oids)
    return [oid for oid, found in zip(oids, tqdm(sums, title, len(oids))) if found != oid.removesuffix(".dir")]


def read_outputs(records: Iterable[Path]) -> Iterator[dict[str, Any]]:
    """Yield the outputs that dvc.lock or a record of the run cache lists."""
    for record in records:
        content = yaml.safe_load(record.read_text(encoding="utf-8"))
        for stage in content.get("stages", {"": content}).values():
            yield from stage.get("outs", [])


def list_files(cache: Any, outs: Iterable[dict[str, Any]], damaged: list[str]) -> Iterator[tuple[str, Path]]:
    """Yield the id and the path of each output, and of each file in the folders of which the cache has the list."""
    for out in outs:
        oid, path = out["md5"], Path(out["path"])
        yield oid, path
        if oid.endswith(".dir") and oid not in damaged and cache.exists(oid):
            for file in json.loads(Path(cache.oid_to_path(oid)).read_text(encoding="utf-8")):
                yield file["md5"], path / file["relpath"]


def split_intact(cache: Any, files: list[tuple[str, Path]]) -> tuple[dict[str, Path], dict[Path, str]]:
    """Return the files of the workspace that have their MD5, by it, and the id of each other or missing file."""
    sums = map_in_threads(lambda file: md5_of(cache, str(file[1])), files)
    intact, different = {}, {}
    for (oid, path), found in zip(files, tqdm(sums, "workspace", len(files))):
        if found == oid:
            intact[oid] = path
        else:
            different[path] = oid
    return intact, different


def repair(cache: Any, damaged: list[str], intact: dict[str, Path], different: dict[Path, str]) -> None:
    """Replace damaged objects of the cache by intact copies from the workspace, or remove them from both."""
    for oid in damaged:
        file = Path(cache.oid_to_path(oid))
        file.unlink()
        if oid in intact:
            shutil.copyfile(intact[oid], file)
            file.chmod(0o444)  # as DVC protects it
            print(f"{file}: repaired from {intact[oid]}")
            continue
        copies = [path for path, expected in different.items() if expected == oid]
        for path in copies:
            path.unlink(missing_ok=True)
        print(", ".join(map(str, [file, *copies])) + ": removed; dvc pull fetches it, dvc repro makes it again")


def verify(remote: str | None, repairs: bool) -> list[str]:
    """Return a line for each damaged, different or missing file, and one for how to repair them.

    Raises:
        UserError: no dvc.lock, or no such remote.
    """
    lock = Path("dvc.lock")
    if not lock.is_file():
        raise UserError("not found; run dvc repro first, from the project's top folder", file=lock)
    try:
        with Repo() as repo:
            cache = repo.cache.local
            other = repo.cloud.get_remote_odb(remote) if remote else None
            damaged = find_damaged(cache, "cache")
            records = Path(repo.stage_cache.cache_dir).glob("*/*/*")
            files = list(list_files(cache, read_outputs([lock]), damaged))
            # Of files with the same content, the first counts: publish copies what other stages wrote.
            names = dict([*list_files(cache, read_outputs(records), damaged), *reversed(files)])
            intact, different = split_intact(cache, [file for file in files if not file[0].endswith(".dir")])
            far = find_damaged(other, remote or "") if other else []
    except DvcException as error:
        raise UserError(" ".join(str(error.__cause__ or error).split())) from None
    lines = [_describe(cache, oid, names) for oid in damaged]
    if damaged and repairs:
        repair(cache, damaged, intact, different)
    elif damaged:
        lines.append("to repair the cache: python -m tools.verify --repair")
    lines += [f"{path}: {'differs from dvc.lock' if path.exists() else 'missing'}" for path in different]
    if different:
        lines.append("to restore these files: delete those that differ, then dvc checkout")
    lines += [_describe(other, oid, names) for oid in far]
    if far:
        lines.append("to repair the remote: delete these files there, then dvc push")
    return lines


def _describe(odb: Any, oid: str, names: dict[str, Path]) -> str:
    path = names.get(oid)
    return f"{odb.oid_to_path(oid)}: damaged" + (f", it is {path}" if path else "")


def main() -> None:
    """Print what is damaged; exit status 1 if anything is."""
    parser = command_parser("tools.verify", __doc__)
    parser.add_argument("--remote", help="name of a DVC remote whose objects to hash, too; this reads all of them")
    parser.add_argument("--repair", action="store_true", help="replace or remove what is damaged in the cache")
    arguments = parser.parse_args()
    lines = verify(arguments.remote, arguments.repair)
    print("\n".join(lines) or "no damage was found")
    sys.exit(bool(lines))


if __name__ == "__main__":
    run_command(main)
