"""Find damaged files: hash DVC's cache, the outputs in the workspace and, if asked, a remote.

DVC trusts the files in its cache, so it hands on a file that the disk damaged. This tool prints each file whose content
is not what dvc.lock or the file's name in the cache promises, and how to repair it.

Run     python -m tools.verify; python -m tools.verify --repair; python -m tools.verify --remote storage
"""

import hashlib
import json
import shutil
import sys
from collections.abc import Container, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from dvc.exceptions import DvcException
from dvc.repo import Repo
from tqdm import tqdm

from stages.common.errors import UserError
from stages.common.stage import command_parser, run_command
from stages.common.threads import map_in_threads


class File(NamedTuple):
    """A file of an output. oid: the MD5 that it should have; in_git: its content is in git, and not pushed by DVC."""

    oid: str
    path: Path
    in_git: bool


def md5_of(odb: Any, path: str) -> str | None:
    """Compute the MD5 of a file of the cache or of a remote; None if it is missing or cannot be read."""
    try:
        with odb.fs.open(path, "rb") as content:
            return hashlib.file_digest(content, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    except OSError:
        return None


def find_damaged(odb: Any, oids: list[str], title: str) -> dict[str, str | None]:
    """Return the objects that do not have the MD5 that is their name: by it, the one that they have."""
    sums = map_in_threads(lambda oid: md5_of(odb, odb.oid_to_path(oid)), oids)
    found = zip(oids, tqdm(sums, title, len(oids)))
    return {oid: md5 for oid, md5 in found if md5 != oid.removesuffix(".dir")}


def list_files(cache: Any, oid: str, path: Path, in_git: bool, damaged: Container[str]) -> Iterator[File]:
    """Yield the file of an output, or the list of its files and, if the list is intact, the files."""
    yield File(oid, path, in_git)
    if oid.endswith(".dir") and oid not in damaged:
        try:
            listed = json.loads(Path(cache.oid_to_path(oid)).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return
        yield from (File(file["md5"], path / file["relpath"], in_git) for file in listed)


def list_old_files(cache: Any, records: Iterable[Path], damaged: Container[str]) -> Iterator[File]:
    """Yield the files of the runs in the run cache."""
    for record in records:
        try:
            outs = [
                (out["md5"], Path(out["path"])) for out in yaml.safe_load(record.read_text(encoding="utf-8"))["outs"]
            ]
        except (OSError, LookupError, TypeError, ValueError, yaml.YAMLError):
            continue  # DVC ignores damaged records, too
        for oid, path in outs:
            yield from list_files(cache, oid, path, False, damaged)


def repair(cache: Any, damaged: dict[str, str | None], sums: dict[File, str | None]) -> bool:
    """Replace damaged objects of the cache by intact copies from the workspace, or remove both; whether any is gone."""
    gone = False
    for oid, md5 in damaged.items():
        object_file = Path(cache.oid_to_path(oid))
        files = [file for file in sums if file.oid == oid]
        intact = next((file.path for file in files if sums[file] == oid), None)
        object_file.unlink(missing_ok=True)
        if intact:
            shutil.copyfile(intact, object_file)
            object_file.chmod(0o444)  # as DVC protects it
            print(f"{object_file}: repaired from {intact}")
            continue
        gone = True
        # Of the workspace, only what has the same damage: another difference may be an edit of the user.
        copies = [file.path for file in files if md5 is not None and sums[file] == md5]
        for path in copies:
            path.unlink()
        print(", ".join(map(str, [object_file, *copies])) + ": removed")
    return gone


def verify(remote: str | None, repairs: bool) -> list[str]:
    """Return a line for each file that is damaged, missing or different, and one for how to repair each kind.

    Raises:
        UserError: no dvc.lock, no such remote, or a remote that cannot list its files.
    """
    lock = Path("dvc.lock")
    if not lock.is_file():
        raise UserError("not found; run dvc repro first, from the project's top folder", file=lock)
    try:
        with Repo() as repo, repo.lock:
            cache = repo.cache.local
            other = _open_remote(repo, remote) if remote else None
            oids = sorted(cache.all())
            damaged = find_damaged(cache, oids, "cache")
            outs = [
                (out.hash_info.value, Path(out.def_path), not out.use_cache) for out in repo.index.outs if out.hash_info
            ]
            files = [file for out in outs for file in list_files(cache, *out, damaged)]
            old = list_old_files(cache, Path(repo.stage_cache.cache_dir).glob("*/*/*"), damaged)
            # Of files with the same content, the first counts: publish copies what other stages wrote.
            names = {file.oid: file.path for file in [*old, *reversed(files)]}
            plain = [file for file in files if not file.oid.endswith(".dir")]
            found = map_in_threads(lambda file: md5_of(cache, str(file.path)), plain)
            sums = dict(zip(plain, tqdm(found, "workspace", len(plain))))
            lines = _describe_cache(cache, set(oids), {} if repairs else damaged, files, names)
            if damaged and repairs:
                if repair(cache, damaged, sums):
                    lines.append("what was removed: dvc pull fetches it, dvc repro makes it again")
                sums = {file: md5 for file, md5 in sums.items() if file.oid not in damaged}
            lines += _describe_workspace(sums)
            if other is not None:
                lines += _describe_remote(other, remote or "", files, names)
    except ImportError as error:  # the package for this kind of remote is missing
        raise UserError(" ".join(str(error).split())) from None
    except DvcException as error:
        raise explain(error) from None
    return lines


def explain(error: DvcException) -> UserError:
    """Return DVC's error as one line: with the file, which DVC names, and the reason, which only its cause names."""
    texts = [" ".join(str(part).split()) for part in (error, error.__cause__) if part]
    return UserError(": ".join(dict.fromkeys(texts)))


def _open_remote(repo: Repo, name: str) -> Any:
    """Return the objects of a remote.

    Raises:
        UserError: its folder does not exist.
    """
    remote = repo.cloud.get_remote(name)
    if remote.fs.protocol == "local" and not Path(remote.path).is_dir():
        message = (
            f"the folder {remote.path} does not exist; mount or make it, or change it: dvc remote modify {name} url"
        )
        raise UserError(message, file=f"remote {name}")
    return repo.cloud.get_remote_odb(name)


def _describe_cache(
    cache: Any, oids: set[str], damaged: dict[str, str | None], files: list[File], names: dict[str, Path]
) -> list[str]:
    lines = [_describe(cache, oid, names) for oid in damaged]
    if damaged:
        lines.append("to repair the cache: python -m tools.verify --repair")
    missing = [file for file in files if not file.in_git and file.oid not in oids]
    lines += [f"{file.path}: missing in the cache" for file in missing]
    if missing:
        lines.append(
            "what the cache lacks: dvc fetch fetches it, dvc repro makes it again, or stores it if it is intact"
        )
    return lines


def _describe_workspace(sums: dict[File, str | None]) -> list[str]:
    different = [file for file, md5 in sums.items() if md5 != file.oid]
    lines = [f"{file.path}: {'differs from dvc.lock' if file.path.exists() else 'missing'}" for file in different]
    if any(not file.in_git for file in different):
        lines.append("to restore files that are not in git: delete those that differ, then dvc checkout")
    if any(file.in_git for file in different):
        lines.append("to restore files that are in git: git checkout metrics")
    return lines


def _describe_remote(odb: Any, remote: str, files: list[File], names: dict[str, Path]) -> list[str]:
    try:
        oids = sorted(odb.all())
    except Exception as error:  # each kind of storage has its own; HTTP cannot list files at all
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"its files cannot be listed ({reason}), so they were not checked", file=f"remote {remote}"
        ) from None
    damaged = find_damaged(odb, oids, remote)
    lines = [_describe(odb, oid, names) for oid in damaged]
    if damaged:
        lines.append("to repair the remote: delete these files there, then dvc push")
    missing = {file.oid: file.path for file in files if not file.in_git and file.oid not in set(oids)}
    if missing:
        first = next(iter(missing.values()))
        lines.append(f"remote {remote}: {len(missing)} files of dvc.lock are missing (first: {first}); dvc push")
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
    print("\n".join(lines) or ("nothing is left to repair" if arguments.repair else "no damage was found"))
    sys.exit(bool(lines))


if __name__ == "__main__":
    run_command(main)
