"""The local Hub's Xet storage: the store on disk that hf_xet itself can keep, without a server.

Only one process at a time can open such a store, so the Hub never opens it itself: uploads run in a process that
ends, and what a client uploaded is read from a copy.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

UPLOAD = """
import sys, hf_xet
with hf_xet.XetSession().new_upload_commit(endpoint=sys.argv[1]) as commit:
    handle = commit.start_upload_file(sys.argv[2], sha256=hf_xet.COMPUTE_SHA256)
print(handle.result().xet_info.hash)
"""
DOWNLOAD = """
import sys, hf_xet
with hf_xet.XetSession().new_file_download_group(endpoint=sys.argv[1]) as group:
    group.start_download_file(hf_xet.XetFileInfo(sys.argv[2], int(sys.argv[3])), sys.argv[4])
"""
RECORD = 48  # bytes of each header and entry in a shard
VERIFIED, HAS_SHA256 = 1 << 31, 1 << 30  # flags of a file in a shard


class XetStore:
    """Files by their Xet hash. ``url`` is the address that clients get; a test may set another."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.url = f"local://{root}"
        self.hashes: dict[str, str] = {}

    def upload(self, sha256: str, file: Path) -> None:
        """Store a file, as its uploader would have."""
        if sha256 not in self.hashes:
            self.hashes[sha256] = _run(UPLOAD, f"local://{self.root}", file).strip()

    def download(self, sha256: str, target: Path) -> bool:
        """Write the file that a client uploaded, and return whether there is one."""
        for uploaded, (xet_hash, size) in self._uploads():
            if uploaded == sha256:
                with tempfile.TemporaryDirectory() as folder:
                    shutil.copytree(self.root, Path(folder, "copy"))
                    _run(DOWNLOAD, f"local://{folder}/copy", xet_hash, size, target)
                self.hashes[sha256] = xet_hash
                return True
        return False

    def _uploads(self) -> Iterator[tuple[str, tuple[str, int]]]:
        """SHA-256 -> Xet hash and size of each file that a shard lists."""
        for path in self.root.rglob("shards/*.mdb"):
            shard, at = path.read_bytes(), RECORD
            while (file_hash := shard[at : at + 32]) != b"\xff" * 32:
                flags = int.from_bytes(shard[at + 32 : at + 36], "little")
                number = int.from_bytes(shard[at + 36 : at + 40], "little")
                first = at + RECORD
                # An entry: the hash of its chunks' container, flags, bytes unpacked, first and last chunk.
                entries = range(first, first + number * RECORD, RECORD)
                size = sum(int.from_bytes(shard[entry + 36 : entry + 40], "little") for entry in entries)
                at = first + number * RECORD * (2 if flags & VERIFIED else 1)
                if flags & HAS_SHA256:
                    yield _hex(shard[at : at + 32]), (_hex(file_hash), size)
                    at += RECORD


def _hex(digest: bytes) -> str:
    """A hash as Xet writes it: four little-endian numbers."""
    return "".join(digest[i : i + 8][::-1].hex() for i in range(0, 32, 8))


def _run(code: str, *arguments: object) -> str:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
