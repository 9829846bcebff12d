"""The HTTP side of the local Hub: requests, responses from disk in chunks, and the faults that a test orders."""

from __future__ import annotations

import json
import re
import socket
import struct
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qsl, urlsplit

from fakes.hub.storage import CHUNK, HubError, read_chunks

_FLIPPED = bytes(255 - value for value in range(256))
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


@dataclass(frozen=True)
class Fault:
    """What happens to one request instead of, or during, its normal service.

    With ``status`` the request has no effect, and the response has this status, ``headers`` and ``body``. The
    other faults let the request take effect. ``cut_after`` closes the connection after so many bytes of the
    response's body (a response without a body is not sent at all), cleanly or, with ``reset``, by a TCP reset.
    ``corrupt`` flips every bit of the body, or announces a wrong checksum in the response to a ``HEAD``.
    """

    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b'{"error": "A fault ordered by the test"}'
    cut_after: int | None = None
    reset: bool = False
    corrupt: bool = False


class Request(NamedTuple):
    """One request as it came in: ``path`` with its query, ``headers`` by lower-case name."""

    method: str
    path: str
    headers: dict[str, str]


class Connection(BaseHTTPRequestHandler, ABC):
    """One connection of a client: reads each request and sends the response."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    fault: Fault
    path_only: str
    query: dict[str, str]
    unread: int

    @abstractmethod
    def receive(self, request: Request) -> Fault:
        """Log a request and return its fault."""

    @abstractmethod
    def respond(self) -> None:
        """Respond to the current request, or raise a ``HubError``."""

    def handle(self) -> None:
        """Serve the requests of this connection until either side ends it."""
        try:
            super().handle()
        except ConnectionError:
            self.close_connection = True

    def serve(self) -> None:
        """Serve one request of any method."""
        headers = {name.lower(): value for name, value in self.headers.items()}
        url = urlsplit(self.path)
        self.path_only, self.query = url.path, dict(parse_qsl(url.query))
        self.unread = int(headers.get("content-length", 0))
        self.fault = self.receive(Request(self.command, self.path, headers))
        try:
            if self.fault.status is not None:
                self.send(self.fault.status, self.fault.headers, [self.fault.body], len(self.fault.body))
            else:
                self.respond()
        except HubError as error:
            self.send_json({"error": str(error), **error.details}, error.status, error.headers)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = serve

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing: the hub has a log."""

    def chunks(self) -> Iterator[bytes]:
        """Yield what is left of the request's body."""
        while self.unread:
            chunk = self.rfile.read(min(CHUNK, self.unread))
            if not chunk:
                raise ConnectionError("The client went away")
            self.unread -= len(chunk)
            yield chunk

    def body(self) -> bytes:
        """Read the request's body."""
        return b"".join(self.chunks())

    def send_json(self, value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        """Send JSON."""
        text = json.dumps(value).encode()
        self.send(status, {"Content-Type": "application/json", **(headers or {})}, [text], len(text))

    def send_file(self, path: Path, headers: Mapping[str, str]) -> None:
        """Send a file on disk, or the part of it that the request's ``Range`` names."""
        size = path.stat().st_size
        start, end, status, extra = 0, size, 200, {"Accept-Ranges": "bytes"}
        if found := _RANGE.fullmatch(self.headers.get("Range", "")):
            first, last = found.groups()
            start = int(first) if first else max(size - int(last), 0)
            end = min(int(last) + 1, size) if first and last else size
            if start >= end:
                raise HubError(416, "Range not satisfiable", headers={"Content-Range": f"bytes */{size}"})
            status, extra["Content-Range"] = 206, f"bytes {start}-{end - 1}/{size}"
        extra["Content-Type"] = "application/octet-stream"
        self.send(status, {**headers, **extra}, read_chunks(path, start, end), end - start)

    def send(self, status: int, headers: Mapping[str, str], body: Iterable[bytes], length: int) -> None:
        """Send a response, subject to the request's fault."""
        for _ in self.chunks():
            pass
        empty = self.command == "HEAD" or length == 0
        if empty and self.fault.cut_after is not None:
            self._hang_up()
            return
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        if not empty:
            self._send_body(body)

    def _send_body(self, body: Iterable[bytes]) -> None:
        left = self.fault.cut_after
        for chunk in body:
            self.wfile.write((chunk.translate(_FLIPPED) if self.fault.corrupt else chunk)[:left])
            if left is not None:
                left = max(left - len(chunk), 0)
                if left == 0:
                    self._hang_up()
                    return

    def _hang_up(self) -> None:
        self.close_connection = True
        if self.fault.reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.rfile.close()
            self.connection.close()
