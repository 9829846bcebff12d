"""Serve the page: each upload in a folder of its own, and no route that the page does not need."""

import ipaddress
import json
import os
import re
import secrets
import shutil
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import gradio as gr
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from gradio.route_utils import MultiPartException, upload_fn
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stages.common.errors import UserError
from stages.common.paths import REPORT
from stages.publish.space.app import CSS, MAX_BYTES, SCRIPT

UPLOAD = "/gradio_api/upload"
MAX_BODY = 1 << 20  # bytes, of a request that is no upload; also what an upload has besides the file
MAX_AGE = 3600  # seconds, of an upload without a result, for example because the browser was closed
FILE = "/gradio_api/file="
# Gradio has many more routes: some fetch addresses for the browser, or run code.
ALLOWED = re.compile(
    r"/(?:config|theme\.css|favicon\.ico|robots\.txt|manifest\.json|report)?|/(?:assets|static)/.*"
    r"|/gradio_api/(?:info|startup-events|upload|upload_progress|cancel|reset|theme\.css|heartbeat/\w+|queue/(?:join|data))"
)
# The browser connects to no other server.
POLICY = b"default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:"


def uploads_folder() -> Path:
    """Return the folder of uploads, which tools.page makes and removes."""
    return Path(os.environ["GRADIO_TEMP_DIR"])


def is_loopback(host: str) -> bool:
    """Return whether only programs on this machine can reach a host. host: a name, or an address without brackets."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


class Guard:
    """Refuse requests for other routes, from other sites, and for files and addresses in place of uploads.

    Attributes:
        is_local: whether the server listens on this machine only.
    """

    def __init__(self, app: ASGIApp, is_local: bool) -> None:
        self.app, self.is_local = app, is_local

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""

        async def send_with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"content-security-policy", POLICY)]
            await send(message)

        path = scope.get("path", "")
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif refusal := find_refusal(scope, self.is_local):
            await PlainTextResponse(*refusal)(scope, receive, send)
        elif path == "/report":  # which has a policy of its own
            await self.app(scope, receive, send)
        elif path == "/gradio_api/queue/join":
            body = await Request(scope, receive).body()
            if names_other_file(body):
                await PlainTextResponse("refused", 400)(scope, receive, send)
            else:
                await self.app(scope, replay(body, receive), send_with_policy)
        else:
            await self.app(scope, receive, send_with_policy)


def find_refusal(scope: Scope, is_local: bool) -> tuple[str, int] | None:
    """Return why a request is refused by its head, with the status; None if it is not."""
    headers, path = Headers(scope=scope), scope["path"]
    host = headers.get("host", "")
    # So that no other page's name can be made to point here.
    if is_local and not is_loopback(re.sub(r":\d*$", "", host).strip("[]")):
        return "unknown host", 400
    if scope["type"] != "http" or not is_allowed(path):
        return "not found", 404
    if scope["method"] != "POST":
        return None
    # Browsers send a page's POST to any server. Without HTTPS, they send Sec-Fetch-Site only to this machine.
    origin = headers.get("origin")
    is_foreign = origin is not None and origin.partition("://")[2] != host
    if is_foreign or headers.get("sec-fetch-site") in ("cross-site", "same-site"):
        return "from another site", 403
    length, most = headers.get("content-length", ""), MAX_BODY + (MAX_BYTES if path == UPLOAD else 0)
    if not length.isdecimal() or int(length) > most or "transfer-encoding" in headers:
        return "too large, or of unknown length", 413
    return None


def is_allowed(path: str) -> bool:
    """Return whether the page needs a path. path: decoded."""
    if path.startswith(FILE):
        return is_upload(path.removeprefix(FILE))
    return ALLOWED.fullmatch(path) is not None


def is_upload(path: str) -> bool:
    """Return whether a path is in the folder of uploads."""
    return Path(os.path.normpath(path)).is_relative_to(uploads_folder())


def names_other_file(body: bytes) -> bool:
    """Return whether a request names anything but an upload: Gradio copies other files, and downloads addresses."""

    def search(value: Any) -> bool:
        if isinstance(value, dict):
            return ("path" in value and not is_upload(str(value["path"]))) or any(map(search, value.values()))
        return isinstance(value, list) and any(map(search, value))

    try:
        return search(json.loads(body))
    except (ValueError, RecursionError):
        return True


def replay(body: bytes, receive: Receive) -> Receive:
    """Return a function that receives a body that was read, then what follows."""
    parts = [{"type": "http.request", "body": body, "more_body": False}]

    async def next_message() -> Message:
        return parts.pop() if parts else await receive()

    return next_message


async def upload(request: Request) -> Response:
    """Receive a file, in a new folder: Gradio would put two uploads of the same file at the same path."""
    for old in uploads_folder().iterdir():
        with suppress(FileNotFoundError):  # its result was shown meanwhile
            if old.stat().st_mtime < time.time() - MAX_AGE:
                shutil.rmtree(old)
    folder = uploads_folder() / secrets.token_hex(16)
    try:
        files, _, _ = await upload_fn(request, str(folder), MAX_BYTES, None)
        if len(files) != 1:
            raise MultiPartException("send one file")
    except MultiPartException as error:
        shutil.rmtree(folder)
        is_large = "maximum allowed size" in error.message
        return PlainTextResponse(error.message, status_code=413 if is_large else 400)
    return JSONResponse([str(file) for file in files])


def upload_progress() -> Response:
    """Report an upload as done to the browser, which then shows no progress of its own."""
    return Response('data: {"msg": "done"}\n\n', media_type="text/event-stream")


def show_report() -> Response:
    """Send the report of evaluate."""
    return FileResponse(REPORT) if REPORT.exists() else PlainTextResponse("no report; run dvc repro", 404)


def make_app(page: gr.Blocks, host: str) -> FastAPI:
    """Return the server. host: that it will listen on."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.add_api_route(UPLOAD, upload, methods=["POST"])
    app.add_api_route("/gradio_api/upload_progress", upload_progress)
    app.add_api_route("/report", show_report)
    app.add_middleware(Guard, is_local=is_loopback(host))
    return gr.mount_gradio_app(
        app,
        page,
        "/",
        server_name=host,
        footer_links=[],
        run_history=False,
        show_error=False,
        max_file_size=MAX_BYTES,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        enable_monitoring=False,
        theme=gr.themes.Default(font="sans-serif", font_mono="monospace"),
        css=CSS,
        head=f"<script>{SCRIPT}</script>",
    )


def serve(page: gr.Blocks, host: str, port: int) -> None:
    """Serve the page until Ctrl-C, and print its address.

    Raises:
        UserError: the port is in use, or this machine does not have the host's address.
    """
    try:
        listener = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"--host {host} --port {port}: {reason}; --port 0 chooses a free one") from None
    print(f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}", flush=True)
    config = uvicorn.Config(make_app(page, host), log_level="warning", timeout_graceful_shutdown=1)
    uvicorn.Server(config).run([listener])
