"""What the Hub, its storage and the network can do to a stage: it goes on, or ends in one line that helps."""

import datetime
import json
import os
import shutil
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx2
import pytest
from conftest import set_params
from hub_fixtures import GTZAN, OVER_BOTH, OVER_HTTP, listed, mistake, pack, replica, stage
from huggingface_hub.errors import HfHubHTTPError
from local_hub import Fault, LocalHub

from stages.common import base_models, hub_errors
from stages.common.stage import StageError

API = r"GET /api/datasets/marsyas/gtzan"
GET = r"GET /(datasets|stored/datasets)/.*genres\.tar\.gz"


def flip_bit(file: Path) -> None:
    file.chmod(0o644)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def shared_store() -> list[Path]:
    """The files that huggingface_hub keeps once for all repos."""
    return [file for file in Path(".home/hub/blobs").glob("*/*") if len(file.name) == 64]


def archives() -> list[Path]:
    return sorted(Path(".home/hub").glob("datasets--*/snapshots/*/data/genres.tar.gz"))


def test_a_flipped_bit_in_the_shared_store_is_downloaded_again(archive: LocalHub, workspace: Path) -> None:
    stage(archive, "stages.download", "dataset")
    [stored] = shared_store()
    assert archives()[0].resolve() == stored.resolve()
    archive.commit("dataset", "ann/copy", {"data/genres.tar.gz": pack(replica())})
    set_params(workspace, {"download.dataset.id": "ann/copy"})
    stage(archive, "stages.download", "dataset")
    assert [file.resolve() for file in archives()] == [stored.resolve()] * 2
    flip_bit(stored)
    output = stage(archive, "stages.download", "dataset")
    assert "genres.tar.gz has a wrong checksum; trying again" in output
    assert len(listed()) == 18
    assert [file.read_bytes() for file in archives()] == [pack(replica())] * 2


@OVER_BOTH
def test_offline_no_file_is_removed_from_the_cache(archive: LocalHub) -> None:
    stage(archive, "stages.download", "dataset")
    archive.close()
    stage(archive, "stages.download", "dataset", HF_HUB_OFFLINE="1")
    [file] = archives()
    assert file.read_bytes() == pack(replica())
    flip_bit(file.resolve())
    assert "unset HF_HUB_OFFLINE to download it again" in mistake(
        archive, "stages.download", "dataset", HF_HUB_OFFLINE="1"
    )
    assert file.is_file()


@contextmanager
def distrusted(folder: Path) -> Iterator[str]:
    """An address with a certificate that nobody signed."""
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


@pytest.mark.parametrize("how", ["refused", "distrusted"])
@pytest.mark.parametrize("direction", ["download", "push"])
def test_without_the_xet_store_files_go_over_plain_http(
    how: str, direction: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> None:
    hub: LocalHub = request.getfixturevalue("archive" if direction == "download" else "publishing")
    start = time.monotonic()
    with distrusted(tmp_path_factory.mktemp("tls")) as url:
        hub.xet.url = url if how == "distrusted" else "http://127.0.0.1:9"
        if direction == "download":
            output = stage(hub, "stages.download", "dataset")
            assert len(listed()) == 18
        else:
            output = stage(hub, "stages.publish", token="hf_ann")
            assert "model.safetensors" in hub.repository("model", "ann/hubert-demo").resolve("main").tree
    assert time.monotonic() - start < 60
    [line] = [line for line in output.splitlines() if "HF_HUB_DISABLE_XET=1" in line]
    assert "the Xet storage cannot be used" in line
    if direction == "download":
        assert not shared_store()


@pytest.mark.parametrize("status", [200, 403, 404, 500])
def test_without_a_xet_token_files_go_over_plain_http(archive: LocalHub, status: int) -> None:
    archive.fail(r"GET /api/.*/xet-read-token", *[Fault(status=status, body=b"{}")] * 99)
    assert "HF_HUB_DISABLE_XET=1" in stage(archive, "stages.download", "dataset")
    assert len(listed()) == 18


HTML = Fault(
    status=200, headers={"Content-Type": "text/html"}, body=b"<html><h1>Log in to the guest network</h1></html>"
)
LATER = format_datetime(datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=2))


