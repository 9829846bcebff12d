"""Repositories of the local Hub on disk: content-addressed blobs, commits, branches and tags."""

from __future__ import annotations

import hashlib
import json
import re
import threading
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from itertools import pairwise
from pathlib import Path, PurePosixPath

CHUNK = 1 << 20  # bytes
LFS_SIZE = 10 * CHUNK
LFS_SUFFIXES = "arrow bin ckpt flac gz h5 mp3 npy npz ogg onnx parquet pkl pt pth safetensors tar wav zip"
GITATTRIBUTES = "".join(f"*.{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in LFS_SUFFIXES.split())


class HubError(Exception):
    """An error response of the Hub: status, message and the Hub's error code."""

    def __init__(
        self,
        status: int,
        message: str,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
        details: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.details = dict(details or {})
        text = " ".join(message.encode("ascii", "backslashreplace").decode().split())
        self.headers = {"X-Error-Message": text, **(headers or {})}
        if code is not None:
            self.headers["X-Error-Code"] = code


def read_chunks(path: Path, start: int = 0, end: int | None = None) -> Iterator[bytes]:
    """Yield a file, or bytes ``start`` to ``end`` of it, in chunks that fit in memory."""
    left = (path.stat().st_size if end is None else end) - start
    with path.open("rb") as file:
        file.seek(start)
        while left > 0 and (chunk := file.read(min(CHUNK, left))):
            left -= len(chunk)
            yield chunk


@dataclass(frozen=True)
class Blob:
    """One version of a file: its content address and size, its git object id, and whether LFS keeps it."""

    sha256: str
    size: int
    oid: str
    lfs: bool

    @property
    def etag(self) -> str:
        """The identity a client compares: the sha256 of an LFS file, the git sha1 of any other."""
        return self.sha256 if self.lfs else self.oid

    @property
    def lfs_sizes(self) -> dict[str, int]:
        """The sizes of the content and of the pointer that git keeps for it."""
        return {"size": self.size, "pointerSize": len(_pointer(self.sha256, self.size))}

    def entry(self, path: str) -> dict[str, object]:
        """Return the entry of this file in a tree listing."""
        lfs = {"lfs": {"oid": self.sha256, **self.lfs_sizes}} if self.lfs else {}
        return {"type": "file", "oid": self.oid, "size": self.size, "path": path, **lfs}


class BlobStore:
    """Contents of files, each stored once under its sha256."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)

    def path(self, sha256: str) -> Path:
        """Return where the content of this sha256 lies, whether or not it is there."""
        return self.root / sha256

    def write(self, chunks: Iterable[bytes], expected: str | None = None) -> str:
        """Store a content and return its sha256; with ``expected``, refuse any other content."""
        digest, temporary = hashlib.sha256(), self.root / f"{uuid.uuid4().hex}.part"
        with temporary.open("wb") as file:
            for chunk in chunks:
                digest.update(chunk)
                file.write(chunk)
        sha256 = digest.hexdigest()
        if expected is not None and sha256 != expected:
            temporary.unlink()
            raise HubError(400, f"The content has sha256 {sha256}, not {expected}")
        temporary.replace(self.path(sha256))
        return sha256

    def blob(self, sha256: str, lfs: bool) -> Blob:
        """Describe a stored content as a file of a commit."""
        size = self.path(sha256).stat().st_size
        if lfs:
            pointer = _pointer(sha256, size)
            return Blob(sha256, size, _git_oid([pointer], len(pointer)), lfs=True)
        return Blob(sha256, size, _git_oid(read_chunks(self.path(sha256)), size), lfs=False)


@dataclass(frozen=True)
class Commit:
    """One commit: its complete tree, by path, and the commit before it."""

    sha: str
    parent: str | None
    message: str
    author: str
    date: str
    tree: dict[str, Blob] = field(repr=False)

    def entries(self) -> dict[str, dict[str, object]]:
        """Return files and folders by path, as a recursive tree listing shows them."""
        found: dict[str, dict[str, object]] = {}
        for path in sorted(self.tree):
            for folder in [str(parent) for parent in PurePosixPath(path).parents][-2::-1]:
                if folder not in found:
                    oid = _sha1(self.below(folder))
                    found[folder] = {"type": "directory", "oid": oid, "size": 0, "path": folder}
            found[path] = self.tree[path].entry(path)
        return found

    def below(self, path: str) -> dict[str, str]:
        """Return what lies at this path, one file or all the files of a folder: content by path."""
        inside = f"{path}/"
        return {name: blob.sha256 for name, blob in self.tree.items() if name == path or name.startswith(inside)}


class Repository:
    """One model or data set: its commits as JSON files, its branches and tags in ``refs.json``."""

    def __init__(self, folder: Path, blobs: BlobStore, kind: str, name: str) -> None:
        self.folder, self.blobs, self.kind, self.name = folder, blobs, kind, name
        self.owner = name.split("/")[0]
        self._lock = threading.RLock()

    @property
    def exists(self) -> bool:
        """Whether the repository was created."""
        return (self.folder / "refs.json").is_file()

    @property
    def refs(self) -> dict[str, dict[str, str]]:
        """Commit by name, of the branches (``heads``) and of the ``tags``."""
        refs: dict[str, dict[str, str]] = json.loads((self.folder / "refs.json").read_text())
        return refs

    def create(self, author: str) -> None:
        """Create the repository with the first commit the Hub makes: the patterns of LFS files."""
        with self._lock:
            (self.folder / "commits").mkdir(parents=True, exist_ok=True)
            self._write("refs.json", {"heads": {}, "tags": {}})
            blob = self.blobs.blob(self.blobs.write([GITATTRIBUTES.encode()]), lfs=False)
            self.commit({".gitattributes": blob}, "initial commit", author=author)

    def set_ref(self, group: str, name: str, sha: str | None) -> None:
        """Point a branch (``heads``) or a tag (``tags``) at a commit, or remove it."""
        with self._lock:
            refs = self.refs
            refs[group].pop(name, None)
            if sha is not None:
                refs[group][name] = sha
            self._write("refs.json", refs)

    def resolve(self, revision: str) -> Commit:
        """Return the commit that a branch, a tag or a full commit id names."""
        refs = self.refs
        sha = refs["heads"].get(revision) or refs["tags"].get(revision) or revision
        path = self.folder / "commits" / f"{sha}.json"
        if "/" in sha or not path.is_file():
            raise HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        data = json.loads(path.read_text())
        return Commit(**{**data, "tree": {name: Blob(**blob) for name, blob in data["tree"].items()}})

    def history(self, revision: str) -> Iterator[Commit]:
        """Yield the commits up to a revision, latest first."""
        sha: str | None = revision
        while sha is not None:
            commit = self.resolve(sha)
            yield commit
            sha = commit.parent

    def last_change(self, commit: Commit, path: str) -> Commit:
        """Return the commit that last changed a file or folder, seen from ``commit``."""
        for earlier in self.history(commit.sha):
            if earlier.below(path) != commit.below(path):
                break
            commit = earlier
        return commit

    def commit(
        self,
        changes: Mapping[str, Blob | None],
        message: str,
        *,
        branch: str = "main",
        author: str,
        parent: str | None = None,
    ) -> Commit:
        """Add, replace or (``None``) delete files on a branch; a ``parent`` must be its latest commit."""
        with self._lock:
            refs = self.refs
            head = self.resolve(refs["heads"][branch]) if refs["heads"] else None
            if head is not None and parent is not None and not head.sha.startswith(parent):
                raise HubError(412, "A commit has happened since. Please refresh and try again.")
            tree = {path: blob for path, blob in {**(head.tree if head else {}), **changes}.items() if blob}
            before = head.sha if head else None
            sha = _sha1([before, {path: blob.oid for path, blob in tree.items()}, message])
            made = Commit(sha, before, message, author, f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}", tree)
            self._write(f"commits/{sha}.json", asdict(made))
            self.set_ref("heads", branch, sha)
            return made

    def uses_lfs(self, tree: Mapping[str, Blob], path: str, size: int, sample: bytes) -> bool:
        """Whether the Hub keeps a file in LFS: matched by ``.gitattributes``, over 10 MiB, or binary."""
        attributes = tree.get(".gitattributes")
        text = self.blobs.path(attributes.sha256).read_text() if attributes else ""
        patterns = [line.split()[0] for line in text.splitlines() if "filter=lfs" in line]
        return size > 0 and (size > LFS_SIZE or b"\0" in sample or matches(path, patterns))

    def _write(self, name: str, value: object) -> None:
        temporary = self.folder / f"{uuid.uuid4().hex}.part"
        temporary.write_text(json.dumps(value))
        temporary.replace(self.folder / name)


def matches(path: str, patterns: Iterable[str]) -> bool:
    """Whether a path, its name or one of its folders is matched by git-like patterns."""
    parts = PurePosixPath(path).parts
    names = {"/".join(parts[: n + 1]) for n in range(len(parts))} | set(parts)
    return any(fnmatchcase(name, pattern.strip("/")) for pattern in patterns for name in names)


def front_matter(text: str) -> dict[str, str | list[str]]:
    """Read the plain values and lists at the top level of a README's YAML block, without the deeper ones."""
    found: dict[str, str | list[str]] = {}
    key = ""
    lines = text.split("\n---")[0].splitlines()[1:] if text.startswith("---\n") else []
    for line, after in pairwise([*lines, ""]):
        if matched := re.fullmatch(r"(\w+): *(.*)", line):
            key, value = matched.groups()
            if value:
                found[key] = value.strip("'\"")
            elif re.fullmatch(r"\s*- [^:]+", after):
                found[key] = []
        elif re.fullmatch(r"\s*- [^:]+", line) and isinstance(items := found.get(key), list):
            items.append(line.strip(" -").strip("'\""))
    return found


def _pointer(sha256: str, size: int) -> bytes:
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()


def _git_oid(chunks: Iterable[bytes], size: int) -> str:
    digest = hashlib.sha1(f"blob {size}\0".encode())
    for chunk in chunks:
        digest.update(chunk)
    return digest.hexdigest()


def _sha1(value: object) -> str:
    return hashlib.sha1(json.dumps(value, sort_keys=True).encode()).hexdigest()
