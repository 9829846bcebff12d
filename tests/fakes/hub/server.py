"""A Hugging Face Hub on a loopback port, for tests of the real clients without the internet.

It speaks the part of the Hub's HTTP protocol that ``huggingface_hub``, ``datasets`` and ``transformers`` use:
repositories, commits, git-LFS uploads, tags, listings and downloads, with the Hub's errors. As on the Hub, LFS files
go to and come from a second origin, by signed links without the token; or, with ``xet=True``, a Xet store.
"""

from __future__ import annotations

import os
import re
import secrets
import threading
from collections import deque
from collections.abc import Mapping
from http.server import ThreadingHTTPServer
from pathlib import Path
from types import TracebackType

from fakes.hub.api import HubConnection
from fakes.hub.http import Fault, Request
from fakes.hub.storage import Blob, BlobStore, Repository, read_chunks
from fakes.hub.xet import XetStore

__all__ = ["Fault", "LocalHub", "Request"]

_CLIENT_SETTINGS = re.compile(r"(HF|HUGGING_?FACE|TRANSFORMERS|DATASETS)_.*|.*_proxy", re.IGNORECASE)


class LocalHub:
    """The server and its users; a context manager that serves from entry to exit.

    ``tokens`` gives the user of each token. A user may write only under the user's name, and not at all with one of
    the ``read_only_tokens``. ``private`` and ``gated`` hold repository ids, ``granted`` the pairs of (user,
    repository id) that may read those besides their owner. Listings come in pages of ``page_size`` entries.
    """

    def __init__(self, root: Path, xet: bool = False) -> None:
        self.tokens: dict[str, str] = {}
        self.read_only_tokens: set[str] = set()
        self.private: set[str] = set()
        self.gated: set[str] = set()
        self.granted: set[tuple[str, str]] = set()
        self.requests: list[Request] = []
        self.page_size = 1000
        self.url = self.storage_url = ""
        self.signature = secrets.token_hex(8)
        self.blobs = BlobStore(Path(root) / "blobs")
        self.xet = XetStore(Path(root) / "xet") if xet else None
        self._root = Path(root) / "repositories"
        self._repositories: dict[tuple[str, str], Repository] = {}
        self._faults: list[tuple[re.Pattern[str], deque[Fault | None]]] = []
        self._lock = threading.Lock()
        self._servers: list[ThreadingHTTPServer] = []

    def __enter__(self) -> LocalHub:
        handler = type("Handler", (HubConnection,), {"hub": self})
        for _ in range(2):
            server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
            self._servers.append(server)
        self.url, self.storage_url = (f"http://127.0.0.1:{server.server_port}" for server in self._servers)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop serving: from now on connections are refused."""
        while self._servers:
            server = self._servers.pop()
            server.shutdown()
            server.server_close()

    def repository(self, kind: str, name: str) -> Repository:
        """Return the repository of this kind (``model``, ``dataset`` or ``space``) and id, whether or not it exists."""
        with self._lock:
            made = Repository(self._root / f"{kind}s" / name, self.blobs, kind, name)
            return self._repositories.setdefault((kind, name), made)

    def commit(
        self,
        kind: str,
        name: str,
        files: Mapping[str, bytes | Path | None],
        *,
        message: str = "Update",
        branch: str = "main",
    ) -> str:
        """Commit files (``None`` deletes one), making repository and branch at need; return the commit id."""
        repo, owner = self.repository(kind, name), name.split("/")[0]
        if not repo.exists:
            repo.create(owner)
        if branch not in repo.refs["heads"]:
            repo.set_ref("heads", branch, repo.resolve("main").sha)
        tree = repo.resolve(branch).tree
        changes: dict[str, Blob | None] = dict.fromkeys(files)
        for path, content in files.items():
            if content is not None:
                sha256 = self.blobs.write([content] if isinstance(content, bytes) else read_chunks(content))
                stored = self.blobs.path(sha256)
                sample = next(read_chunks(stored, 0, 512), b"")
                lfs = repo.uses_lfs(tree, path, stored.stat().st_size, sample)
                changes[path] = self.blobs.blob(sha256, lfs)
                if lfs and self.xet:
                    self.xet.upload(sha256, stored)
        return repo.commit(changes, message, branch=branch, author=owner).sha

    def fail(self, pattern: str, *outcomes: Fault | None) -> None:
        """Order these outcomes, in turn, for the next requests whose ``METHOD path`` the pattern finds.

        ``None`` is normal service of one request; after the last outcome all service is normal again.
        """
        with self._lock:
            self._faults.append((re.compile(pattern), deque(outcomes)))

    def repair(self) -> None:
        """Cancel all outcomes that were ordered."""
        with self._lock:
            self._faults.clear()

    def seen(self, pattern: str) -> list[Request]:
        """Return the requests so far whose ``METHOD path`` the pattern finds."""
        with self._lock:
            return [asked for asked in self.requests if re.search(pattern, f"{asked.method} {asked.path}")]

    def env(self, home: Path, token: str | None = None) -> dict[str, str]:
        """Return the environment of a client that knows only this Hub and keeps its caches in ``home``."""
        env = {name: value for name, value in os.environ.items() if not _CLIENT_SETTINGS.fullmatch(name)}
        env |= {"HF_ENDPOINT": self.url, "HF_HOME": str(home)}
        if not self.xet:
            env["HF_HUB_DISABLE_XET"] = "1"
        return env if token is None else env | {"HF_TOKEN": token}

    def receive(self, request: Request) -> Fault:
        """Log a request and return the fault ordered for it."""
        with self._lock:
            self.requests.append(request)
            for pattern, outcomes in self._faults:
                if outcomes and pattern.search(f"{request.method} {request.path}"):
                    return outcomes.popleft() or Fault()
        return Fault()