@pytest.mark.parametrize(
    ("pattern", "fault", "expected"),
    [
        (API, HTML, "answered with a web page; check the proxy"),
        (r"HEAD .*genres\.tar\.gz", HTML, "answered with a web page; check the proxy"),
        (
            API,
            Fault(status=403, headers={"X-Error-Message": "The token lacks read access"}),
            "The token lacks read access",
        ),
        (API, Fault(status=429, headers={"RateLimit": '"api";r=0;t=4000'}), "4001 s (67 minutes)"),
        (API, Fault(status=429, headers={"Retry-After": "3600"}), "a token has higher limits"),
        (API, Fault(status=429, headers={"Retry-After": LATER}), "minutes)"),
        (API, Fault(status=401, headers={"X-Error-Message": "Invalid credentials in Authorization header"}), "rejects"),
        (API, Fault(status=418, body=b'{"error": "Short and stout"}'), "answered 418 (Short and stout)"),
    ],
    ids=["html", "html-file", "permission", "ratelimit", "retry-after", "retry-date", "token", "odd"],
)
@OVER_HTTP
def test_the_server_s_reason_is_in_the_line(archive: LocalHub, pattern: str, fault: Fault, expected: str) -> None:
    fault = Fault(status=fault.status, headers={"x-request-id": "Root=1-abc", **fault.headers}, body=fault.body)
    archive.fail(pattern, *[fault] * 20)
    start = time.monotonic()
    line = mistake(archive, "stages.download", "dataset")
    assert expected in line
    assert "Root=1-abc" not in line
    assert "try again later" not in line
    assert time.monotonic() - start < 20


def test_a_server_that_stays_busy_is_given_up_within_seconds(archive: LocalHub) -> None:
    archive.fail(API, *[Fault(status=503, body=b'{"error": "Under maintenance"}')] * 99)
    start = time.monotonic()
    assert "503 (Under maintenance); try again later" in mistake(archive, "stages.download", "dataset")
    assert time.monotonic() - start < 20


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
def test_the_stated_time_to_wait_is_bounded(status: int, headers: dict[str, str], seconds: int) -> None:
    response = httpx2.Response(status, headers=headers, request=httpx2.Request("GET", "https://huggingface.co/api"))
    with pytest.raises(hub_errors.RateLimitError) as found:
        hub_errors.check_response(response)
    assert found.value.seconds == seconds


@pytest.mark.parametrize("value", ["\u00b2", "soon", "-1", "Thu, 99 Jan 99999 00:00:00 GMT"])
def test_an_unusable_time_to_wait_is_ignored(value: str) -> None:
    request = httpx2.Request("GET", "https://huggingface.co/api")
    response = httpx2.Response(503, headers={"Retry-After": value.encode()}, request=request, json={})
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
def test_secrets_are_removed(text: str) -> None:
    hidden = hub_errors.hide_secrets(text)
    assert "S3CRET" not in hidden
    assert hidden.split()[-1] == text.split()[-1] or "***" in hidden


def test_a_broken_token_is_reported_and_not_shown(archive: LocalHub) -> None:
    line = mistake(archive, "stages.download", "dataset", token="hf_secret\u00e9")
    assert "correct HF_TOKEN" in line
    assert "secret" not in line


@pytest.mark.parametrize(
    ("variable", "value"),
    [("HF_ENDPOINT", "huggingface.co"), ("HTTP_PROXY", "ftp://x"), ("ALL_PROXY", "::")],
)
def test_an_address_that_is_none_is_named_with_its_variable(archive: LocalHub, variable: str, value: str) -> None:
    assert variable in mistake(archive, "stages.download", "dataset", **{variable: value})


@pytest.mark.parametrize("body", [b"[]", b"3", b'"x"', b"null", b'{"sha": 5}', b'{"siblings": 7}', b"{", b"\xff"])
@OVER_HTTP
def test_an_answer_of_another_shape_is_reported(archive: LocalHub, body: bytes) -> None:
    archive.fail(API, *[Fault(status=200, headers={"Content-Type": "application/json"}, body=body)] * 20)
    assert "dataset marsyas/gtzan" in mistake(archive, "stages.download", "dataset")


def test_a_short_rate_limit_is_waited_for(archive: LocalHub) -> None:
    archive.fail(API, Fault(status=429, headers={"RateLimit": '"api";r=0;t=2', "RateLimit-Policy": "q=500;w=300"}))
    output = stage(archive, "stages.download", "dataset")
    assert "rate limit is reached for the next 3 s; trying again in 3 s" in output
    assert len(listed()) == 18


@OVER_HTTP
@pytest.mark.parametrize(
    "faults",
    [[Fault(status=403, body=b"<Error><Message>Request has expired</Message></Error>")], [Fault(cut_after=4000)]],
    ids=["expired", "cut"],
)
def test_a_signed_address_is_renewed_and_never_shown(archive: LocalHub, faults: list[Fault]) -> None:
    archive.fail(r"GET /stored/datasets", *faults)
    output = stage(archive, "stages.download", "dataset")
    assert len(listed()) == 18
    assert archive.signature not in output
    archive.fail(r"GET /stored/datasets", *[Fault(status=403)] * 20)
    shutil.rmtree(".home")
    assert archive.signature not in stage(archive, "stages.download", "dataset", check=False)


