"""Tests of which errors of the Hub are tried again, how often, and after how long."""

from collections.abc import Callable

import httpx2
import pytest
from helpers import user_error
from hf_xet import XetAuthenticationError
from huggingface_hub import constants
from huggingface_hub.errors import HfHubHTTPError

from stages.common import hub
from stages.common.hub_errors import CorruptFileError, NotTheHubError, RateLimitError, Target

TARGET = Target("model", "owner/name", "main")
STORAGE = "https://storage.example"


def answer(status: int, url: str = f"{constants.ENDPOINT}/api/models", method: str = "GET") -> HfHubHTTPError:
    request = httpx2.Request(method, url)
    return HfHubHTTPError("text", response=httpx2.Response(status, request=request))


class Calls:
    """A call that raises each of the given errors once, then returns "done"."""

    def __init__(self, *errors: Exception) -> None:
        self.errors, self.count = list(errors), 0

    def __call__(self) -> str:
        self.count += 1
        if self.errors:
            raise self.errors.pop(0)
        return "done"


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Record the waits instead of waiting, and restore the client's use of Xet."""
    recorded: list[int] = []
    monkeypatch.setattr("stages.common.hub.time.sleep", recorded.append)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    return recorded


PASSING: list[Callable[[], Exception]] = [
    lambda: answer(429),
    lambda: answer(500),
    lambda: answer(503),
    lambda: answer(401, STORAGE),
    lambda: answer(403, STORAGE),
    lambda: httpx2.ReadTimeout("slow"),
    lambda: httpx2.RemoteProtocolError("cut"),
    lambda: CorruptFileError("damaged"),
    lambda: OSError("Consistency check failed: file should be of size 3"),
]
LASTING: list[Callable[[], Exception]] = [
    lambda: answer(404),
    lambda: answer(499),
    lambda: answer(401),
    lambda: answer(403),
    lambda: answer(404, STORAGE),
    lambda: answer(403, STORAGE, "PUT"),
    lambda: httpx2.ConnectError("refused"),
    lambda: httpx2.ConnectTimeout("no answer"),
    lambda: httpx2.ProxyError("refused"),
    lambda: httpx2.UnsupportedProtocol("ftp"),
    lambda: httpx2.LocalProtocolError("header"),
    lambda: NotTheHubError("a page"),
    lambda: OSError("disk"),
    lambda: ValueError("Consistency check failed"),
    lambda: KeyError("sha"),
]


@pytest.mark.parametrize("make", PASSING)
def test_passing_error_is_tried_again(make: Callable[[], Exception], waits: list[int]) -> None:
    calls = Calls(make(), make(), make())
    assert hub._retry(calls, TARGET) == "done"
    assert waits == [1, 2, 4]


@pytest.mark.parametrize("make", PASSING)
def test_fourth_error_is_final(make: Callable[[], Exception], waits: list[int]) -> None:
    calls = Calls(*(make() for _ in range(4)))
    assert "owner/name" in str(user_error(lambda: hub._retry(calls, TARGET)))
    assert (calls.count, waits) == (4, [1, 2, 4])


@pytest.mark.parametrize("make", LASTING)
def test_lasting_error_is_final(make: Callable[[], Exception], waits: list[int]) -> None:
    calls = Calls(make())
    user_error(lambda: hub._retry(calls, TARGET))
    assert (calls.count, waits) == (1, [])


def test_other_errors_are_not_caught() -> None:
    with pytest.raises(ZeroDivisionError):
        hub._retry(Calls(ZeroDivisionError()), TARGET)


@pytest.mark.parametrize(("seconds", "waited"), [(1, True), (hub.MAX_RATE_LIMIT_WAIT, True), (301, False)])
def test_rate_limit_is_waited_for_up_to_five_minutes(seconds: int, waited: bool, waits: list[int]) -> None:
    calls = Calls(RateLimitError(seconds))
    if waited:
        assert hub._retry(calls, TARGET) == "done"
    else:
        assert f"{seconds} s" in str(user_error(lambda: hub._retry(calls, TARGET)))
    assert waits == [seconds] * waited


def test_fourth_rate_limit_is_final(waits: list[int]) -> None:
    calls = Calls(*(RateLimitError(7) for _ in range(hub.MAX_RATE_LIMITS)))
    user_error(lambda: hub._retry(calls, TARGET))
    assert waits == [7, 7, 7]


def test_rate_limits_do_not_use_up_the_other_tries(waits: list[int]) -> None:
    calls = Calls(*(answer(500) for _ in range(3)), RateLimitError(7))
    assert hub._retry(calls, TARGET) == "done"
    assert waits == [1, 2, 4, 7]


def wrapped(cause: Exception) -> Exception:
    try:
        raise RuntimeError("Data processing error") from cause
    except RuntimeError as error:
        return error


XET: list[Callable[[], Exception]] = [
    lambda: RuntimeError("Data processing error: CAS service error"),
    lambda: ConnectionError("Network error"),
    lambda: XetAuthenticationError("expired"),
    lambda: OSError("Xet endpoint"),
    lambda: answer(500, f"{constants.ENDPOINT}/api/models/a/b/xet-read-token/main"),
    lambda: answer(401, f"{constants.ENDPOINT}/api/models/a/b/xet-write-token/main"),
]


@pytest.mark.parametrize("make", XET)
def test_error_of_xet_leads_to_plain_http(
    make: Callable[[], Exception], waits: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    calls = Calls(make())
    assert hub._retry(calls, TARGET) == "done"
    assert (constants.HF_HUB_DISABLE_XET, waits) == (True, [])
    assert capsys.readouterr().out.startswith("owner/name: the Xet storage cannot be used (")


@pytest.mark.parametrize("make", XET[:4])
def test_error_of_xet_is_final_over_plain_http(make: Callable[[], Exception], waits: list[int]) -> None:
    calls = Calls(make(), make())
    user_error(lambda: hub._retry(calls, TARGET))
    assert calls.count == 2


def test_full_disk_does_not_lead_to_plain_http() -> None:
    error = user_error(lambda: hub._retry(Calls(RuntimeError("No space left on device (os error 28)")), TARGET))
    assert "free some space" in str(error)
    assert constants.HF_HUB_DISABLE_XET is False


def test_wrapped_error_is_judged_by_its_cause(waits: list[int]) -> None:
    assert hub._retry(Calls(wrapped(answer(500))), TARGET) == "done"
    assert waits == [1]
    user_error(lambda: hub._retry(Calls(wrapped(answer(404))), TARGET))


def test_message_of_a_wait(capsys: pytest.CaptureFixture[str]) -> None:
    hub._retry(Calls(httpx2.ReadTimeout("slow")), TARGET)
    assert capsys.readouterr().out == "owner/name: slow; trying again in 1 s\n"


@pytest.mark.parametrize(
    ("endpoint", "valid"),
    [
        ("https://huggingface.co", True),
        ("http://localhost:8000", True),
        ("huggingface.co", False),
        ("ftp://huggingface.co", False),
        ("https://", False),
        ("http://host:port", False),
    ],
)
def test_endpoint(endpoint: str, valid: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    calls = Calls()
    if valid:
        assert hub._retry(calls, TARGET) == "done"
    else:
        assert "HF_ENDPOINT" in str(user_error(lambda: hub._retry(calls, TARGET)))
        assert calls.count == 0


def test_token_owner_without_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "get_token", lambda: None)
    assert user_error(lambda: hub.token_owner("name")).key == "publish.push"
