"""Explain errors of the Hugging Face Hub in one line: the server's reason, and how to fix it."""

import errno
import json
import os
import re
import ssl
import time
from email.utils import parsedate_to_datetime
from typing import Literal, NamedTuple

import httpx2
from huggingface_hub import constants, errors, get_token
from huggingface_hub.utils import hf_raise_for_status, parse_ratelimit_headers

LOGIN = "log in with `hf auth login`, or set HF_TOKEN"
CHECK_PROXY = "check the proxy or the network's login page, and HF_ENDPOINT if it is set"
MAX_REASON = 300  # characters
MAX_SECONDS = 86_400  # of a stated time to wait; a longer one is a mistake
# What the client raises if a response has an unexpected form.
UNEXPECTED_ANSWER = (KeyError, IndexError, TypeError, AttributeError, AssertionError, OverflowError)
Kind = Literal["dataset", "model", "space"]


class Target(NamedTuple):
    """The repo and revision that a request is about."""

    kind: Kind
    repo: str
    revision: str
    pushing: bool = False


class CorruptFileError(OSError):
    """A file has the right size but a wrong checksum."""


class NotTheHubError(OSError):
    """Something between here and the Hub, such as a proxy's login page, sent a response in its place."""


class RateLimitError(OSError):
    """The Hub asks to wait."""

    def __init__(self, seconds: int) -> None:
        super().__init__(f"the Hub is busy or its rate limit is reached for the next {seconds} s")
        self.seconds = seconds


def check_response(response: httpx2.Response) -> None:
    """Raise what the client would ignore (a web page in place of data) or wait for silently (a busy server).

    Raises:
        RateLimitError: status 429 or 5xx with a time to wait.
        HfHubHTTPError: status 429 or 5xx without one.
        NotTheHubError: a web page with status 200; the Hub's interface never sends one.
    """
    if response.status_code == 429 or response.status_code >= 500:
        if (seconds := _seconds_to_wait(response.headers)) is not None:
            raise RateLimitError(seconds)
        response.read()
        hf_raise_for_status(response)
    # Some storage hosts send one for an upload (PUT).
    is_page = response.headers.get("content-type", "").lower().startswith("text/html")
    if response.status_code == 200 and is_page and response.request.method != "PUT":
        raise NotTheHubError(f"{response.url.host} answered with a web page")