def test_a_pasted_address_is_an_id(archive: LocalHub, workspace: Path) -> None:
    set_params(workspace, {"download.dataset.id": f" https://huggingface.co/datasets/{GTZAN}/tree/main/data"})
    stage(archive, "stages.download", "dataset")
    assert json.loads(Path("data/raw/source.json").read_text())["id"] == GTZAN
    set_params(workspace, {"download.dataset.id": "  "})
    assert "params.yaml: download.dataset.id: '' has no id of a repo" in mistake(archive, "stages.download", "dataset")


def test_an_unreachable_hub_gets_advice_for_a_push(publishing: LocalHub) -> None:
    line = mistake(publishing, "stages.publish", token="hf_ann", HF_HUB_OFFLINE="1")
    assert "unset HF_HUB_OFFLINE, or set publish.push: false" in line
    publishing.close()
    line = mistake(publishing, "stages.publish", token="hf_ann")
    assert "check the network and run dvc repro again, or set publish.push: false" in line


@pytest.mark.parametrize(
    ("pattern", "fault", "expected"),
    [
        (
            r"POST /api/validate-yaml",
            Fault(status=400, body=b'{"errors": [{"message": "line 7: bad indent"}]}'),
            "line 7",
        ),
        (
            r"POST /api/models/.*/commit/",
            Fault(status=403, body=b'{"error": "Private storage is full"}'),
            "storage is full",
        ),
        (r"PUT /lfs/", Fault(status=403, body=b'{"error": "Quota exceeded"}'), "Quota exceeded"),
        (r"PUT /lfs/", Fault(status=429, headers={"Retry-After": "3600"}), "rate limit"),
        (r"POST /api/repos/create", Fault(status=403, body=b'{"error": "Needs repo.write"}'), "Needs repo.write"),
    ],
    ids=["metadata", "storage", "upload", "upload-limit", "permission"],
)
@OVER_HTTP
def test_the_reason_of_a_refused_push_is_in_the_line(
    publishing: LocalHub, pattern: str, fault: Fault, expected: str
) -> None:
    publishing.fail(pattern, *[fault] * 9)
    line = mistake(publishing, "stages.publish", token="hf_ann")
    assert expected in line
    assert "try again later" not in line


def test_a_certificate_that_is_not_trusted_is_named(
    archive: LocalHub, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with distrusted(tmp_path_factory.mktemp("tls")) as url:
        line = mistake(archive, "stages.download", "dataset", HF_ENDPOINT=url)
    assert f"the certificate of {url} is not trusted" in line
    assert "SSL_CERT_FILE" in line


@contextmanager
def small_disk(folder: Path, kilobytes: int) -> Iterator[None]:
    folder.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root can make a small disk")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@OVER_BOTH
def test_a_cache_on_a_full_disk_is_named(archive: LocalHub, workspace: Path) -> None:
    home = workspace / "small"
    with small_disk(home, kilobytes=40):
        line = mistake(archive, "stages.download", "dataset", HF_HOME=str(home))
    for part in (str(home), "free some space", "HF_HOME"):
        assert part in line


def test_a_full_disk_of_the_project_is_named(archive: LocalHub, workspace: Path) -> None:
    with small_disk(workspace / "data", kilobytes=400):
        line = mistake(archive, "stages.download", "dataset")
    assert line.endswith(": the disk is full; free some space, then run dvc repro again")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("---\nlicense: mit\n---\n", "mit"),
        ("---\nlicense: [mit, cc0-1.0]\n---\n", ["mit", "cc0-1.0"]),
        ("---\nlicense: {name: mit}\n---\n", "unknown"),
        ("---\nlicense: 3\n---\n", "unknown"),
        ("---\n- a list\n---\n", "unknown"),
        ("---\nlicense: [\n---\n", "unknown"),
        ("---\n'\x07'\n---\n", "unknown"),
        ("no front matter", "unknown"),
    ],
)
def test_a_licence_is_read_from_any_card(tmp_path: Path, text: str, expected: str | list[str]) -> None:
    (tmp_path / "README.md").write_text(text)
    assert base_models.read_licence(tmp_path / "README.md") == expected


@pytest.mark.parametrize("content", [[], 3, "x", {"model_type": 5}, {"model_type": "hubert", "hidden_size": "wide"}])
def test_a_config_of_another_shape_is_one_line(tmp_path: Path, content: object) -> None:
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(StageError, match=r"config\.json cannot be read"):
        base_models.check(tmp_path)
