"""Download from and upload to the Hugging Face Hub, with retries, checksums and one-line errors."""

import hashlib
import logging
import os
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

# If its storage cannot be reached, the Xet client retries for minutes by default. Plain HTTP serves the same files, so
# it gives up earlier here. Its read timeout stays: it includes the time to send a body.
os.environ.setdefault("HF_XET_CLIENT_CONNECT_TIMEOUT", "5s")
os.environ.setdefault("HF_XET_CLIENT_RETRY_MAX_ATTEMPTS", "2")

import httpx2
from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    constants,
    errors,
    get_token,
    set_client_factory,
    snapshot_download,
)
from huggingface_hub.utils._http import default_client_factory  # set_client_factory has no other way to extend it

from stages.common import hub_errors
from stages.common.errors import UserError
from stages.common.hub_errors import CorruptFileError, RateLimitError, Target

WAITS = (1, 2, 4)  # seconds before each further try
MAX_RATE_LIMIT_WAIT = 300  # seconds; the Hub counts requests in windows of five minutes
MAX_RATE_LIMITS = 4  # in one call
CAUGHT = (
    *(httpx2.HTTPError, httpx2.InvalidURL, OSError, RuntimeError, ValueError, UserWarning, ImportError),
    *hub_errors.UNEXPECTED_ANSWER,
)
T = TypeVar("T")


def fetch_files(kind: hub_errors.Kind, repo: str, revision: str, patterns: list[str]) -> tuple[Path, str]:
    """Download files of a repo into the Hub's cache and compare each with its checksum.

    Args:
        patterns: which files, e.g. `data/*.parquet`; at least one file must match the first.

    Returns:
        The folder with the files (in the cache: read only), and the commit of the revision, 40 digits.

    Raises:
        UserError: no such repo, revision or file; no access; no network and nothing in the cache; no space.
    """

    def download() -> Path:
        folder = Path(snapshot_download(repo, repo_type=kind, revision=revision, allow_patterns=patterns))
        for file in folder.rglob("*"):
            if file.is_symlink() and file.is_file():
                _verify(file)
        return folder

    folder = _retry(download, Target(kind, repo, revision))
    if not any(file.is_file() for file in folder.glob(patterns[0])):
        raise UserError(
            f"{kind} {repo}: no file {patterns[0]} at revision {revision}; look at {hub_errors.web_page(kind, repo)}"
        )
    return folder, folder.name


def _verify(file: Path) -> None:
    """Compare a file of a snapshot with the checksum that the Hub stated; remove it if it is damaged.

    The client only compares sizes. A snapshot's file links to `blobs/<checksum>` of its repo: the SHA-256 of a large
    file, git's SHA-1 of any other. That may in turn link to a store that all repos share, under a Xet hash.

    Raises:
        CorruptFileError: the content has another checksum.
        UserError: the same, without a network to download it again.
    """
    links = list(_follow(file))
    expected = links[1].name
    if len(expected) not in (40, 64):
        return
    digest = hashlib.sha256() if len(expected) == 64 else hashlib.sha1(b"blob %d\0" % file.stat().st_size)
    with file.open("rb") as content:
        while chunk := content.read(1 << 20):
            digest.update(chunk)
    if digest.hexdigest() == expected:
        return
    if constants.is_offline_mode():
        raise UserError("its checksum is wrong; unset HF_HUB_OFFLINE to download it again", file=file)
    for link in links:
        link.unlink()
    raise CorruptFileError(f"{file.name} has a wrong checksum")


def _follow(path: Path) -> Iterator[Path]:
    """Yield a path, what it links to, what that links to, and so on to the file itself."""
    yield path
    while path.is_symlink():
        path = path.parent / path.readlink()
        yield path


def push_folder(folder: Path, repo: str, private: bool, message: str, tag: str, kind: hub_errors.Kind = "model") -> str:
    """Make a repo hold exactly the files of a folder: in one commit, or none if nothing changed.

    Args:
        repo: owner/name; it is created if needed.
        private: for a new repo.
        kind: of the repo; a Space runs Gradio.
        tag: of the commit; the first digits of the commit's id are appended.

    Returns:
        The repo's address.

    Raises:
        UserError: no access, invalid metadata, no network, no storage left.
    """
    api = HfApi()

    def upload() -> str:
        api.create_repo(
            repo, repo_type=kind, private=private, exist_ok=True, space_sdk="gradio" if kind == "space" else None
        )
        files = {file.relative_to(folder).as_posix(): file for file in sorted(folder.rglob("*")) if file.is_file()}
        stale = set(api.list_repo_files(repo, repo_type=kind)) - set(files) - {".gitattributes"}
        # Not upload_folder: over Xet it may split a folder into several commits.
        operations: list[CommitOperationAdd | CommitOperationDelete] = [
            CommitOperationAdd(path, file) for path, file in files.items()
        ]
        operations += [CommitOperationDelete(path) for path in sorted(stale)]
        done = api.create_commit(repo, operations, commit_message=message, repo_type=kind)
        api.create_tag(repo, tag=f"{tag}-{done.oid[:7]}", revision=done.oid, repo_type=kind, exist_ok=True)
        return hub_errors.web_page(kind, repo)

    return _retry(upload, Target(kind, repo, "main", pushing=True))


