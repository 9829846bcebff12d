"""Faults of the Hub and the network during a push: hub.py continues, or ends with one line that helps."""

import time

import pytest
from fakes.hub.server import Fault, LocalHub
from fakes.small_hub import (
    OVER_HTTP,
    commit_titles,
    push,
    push_error,
)
from fakes.untrusted_server import UNTRUSTED, assert_falls_back_once, unusable_xet_store

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("fault", "env"), [pytest.param("refused", {}, marks=pytest.mark.rare), UNTRUSTED], ids=["refused", "untrusted"]
)
def test_push_without_xet_store(
    pushing: LocalHub, fault: str, env: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    start = time.monotonic()
    with unusable_xet_store(pushing, fault, tmp_path_factory.mktemp("tls")):
        output = push(pushing, **env)
    assert time.monotonic() - start < 60
    assert "model.safetensors" in pushing.repository("model", "ann/model").resolve("main").tree
    assert_falls_back_once(output)


def test_push_without_network(pushing: LocalHub) -> None:
    line = push_error(pushing, HF_HUB_OFFLINE="1")
    assert "unset HF_HUB_OFFLINE, or set publish.push: false" in line
    pushing.close()
    line = push_error(pushing)
    assert "check the network and run dvc repro again, or set publish.push: false" in line


@OVER_HTTP
@pytest.mark.parametrize(
    ("pattern", "fault"),
    [
        (r"POST /api/repos/create", Fault(status=500)),
        (r"POST /api/models/.*/commit/", Fault(status=503)),
        (r"POST /api/models/.*/preupload/", Fault(status=429, headers={"Retry-After": "1"})),
        (r"POST .*/info/lfs/objects/batch", Fault(status=500)),
        (r"POST /api/models/.*/tag/", Fault(reset=True)),
    ],
    ids=["create", "commit", "preupload", "batch", "tag"],
)
def test_passing_fault_of_push(pushing: LocalHub, pattern: str, fault: Fault) -> None:
    pushing.fail(pattern, fault)
    push(pushing)
    assert pushing.seen(pattern)
    assert len(commit_titles(pushing, "ann/model")) == 2


@pytest.mark.parametrize(
    ("pattern", "fault", "expected"),
    [
        (
            r"POST /api/validate-yaml",
            Fault(status=400, body=b'{"errors": [{"message": "line 7: bad indent"}]}'),
            "line 7",
        ),
        (r"POST /api/models/.*/commit/", Fault(status=403, body=b'{"error": "Storage is full"}'), "Storage is full"),
        (r"PUT /lfs/", Fault(status=403, body=b'{"error": "Quota exceeded"}'), "Quota exceeded"),
        (r"PUT /lfs/", Fault(status=429, headers={"Retry-After": "3600"}), "rate limit"),
        (r"POST /api/repos/create", Fault(status=403, body=b'{"error": "Needs repo.write"}'), "Needs repo.write"),
    ],
    ids=["metadata", "storage", "upload", "upload-limit", "permission"],
)
@OVER_HTTP
def test_reason_of_refused_push(pushing: LocalHub, pattern: str, fault: Fault, expected: str) -> None:
    pushing.fail(pattern, *[fault] * 9)
    line = push_error(pushing)
    assert expected in line
    assert "try again later" not in line
