"""Faults of the Hub, its storage and the network during a download: hub.py continues, or ends with one line."""

import datetime
import time
from dataclasses import replace
from email.utils import format_datetime
from pathlib import Path

import pytest
from fakes.hub.server import Fault, LocalHub
from fakes.small_disk import small_disk
from fakes.small_hub import (
    ARCHIVE,
    CONTENT,
    GTZAN,
    OVER_BOTH,
    OVER_HTTP,
    fetch,
    fetch_error,
    fetched,
)
from fakes.untrusted_server import UNTRUSTED, assert_falls_back_once, untrusted_server, unusable_xet_store

pytestmark = pytest.mark.slow
API = r"GET /api/datasets/marsyas/gtzan"
HEAD = r"HEAD .*genres\.tar\.gz"
GET = r"GET /(datasets|stored/datasets)/.*genres\.tar\.gz"
WAITS = (1, 2, 4)  # of stages.common.hub


def flip_bit(file: Path) -> None:
    file.chmod(0o644)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def shared_store() -> list[Path]:
    """Return the files that huggingface_hub keeps once for all repos."""
    return [file for file in Path(".home/hub/blobs").glob("*/*") if len(file.name) == 64]


def archives() -> list[Path]:
    """Return the archive of each repo in the cache."""
    return sorted(Path(".home/hub").glob(f"datasets--*/snapshots/*/{ARCHIVE}"))


@OVER_HTTP
@pytest.mark.parametrize(
    ("pattern", "faults"),
    [
        (GET, [Fault(cut_after=4000)]),
        (GET, [Fault(reset=True)]),
        (GET, [Fault(status=500), Fault(status=503)]),
        (GET, [Fault(status=429, headers={"Retry-After": "1"})]),
        (GET, [Fault(corrupt=True)]),
        (API, [Fault(status=500), Fault(reset=True)]),
        (HEAD, [Fault(reset=True)]),
    ],
    ids=["cut", "reset", "500", "429", "corrupt", "api", "head"],
)
def test_passing_fault(archive: LocalHub, pattern: str, faults: list[Fault]) -> None:
    archive.fail(pattern, *faults)
    fetch(archive)
    assert fetched() == CONTENT


@OVER_HTTP
@pytest.mark.parametrize(
    ("fault", "expected"),
    [(Fault(status=500), "500"), (Fault(corrupt=True), "wrong checksum"), (Fault(status=403), "403")],
    ids=["500", "corrupt", "403"],
)
def test_lasting_fault(archive: LocalHub, fault: Fault, expected: str) -> None:
    archive.fail(GET, *[fault] * 30)
    line = fetch_error(archive)
    assert GTZAN in line
    assert expected in line
    archive.repair()
    fetch(archive)
    assert fetched() == CONTENT


def test_damaged_shared_store(archive: LocalHub) -> None:
    fetch(archive)
    [stored] = shared_store()
    assert archives()[0].resolve() == stored.resolve()
    archive.commit("dataset", "ann/copy", {ARCHIVE: CONTENT})
    fetch(archive, "ann/copy")
    assert [file.resolve() for file in archives()] == [stored.resolve()] * 2
    flip_bit(stored)
    assert "genres.tar.gz has a wrong checksum; trying again" in fetch(archive, "ann/copy")
    assert [file.read_bytes() for file in archives()] == [CONTENT] * 2


@OVER_BOTH
def test_damaged_file_stays_offline(archive: LocalHub) -> None:
    fetch(archive)
    archive.close()
    [file] = archives()
    flip_bit(file.resolve())
    assert "unset HF_HUB_OFFLINE to download it again" in fetch_error(archive, HF_HUB_OFFLINE="1")
    assert file.is_file()


@pytest.mark.parametrize(("fault", "env"), [("refused", {}), UNTRUSTED], ids=["refused", "untrusted"])
def test_fetch_without_xet_store(
    archive: LocalHub, fault: str, env: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    start = time.monotonic()
    with unusable_xet_store(archive, fault, tmp_path_factory.mktemp("tls")):
        output = fetch(archive, **env)
    assert time.monotonic() - start < 60
    assert fetched() == CONTENT
    assert_falls_back_once(output)
    assert not shared_store()


@pytest.mark.parametrize("status", [200, 403, 404, 500])
def test_fetch_without_xet_token(archive: LocalHub, status: int) -> None:
    archive.fail(r"GET /api/.*/xet-read-token", *[Fault(status=status, body=b"{}")] * 99)
    assert "HF_HUB_DISABLE_XET=1" in fetch(archive)
    assert fetched() == CONTENT


HTML = Fault(
    status=200, headers={"Content-Type": "text/html"}, body=b"<html><h1>Log in to the guest network</h1></html>"
)
LATER = format_datetime(datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=2))


