import datetime
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


@pytest.mark.parametrize(
    "text",
    [
        "https://cdn.example/f.bin?Signature=S3CRET&Policy=S3CRET: 403",
        "(…)data/genres.tar.gz?X-Amz-Signature=S3CRET should be 5 bytes",
        "cut …ers=host&X-Amz-Signature=S3CRET)",
        "Illegal header value b'Bearer S3CRET\\x01'",
    ],
)
def test_hide_secrets(text: str) -> None:
    hidden = hub_errors.hide_secrets(text)
    assert "S3CRET" not in hidden
    assert hidden.split()[-1] == text.split()[-1] or "***" in hidden