def _seconds_to_wait(headers: httpx2.Headers) -> int | None:
    """Return the time that the server asks to wait: from 1 s to a day, or None if it states no usable time."""
    value = headers.get("retry-after", "").strip()
    try:
        limit = parse_ratelimit_headers(headers)
        if limit is not None and limit.remaining == 0:
            seconds = limit.reset_in_seconds + 1
        elif re.fullmatch(r"[0-9]+", value):
            seconds = int(value[:9])
        else:
            seconds = round(parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None
    return min(max(1, seconds), MAX_SECONDS)


def find_cause(error: Exception) -> Exception:
    """Return the error of the request itself, if the client wrapped it in another error.

    It does so for uploads, and for requests after which it looked into its cache.
    """
    wrappers = (errors.LocalEntryNotFoundError, RuntimeError)
    while isinstance(error, wrappers) and isinstance(error.__cause__, OSError | httpx2.HTTPError):
        error = error.__cause__
    return error


def explain(error: Exception, target: Target) -> str:
    """Return one line: the repo, what is wrong, how to fix it."""
    what = f"{target.kind} {target.repo}"
    if isinstance(error, errors.HfHubHTTPError):
        return f"{what}{_explain_answer(error, target)}"
    if is_full_disk(error):
        return (
            f"{what}: {reason(error)}; free some space on the disk of {constants.HF_HUB_CACHE}, "
            "or set HF_HOME to a folder on a larger disk"
        )
    if isinstance(error, RateLimitError):
        minutes = f" ({error.seconds / 60:.0f} minutes)" if error.seconds > 90 else ""
        cached = "" if target.pushing else ", or set HF_HUB_OFFLINE=1 if the files are in the cache"
        higher = "" if get_token() else f", or {LOGIN}, because a token has higher limits"
        return f"{what}: {reason(error)}{minutes}; start again then{cached}{higher}"
    if isinstance(error, NotTheHubError | errors.FileMetadataError):
        return f"{what}: {reason(error)}; {CHECK_PROXY}"
    if isinstance(error, UnicodeEncodeError) or "header value" in str(error):
        return f"{what}: the token has characters that no token has; correct HF_TOKEN, or log in with `hf auth login`"
    proxy = isinstance(error, httpx2.InvalidURL | httpx2.UnsupportedProtocol | ImportError)
    if proxy or (isinstance(error, ValueError) and "proxy URL" in str(error)):
        return f"{what}: {reason(error)}; check HTTPS_PROXY, HTTP_PROXY and ALL_PROXY"
    if isinstance(error, (json.JSONDecodeError, *UNEXPECTED_ANSWER)):
        return f"{what}: unexpected response ({type(error).__name__}: {reason(error)}); {CHECK_PROXY}"
    if isinstance(error, httpx2.ProxyError):
        return f"{what}: the proxy refuses the connection ({reason(error)}); check HTTPS_PROXY and HTTP_PROXY"
    if is_certificate(error):
        return (
            f"{what}: the certificate of {_host(error)} is not trusted ({reason(error)}); "
            "if your network uses a private certificate authority, set SSL_CERT_FILE to its certificates"
        )
    unreachable = (errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError, httpx2.ConnectError)
    if isinstance(error, (*unreachable, httpx2.ConnectTimeout)):
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
    return f": the Hub returned {status} ({text}){advice}"


def _explain_unreachable(target: Target) -> str:
    offline = constants.is_offline_mode()
    why = "HF_HUB_OFFLINE is set" if offline else "the Hub cannot be reached"
    if target.pushing:
        fix = "unset HF_HUB_OFFLINE" if offline else "check the network and run dvc repro again"
        return f"{why}, so nothing can be pushed; {fix}, or set publish.push: false"
    fix = "unset it" if offline else "check the network"
    return (
        f"{why} and the cache does not have it; {fix}, take clips and a model from disk "
        "(presets/folder.yaml), or run the offline demo (presets/demo.yaml)"
    )


def reason(error: BaseException) -> str:
    """Return the server's reason, or the error's text, in one line without request ids and signatures."""
    cause = error.__cause__ if isinstance(error, httpx2.HTTPError) else None
    messages = [getattr(which, "server_message", None) for which in (error, cause)]
    text = messages[0] or messages[1] or str(error) or type(error).__name__
    text = re.sub(r"<[^>]*>", " ", text)
    text = re.sub(r"\(Request ID: [^)]*\)|\(Amz CF ID: [^)]*\)", "", text)
    text = " ".join(hide_secrets(text).split()).rstrip(".")
    return text if len(text) <= MAX_REASON else f"{text[:MAX_REASON]} ..."


def hide_secrets(text: str) -> str:
    """Return the text without the token, and without the query of any address in it, complete or truncated."""
    if token := get_token():
        text = text.replace(token, "***").replace(token.encode("unicode_escape").decode(), "***")
    text = re.sub(r"Bearer [^\s'\"]+", "Bearer ***", text)
    text = re.sub(r"([^\s?'\"]*[/.][^\s?'\"]*)\?[^\s'\")]*=[^\s'\")]*", r"\1", text)
    return re.sub(r"\b((?:X-Amz-\w+|Signature|Policy|Key-Pair-Id|sig|token)=)[^\s&'\")]+", r"\1***", text, flags=re.I)


def is_full_disk(error: BaseException) -> bool:
    """Return whether the disk or the user's quota is full. Some clients report it only in the message."""
    number, words = getattr(error, "errno", None), ("(os error 28)", "(os error 122)", "Not enough free disk space")
    return number in (errno.ENOSPC, errno.EDQUOT) or any(word in str(error) for word in words)


def is_certificate(error: BaseException | None) -> bool:
    """Return whether the error, or its cause, is that a certificate is not trusted."""
    if error is None:
        return False
    found = isinstance(error, ssl.SSLCertVerificationError) or "CERTIFICATE_VERIFY_FAILED" in str(error)
    return found or is_certificate(error.__cause__ or error.__context__)


def web_page(kind: Kind, repo: str) -> str:
    """Return the address of a repo's page."""
    return f"{constants.ENDPOINT}/{'' if kind == 'model' else f'{kind}s/'}{repo}"


def _host(error: Exception) -> str:
    """Return the host that a request went to; the Hub's if the error has no request."""
    request = getattr(error, "_request", None)
    return f"{request.url.scheme}://{request.url.netloc.decode()}" if request else constants.ENDPOINT