@pytest.mark.parametrize(
    ("pattern", "fault", "expected"),
    [
        (API, HTML, "answered with a web page; check the proxy"),
        (HEAD, HTML, "answered with a web page; check the proxy"),
        (API, Fault(status=403, headers={"X-Error-Message": "No read access"}), "No read access"),
        (API, Fault(status=429, headers={"RateLimit": '"api";r=0;t=4000'}), "4001 s (67 minutes)"),
        (API, Fault(status=429, headers={"Retry-After": "3600"}), "a token has higher limits"),
        (API, Fault(status=429, headers={"Retry-After": LATER}), "minutes)"),
        (API, Fault(status=401, headers={"X-Error-Message": "Invalid credentials in Authorization header"}), "rejects"),
        (API, Fault(status=418, body=b'{"error": "Short and stout"}'), "returned 418 (Short and stout)"),
    ],
    ids=["html", "html-file", "permission", "ratelimit", "retry-after", "retry-date", "token", "unusual"],
)
@OVER_HTTP
def test_reason_is_reported(archive: LocalHub, pattern: str, fault: Fault, expected: str) -> None:
    fault = replace(fault, headers={"x-request-id": "Root=1-abc", **fault.headers})
    archive.fail(pattern, *[fault] * 20)
    start = time.monotonic()
    line = fetch_error(archive, waits=WAITS)
    assert expected in line
    assert "Root=1-abc" not in line
    assert "try again later" not in line
    assert time.monotonic() - start < 20


def test_busy_server(archive: LocalHub) -> None:
    archive.fail(API, *[Fault(status=503, body=b'{"error": "Under maintenance"}')] * 99)
    start = time.monotonic()
    assert "503 (Under maintenance); try again later" in fetch_error(archive, waits=WAITS)
    assert time.monotonic() - start < 20


def test_invalid_token(archive: LocalHub) -> None:
    line = fetch_error(archive, token="hf_secret\u00e9")
    assert "correct HF_TOKEN" in line
    assert "secret" not in line


@pytest.mark.parametrize(
    ("variable", "value"),
    [("HF_ENDPOINT", "huggingface.co"), ("HTTP_PROXY", "ftp://x"), ("ALL_PROXY", "::")],
)
def test_invalid_address_in_environment(archive: LocalHub, variable: str, value: str) -> None:
    assert variable in fetch_error(archive, **{variable: value})


@pytest.mark.parametrize("body", [b"[]", b"3", b'"x"', b"null", b'{"sha": 5}', b'{"siblings": 7}', b"{", b"\xff"])
@OVER_HTTP
def test_unexpected_answer(archive: LocalHub, body: bytes) -> None:
    archive.fail(API, *[Fault(status=200, headers={"Content-Type": "application/json"}, body=body)] * 20)
    assert "dataset marsyas/gtzan" in fetch_error(archive)


def test_short_rate_limit(archive: LocalHub) -> None:
    archive.fail(API, Fault(status=429, headers={"RateLimit": '"api";r=0;t=1', "RateLimit-Policy": "q=500;w=300"}))
    assert "rate limit is reached for the next 2 s; trying again in 2 s" in fetch(archive)
    assert fetched() == CONTENT


@OVER_HTTP
@pytest.mark.parametrize(
    "fault",
    [Fault(status=403, body=b"<Error><Message>Request has expired</Message></Error>"), Fault(cut_after=4000)],
    ids=["expired", "cut"],
)
def test_signed_address_is_renewed(archive: LocalHub, fault: Fault) -> None:
    archive.fail(r"GET /stored/datasets", fault)
    assert archive.signature not in fetch(archive)
    assert fetched() == CONTENT


@OVER_HTTP
def test_signed_address_is_not_shown(archive: LocalHub) -> None:
    archive.fail(r"GET /stored/datasets", *[Fault(status=403)] * 20)
    assert archive.signature not in fetch(archive, check=False)


def test_untrusted_certificate(archive: LocalHub, tmp_path_factory: pytest.TempPathFactory) -> None:
    with untrusted_server(tmp_path_factory.mktemp("tls")) as url:
        line = fetch_error(archive, HF_ENDPOINT=url)
    assert f"the certificate of {url} is not trusted" in line
    assert "SSL_CERT_FILE" in line


@OVER_BOTH
def test_cache_on_full_disk(archive: LocalHub, tmp_path: Path) -> None:
    home = tmp_path / "small"
    with small_disk(home, kilobytes=40):
        line = fetch_error(archive, HF_HOME=str(home))
    for part in (str(home), "free some space", "HF_HOME"):
        assert part in line