def token_owner(name: str) -> str:
    """Return the user name of the token.

    Args:
        name: of the repo to push to, for messages.

    Raises:
        UserError: there is no token, the Hub rejects it, or the Hub cannot be reached.
    """
    if get_token() is None:
        raise UserError(f"true needs a token for the Hub; {hub_errors.LOGIN}", key="publish.push")
    return _retry(lambda: HfApi().whoami()["name"], Target("model", name, "main", pushing=True))


def _retry(call: Callable[[], T], target: Target) -> T:
    """Return the result of a call, tried again after errors that may pass."""
    _check_endpoint()
    waits, rate_limits = list(WAITS), 0
    while True:
        try:
            return call()
        except CAUGHT as caught:
            error = hub_errors.find_cause(caught)
            if _is_from_xet(error) and not hub_errors.is_full_disk(error):
                print(
                    f"{target.repo}: the Xet storage cannot be used ({hub_errors.reason(error)}); "
                    "going on over plain HTTP, as with HF_HUB_DISABLE_XET=1",
                    flush=True,
                )
                constants.HF_HUB_DISABLE_XET = True
                continue
            if isinstance(error, RateLimitError):
                rate_limits += 1
                wait = error.seconds if error.seconds <= MAX_RATE_LIMIT_WAIT and rate_limits < MAX_RATE_LIMITS else None
            else:
                wait = waits.pop(0) if waits and _is_passing(error) else None
            if wait is None:
                raise UserError(hub_errors.explain(error, target)) from None
            print(f"{target.repo}: {hub_errors.reason(error)}; trying again in {wait} s", flush=True)
            time.sleep(wait)


def _check_endpoint() -> None:
    try:
        url = httpx2.URL(constants.ENDPOINT)
    except httpx2.InvalidURL:
        url = httpx2.URL("")
    if url.scheme not in ("http", "https") or not url.host:
        raise UserError(f"HF_ENDPOINT: {constants.ENDPOINT!r} is not an address; unset it, or write https://host")


def _is_from_xet(error: Exception) -> bool:
    """Return whether the Xet client, or the request for its token, failed.

    The client raises Python's general errors, and a special one for authentication.
    """
    general = type(error) in (RuntimeError, ConnectionError) or type(error).__name__.startswith("Xet")
    token = isinstance(error, errors.HfHubHTTPError) and "/xet-" in error.response.url.path
    return not constants.HF_HUB_DISABLE_XET and (general or token or "Xet " in str(error))


def _is_passing(error: BaseException) -> bool:
    """Return whether another try may help: a broken connection, a busy or faulty server, a damaged file."""
    if isinstance(error, errors.HfHubHTTPError):
        status = error.response.status_code
        # A large file comes from another host by a signed address; an expired one is refused there.
        elsewhere = error.response.url.netloc != httpx2.URL(constants.ENDPOINT).netloc
        expired = status in (401, 403) and elsewhere and error.response.request.method == "GET"
        return status == 429 or status >= 500 or expired
    if isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.ProxyError | httpx2.UnsupportedProtocol):
        return False
    if isinstance(error, httpx2.LocalProtocolError):
        return False
    if isinstance(error, httpx2.TransportError | CorruptFileError):
        return True
    return isinstance(error, OSError) and "Consistency check failed" in str(error)


def _make_client() -> httpx2.Client:
    client = default_client_factory()
    client.event_hooks = {**client.event_hooks, "response": [hub_errors.check_response]}
    return client


class _HideSecrets(logging.Filter):
    """Removes tokens, and the signatures of addresses (credentials for an hour), from the client's messages."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = hub_errors.hide_secrets(record.getMessage()), ()
        return True


set_client_factory(_make_client)
warnings.filterwarnings("error", "Not enough free disk space")  # the client would go on, and fail an hour later
for handler in logging.getLogger("huggingface_hub").handlers:
    handler.addFilter(_HideSecrets())
