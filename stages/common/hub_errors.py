"""What went wrong with the Hugging Face Hub, in one line: the server's reason and how to fix it."""

import errno
import os
import re
import ssl
import time
from email.utils import parsedate_to_datetime
from typing import Literal, NamedTuple

import httpx2
from huggingface_hub import constants, errors, get_token
from huggingface_hub.utils import parse_ratelimit_headers

LOGIN = "log in with `hf auth login`, or set HF_TOKEN"
MAX_REASON = 300  # characters
Kind = Literal["dataset", "model"]


class Target(NamedTuple):
    """The repo and revision that a request is about."""

    kind: Kind
    repo: str
    revision: str
    pushing: bool = False


class CorruptFileError(OSError):
    """A file has the right size but a wrong checksum."""


class NotTheHubError(OSError):
    """Something between here and the Hub, such as a proxy's login page, answered in its place."""


class RateLimitError(OSError):
    """The Hub asks to wait."""

    def __init__(self, seconds: int) -> None:
        super().__init__(f"the Hub's rate limit is reached for the next {seconds} s")
        self.seconds = seconds


def check_response(response: httpx2.Response) -> None:
    """Raise what the client would ignore (a web page in place of data) or wait for silently (a rate limit).

    Raises:
        RateLimitError: status 429 with a time to wait.
        NotTheHubError: a web page with status 200; the Hub's interface never sends one.
    """
    if response.status_code == 429 and (seconds := _seconds_to_wait(response.headers)) is not None:
        raise RateLimitError(seconds)
    if response.status_code == 200 and response.headers.get("content-type", "").lower().startswith("text/html"):
        raise NotTheHubError(f"{response.url.host} answered with a web page")


def _seconds_to_wait(headers: httpx2.Headers) -> int | None:
    limit = parse_ratelimit_headers(headers)
    if limit is not None and limit.remaining == 0:
        return limit.reset_in_seconds + 1
    value = headers.get("retry-after", "").strip()
    if value.isdigit():
        return int(value)
    try:
        return max(0, round(parsedate_to_datetime(value).timestamp() - time.time()))
    except ValueError:
        return None


def explain(error: BaseException, target: Target) -> str:
    """Return one line: the repo, what is wrong, how to fix it."""
    while isinstance(error, errors.LocalEntryNotFoundError) and error.__cause__ is not None:
        # The client also looked into its cache; the request's own error says more.
        error = error.__cause__
    what = f"{target.kind} {target.repo}"
    if isinstance(error, errors.HfHubHTTPError) and not isinstance(error, errors.LocalEntryNotFoundError):
        return f"{what}{_explain_answer(error, target)}"
    if is_full_disk(error):
        return (
            f"{what}: {reason(error)}; free some space on the disk of {constants.HF_HUB_CACHE}, "
            "or set HF_HOME to a folder on a larger disk"
        )
    if isinstance(error, RateLimitError):
        advice = "start again then" if _has_token() else f"start again then, or {LOGIN}: a token has higher limits"
        return f"{what}: {reason(error)} ({error.seconds / 60:.0f} minutes); {advice}"
    if isinstance(error, NotTheHubError | errors.FileMetadataError):
        return f"{what}: {reason(error)}; check the proxy or the network's login page, and HF_ENDPOINT if it is set"
    if is_certificate(error):
        return (
            f"{what}: the certificate of {constants.ENDPOINT} is not trusted ({reason(error)}); "
            "if your network has its own authority, set SSL_CERT_FILE to its certificates"
        )
    if isinstance(error, errors.OfflineModeIsEnabled | errors.LocalEntryNotFoundError | httpx2.ConnectError):
        return f"{what}: {_explain_unreachable(target)}"
    if isinstance(error, httpx2.TransportError | CorruptFileError):
        return f"{what}: {reason(error)}, several times; try again later"
    return f"{what}: {reason(error)}"


def _explain_answer(error: errors.HfHubHTTPError, target: Target) -> str:
    page, status, text = web_page(target.kind, target.repo), error.response.status_code, reason(error)
    if isinstance(error, errors.GatedRepoError):
        return f" is gated ({text}): ask for access at {page}, then {LOGIN}"
    if status == 401 and ("Invalid credentials" in text or target.pushing):
        fix = "correct or unset it" if os.environ.get("HF_TOKEN") else "log in again with `hf auth login`"
        name = "HF_TOKEN" if os.environ.get("HF_TOKEN") else "the saved token"
        return f": the Hub rejects {name} ({text}); {fix}"
    if isinstance(error, errors.RepositoryNotFoundError):
        return f": no such repo, or a private one: look at {page}, check the id, or {LOGIN}"
    if isinstance(error, errors.RevisionNotFoundError):
        return f" has no revision {target.revision}; choose one from {page}/tree/main"
    if status in (401, 403):
        return f": access denied ({status}: {text}); check the owner's name and what the token permits, or {LOGIN}"
    advice = "; try again later" if status == 429 or status >= 500 else ""
    return f": the Hub answered {status} ({text}){advice}"


def _explain_unreachable(target: Target) -> str:
    offline = constants.is_offline_mode()
    if target.pushing:
        fix = "unset HF_HUB_OFFLINE" if offline else "check the network and run dvc repro again"
        why = "HF_HUB_OFFLINE is set" if offline else "the Hub cannot be reached"
        return f"{why}, so nothing can be pushed; {fix}, or set publish.push: false"
    why = "HF_HUB_OFFLINE is set" if offline else "the Hub cannot be reached"
    fix = "unset it" if offline else "check the network"
    return (
        f"{why} and the cache does not have it; {fix}, take clips and a model from disk "
        "(presets/folder.yaml), or run the offline demo (presets/demo.yaml)"
    )


def reason(error: BaseException) -> str:
    """Return the server's reason, or the error's text, in one line without request ids and signatures."""
    text = getattr(error, "server_message", None) or str(error) or type(error).__name__
    text = re.sub(r"<[^>]*>", " ", text)
    text = re.sub(r"\(Request ID: [^)]*\)|\(Amz CF ID: [^)]*\)", "", text)
    text = " ".join(hide_signatures(text).split()).rstrip(".")
    return text if len(text) <= MAX_REASON else f"{text[:MAX_REASON]} ..."


def hide_signatures(text: str) -> str:
    """Return the text with the query removed from every address in it."""
    return re.sub(r"(https?://[^\s?'\"]+)\?[^\s'\")]*", r"\1", text)


def is_full_disk(error: BaseException) -> bool:
    """Return whether the disk, or the user's share of it, is full or too small. Some clients say so in words only."""
    number, words = getattr(error, "errno", None), ("(os error 28)", "Not enough free disk space")
    return number in (errno.ENOSPC, errno.EDQUOT) or any(word in str(error) for word in words)


def is_certificate(error: BaseException | None) -> bool:
    """Return whether the error, or one behind it, is that a certificate is not trusted."""
    if error is None:
        return False
    found = isinstance(error, ssl.SSLCertVerificationError) or "CERTIFICATE_VERIFY_FAILED" in str(error)
    return found or is_certificate(error.__cause__ or error.__context__)


def web_page(kind: Kind, repo: str) -> str:
    """Return the address of a repo's page."""
    return f"{constants.ENDPOINT}/{'datasets/' if kind == 'dataset' else ''}{repo}"


def _has_token() -> bool:
    return get_token() is not None
