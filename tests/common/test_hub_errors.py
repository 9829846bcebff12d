import datetime
import errno
import ssl
from email.utils import format_datetime

import httpx2
import pytest
from huggingface_hub.errors import HfHubHTTPError

from stages.common import hub_errors

REQUEST = httpx2.Request("GET", "https://huggingface.co/api")


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "7"}, 7),
        ({"Retry-After": "0"}, 1),
        ({"Retry-After": "9" * 5000}, 86_400),
        ({"Retry-After": format_datetime(datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC))}, 1),
        ({"RateLimit": '"api";r=0;t=9', "RateLimit-Policy": "q=500;w=300"}, 10),
    ],
    ids=["seconds", "none", "absurd", "past", "ratelimit"],
)
@pytest.mark.parametrize("status", [429, 503])
def test_stated_wait_is_bounded(status: int, headers: dict[str, str], seconds: int) -> None:
    response = httpx2.Response(status, headers=headers, request=REQUEST)
    with pytest.raises(hub_errors.RateLimitError) as found:
        hub_errors.check_response(response)
    assert found.value.seconds == seconds


@pytest.mark.parametrize("value", ["\u00b2", "soon", "-1", "Thu, 99 Jan 99999 00:00:00 GMT"])
def test_invalid_wait_is_ignored(value: str) -> None:
    response = httpx2.Response(503, headers={"Retry-After": value.encode()}, request=REQUEST, json={})
    with pytest.raises(HfHubHTTPError):
        hub_errors.check_response(response)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_busy_server_without_a_time_is_an_error_of_the_hub(status: int) -> None:
    with pytest.raises(HfHubHTTPError):
        hub_errors.check_response(httpx2.Response(status, request=REQUEST, json={}))


@pytest.mark.parametrize("status", [200, 302, 404, 499])
def test_time_to_wait_of_another_status_is_ignored(status: int) -> None:
    hub_errors.check_response(httpx2.Response(status, headers={"Retry-After": "7"}, request=REQUEST))


PAGE = "Text/HTML; charset=utf-8"


@pytest.mark.parametrize(
    ("status", "kind", "method", "is_error"),
    [
        (200, PAGE, "GET", True),
        (200, PAGE, "POST", True),
        (200, PAGE, "PUT", False),
        (302, PAGE, "GET", False),
        (404, PAGE, "GET", False),
        (200, "application/json", "GET", False),
        (200, None, "GET", False),
    ],
)
def test_web_page_in_place_of_data(status: int, kind: str | None, method: str, is_error: bool) -> None:
    headers = {"Content-Type": kind} if kind else {}
    request = httpx2.Request(method, "https://hub.example/api")
    response = httpx2.Response(status, headers=headers, request=request)
    if is_error:
        with pytest.raises(hub_errors.NotTheHubError, match=r"hub\.example"):
            hub_errors.check_response(response)
    else:
        hub_errors.check_response(response)


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (OSError(errno.ENOSPC, "text"), True),
        (OSError(errno.EDQUOT, "text"), True),
        (RuntimeError("IO error (os error 28)"), True),
        (RuntimeError("IO error (os error 122)"), True),
        (UserWarning("Not enough free disk space to download the file"), True),
        (OSError(errno.EACCES, "text"), False),
        (RuntimeError("IO error (os error 2)"), False),
    ],
)
def test_full_disk(error: Exception, full: bool) -> None:
    assert hub_errors.is_full_disk(error) is full


def caused(error: Exception, cause: Exception | None = None, context: Exception | None = None) -> Exception:
    error.__cause__, error.__context__ = cause, context
    return error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ssl.SSLCertVerificationError("text"), True),
        (OSError("[SSL: CERTIFICATE_VERIFY_FAILED]"), True),
        (caused(OSError("text"), cause=ssl.SSLCertVerificationError("text")), True),
        (caused(OSError("text"), context=ssl.SSLCertVerificationError("text")), True),
        (caused(OSError("text"), cause=OSError("text")), False),
        (ssl.SSLError("text"), False),
    ],
)
def test_certificate(error: Exception, expected: bool) -> None:
    assert hub_errors.is_certificate(error) is expected


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("https://cdn.example/f.bin?Signature=S3CRET&Policy=S3CRET: 403", "https://cdn.example/f.bin 403"),
        ("(…)data/genres.tar.gz?X-Amz-Signature=S3CRET should be 5 bytes", "(…)data/genres.tar.gz should be 5 bytes"),
        ("cut …ers=host&x-amz-signature=S3CRET)", "cut …ers=host&x-amz-signature=***)"),
        ("Illegal header value b'Bearer S3CRET\\x01'", "Illegal header value b'Bearer ***'"),
        ("the token hf_abc\n is wrong", "the token *** is wrong"),
        ("the token hf_abc\\n is wrong", "the token *** is wrong"),
        ("is this the page? no = no", "is this the page? no = no"),
    ],
)
def test_hide_secrets(text: str, hidden: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_errors, "get_token", lambda: "hf_abc\n")
    assert hub_errors.hide_secrets(text) == hidden
