"""The Hugging Face Hub as the stages use it: patient with the network, exact about bytes, plain about mistakes."""

import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypeVar

import httpx2
from huggingface_hub import HfApi, constants, errors, get_token, snapshot_download

from stages.common.stage import StageError

WAITS = (1, 2, 4)  # seconds before another try
LOGIN = "log in with `hf auth login`, or set HF_TOKEN"
Kind = Literal["dataset", "model"]
T = TypeVar("T")


class _CorruptError(Exception):
    """A file came whole in length but not in content."""


def fetch(kind: Kind, repo: str, revision: str, patterns: list[str]) -> tuple[Path, str]:
    """Bring files of a repo into the Hub's cache, and see that each is what its checksum says.

    Args:
        patterns: which files, e.g. `data/*.parquet`; something must match the first.

    Returns:
        The folder with the files (in the cache: read only), and the commit that the revision stands for, 40 digits.

    Raises:
        StageError: no such repo, revision or file; no access; no network and nothing in the cache.
    """

    def download() -> Path:
        folder = Path(snapshot_download(repo, repo_type=kind, revision=revision, allow_patterns=patterns))
        _verify(folder)
        return folder

    folder = _patiently(download, kind, repo, revision)
    if not any(file.is_file() for file in folder.glob(patterns[0])):
        raise StageError(f"{kind} {repo}: no file {patterns[0]} at revision {revision}; look at {_url(kind, repo)}")
    return folder, folder.name


def _verify(folder: Path) -> None:
    # The client checks sizes alone. It names a file in its cache by its checksum: SHA-256, or git's own of a blob.
    for file in folder.rglob("*"):
        blob = file.resolve()
        if file.is_symlink() and blob.is_file() and len(blob.name) in (40, 64):
            digest = hashlib.sha256() if len(blob.name) == 64 else hashlib.sha1(b"blob %d\0" % blob.stat().st_size)
            with blob.open("rb") as content:
                while piece := content.read(1 << 20):
                    digest.update(piece)
            if digest.hexdigest() != blob.name:
                file.unlink()
                blob.unlink()
                raise _CorruptError(f"{file.relative_to(folder)} came with a wrong checksum")


def push(folder: Path, name: str, private: bool, message: str, tag: str) -> str:
    """Make a model repo on the Hub hold exactly the folder's files, by one commit or, where it does already, none.

    Args:
        name: of the repo; without an owner it is the token's own.
        private: for a repo that does not exist yet.
        tag: of the commit; the Hub's own commit id is put behind it.

    Returns:
        The repo's address.
    """
    owner, _, _ = name.rpartition("/")

    def upload() -> str:
        repo = api.create_repo(name if owner else f"{user}/{name}", private=private, exist_ok=True).repo_id
        done = api.upload_folder(repo_id=repo, folder_path=folder, commit_message=message, delete_patterns="*")
        api.create_tag(repo, tag=f"{tag}-{done.oid[:7]}", revision=done.oid, exist_ok=True)
        return f"{api.endpoint}/{repo}"

    api, user = HfApi(), whoami()
    return _patiently(upload, "model", name, "main")


def whoami() -> str:
    """The user of the token at hand.

    Raises:
        StageError: there is no token, or the Hub does not know it.
    """
    if get_token() is None:
        raise StageError(f"params.yaml: publish.push: true needs a token for the Hub; {LOGIN}")
    return _patiently(lambda: HfApi().whoami()["name"], "model", "to push", "main")


def _patiently(call: Callable[[], T], kind: Kind, repo: str, revision: str) -> T:
    for wait in (*WAITS, None):
        try:
            return call()
        except (httpx2.HTTPError, errors.HfHubHTTPError, OSError, RuntimeError, _CorruptError) as error:
            if wait is None or not _is_passing(error):
                raise StageError(_explain(error, kind, repo, revision)) from None
            print(f"{repo}: {_first_line(error)}; trying again in {wait} s", flush=True)
            time.sleep(wait)
    raise AssertionError("the last try returns or raises")


def _is_passing(error: BaseException | None) -> bool:
    """Whether another try may help: a broken connection, a busy or faulty server, a damaged file."""
    if isinstance(error, errors.HfHubHTTPError):
        return error.response.status_code == 429 or error.response.status_code >= 500
    if isinstance(error, httpx2.ConnectError):
        return False
    if isinstance(error, httpx2.TransportError | _CorruptError):
        return True
    if isinstance(error, OSError) and "Consistency check failed" in str(error):
        return True
    # The client wraps the errors of uploads, and of requests that it tried before it looked into its cache.
    return error is not None and _is_passing(error.__cause__)


def _explain(error: BaseException, kind: Kind, repo: str, revision: str) -> str:
    url, what = _url(kind, repo), f"{kind} {repo}"
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, errors.GatedRepoError):
        return f"{what} is gated: ask for access at {url}, then {LOGIN}"
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"{what}: no such repo, or a private one: look at {url}, check the id, or {LOGIN}"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{what} has no revision {revision}; choose one from {url}/tree/main"
    if status in (401, 403):
        return f"{what}: the Hub does not let this token in ({status}); check the owner's name and {LOGIN}"
    if status is not None:
        return f"{what}: the Hub answered {status} ({_first_line(error)}); try again later"
    if isinstance(error, _CorruptError) or _is_passing(error):
        return f"{what}: {_first_line(error)}, {len(WAITS) + 1} times; try again later"
    if isinstance(error, errors.LocalEntryNotFoundError | errors.OfflineModeIsEnabled | httpx2.ConnectError):
        return (
            f"{what}: the Hub cannot be reached and the cache does not have it; mend the network, take clips and a "
            "model from disk (presets/folder.yaml), or run the offline demo (presets/demo.yaml)"
        )
    return f"{what}: {_first_line(error)}"


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def _url(kind: Kind, repo: str) -> str:
    return f"{constants.ENDPOINT}/{'datasets/' if kind == 'dataset' else ''}{repo}"
