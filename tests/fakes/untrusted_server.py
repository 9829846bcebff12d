"""Servers that a client refuses: with a certificate that it does not trust, or none at all."""

import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from fakes.hub.server import LocalHub

UNTRUSTED = ("untrusted", {"HF_XET_CLIENT_RETRY_BASE_DELAY": "50ms"})


@contextmanager
def untrusted_server(folder: Path) -> Iterator[str]:
    """Yield the address of a server with a self-signed certificate."""
    name = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", f"{folder}/key.pem", "-out", f"{folder}/cert.pem"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", *name, *files]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(f"{folder}/cert.pem", f"{folder}/key.pem")
    server = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    server.handle_error = lambda *_: None
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield f"https://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@contextmanager
def unusable_xet_store(hub: LocalHub, fault: str, folder: Path) -> Iterator[None]:
    """Let the Hub name a Xet store that refuses connections, or whose certificate is not trusted."""
    assert hub.xet
    with untrusted_server(folder) as url:
        hub.xet.url = url if fault == "untrusted" else "http://127.0.0.1:9"
        yield


def assert_falls_back_once(output: str) -> None:
    """Check that one line reports the change to plain HTTP."""
    [line] = [line for line in output.splitlines() if "HF_HUB_DISABLE_XET=1" in line]
    assert "the Xet storage cannot be used" in line
