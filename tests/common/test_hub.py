"""Tests with the real clients. Only the Hub itself is a stand-in: tests/fakes/hub."""

import re
from pathlib import Path

import pytest
from fakes.hub.server import LocalHub
from fakes.small_hub import (
    ARCHIVE,
    CONTENT,
    GTZAN,
    OVER_BOTH,
    commit_titles,
    fetch,
    fetch_error,
    fetched,
    push,
    push_error,
)

pytestmark = pytest.mark.slow


@OVER_BOTH
def test_fetch_returns_folder_with_commit(archive: LocalHub) -> None:
    folder, commit = fetch(archive).split()
    assert Path(folder, ARCHIVE).read_bytes() == CONTENT
    assert commit == archive.repository("dataset", GTZAN).resolve("main").sha


def test_fetch_revision(archive: LocalHub) -> None:
    first = archive.repository("dataset", GTZAN).resolve("main").sha
    archive.commit("dataset", GTZAN, {ARCHIVE: b"second"})
    folder, commit = fetch(archive, revision=first).split()
    assert (Path(folder, ARCHIVE).read_bytes(), commit) == (CONTENT, first)
    folder, _ = fetch(archive, revision="main").split()
    assert Path(folder, ARCHIVE).read_bytes() == b"second"
    assert "has no revision v9" in fetch_error(archive, revision="v9")


def test_private_repo(archive: LocalHub) -> None:
    archive.private.add(GTZAN)
    assert "no such repo, or a private one" in fetch_error(archive)


def test_gated_repo(archive: LocalHub) -> None:
    archive.gated.add(GTZAN)
    line = fetch_error(archive, token="hf_bob")
    assert "ask for access" in line
    assert "hf_bob" not in line
    archive.granted.add(("bob", GTZAN))
    fetch(archive, token="hf_bob")
    assert fetched() == CONTENT


def test_unknown_file(archive: LocalHub) -> None:
    assert "no file data/other.tar.gz" in fetch_error(archive, pattern="data/other.tar.gz")


def test_unknown_repo(archive: LocalHub) -> None:
    assert "marsyas/gtsan: no such repo" in fetch_error(archive, "marsyas/gtsan")


@OVER_BOTH
def test_offline_without_cache(archive: LocalHub) -> None:
    assert "HF_HUB_OFFLINE is set" in fetch_error(archive, HF_HUB_OFFLINE="1")
    assert not archive.requests


@OVER_BOTH
def test_offline_with_cache(archive: LocalHub) -> None:
    output = fetch(archive)
    archive.close()
    assert fetch(archive, HF_HUB_OFFLINE="1") == output
    assert fetched() == CONTENT


def test_no_network(archive: LocalHub) -> None:
    archive.close()
    line = fetch_error(archive)
    for part in (GTZAN, "presets/folder.yaml", "presets/demo.yaml"):
        assert part in line


@OVER_BOTH
def test_push_makes_one_commit(pushing: LocalHub) -> None:
    output = push(pushing)
    assert f"{pushing.url}/ann/model" in output
    assert "hf_ann" not in output
    titles = commit_titles(pushing, "ann/model")
    assert titles == ["Publish", "initial commit"]
    repo = pushing.repository("model", "ann/model")
    commit = repo.resolve("main")
    assert set(commit.tree) == {".gitattributes", "README.md", "model.safetensors", "runs/events"}
    assert repo.refs["tags"] == {f"git-123-{commit.sha[:7]}": commit.sha}
    assert "ann/model" in pushing.private
    push(pushing)
    assert commit_titles(pushing, "ann/model") == titles


@OVER_BOTH
def test_push_removes_stale_files(pushing: LocalHub) -> None:
    pushing.commit("model", "ann/model", {"old.bin": b"old"})
    push(pushing)
    assert "old.bin" not in pushing.repository("model", "ann/model").resolve("main").tree


def test_push_without_token(pushing: LocalHub) -> None:
    line = push_error(pushing, token=None)
    assert "hf auth login" in line
    assert "HF_TOKEN" in line
    assert re.match(r"error: params\.yaml: publish\.push: ", line)


@pytest.mark.parametrize(
    ("name", "token", "expected"),
    [
        ("model", "hf_unknown", "the Hub rejects HF_TOKEN"),
        ("model", "hf_reader", "403"),
        ("somebody/else", "hf_ann", "somebody/else"),
    ],
    ids=["unknown", "read-only", "other-owner"],
)
def test_push_with_wrong_token(pushing: LocalHub, name: str, token: str, expected: str) -> None:
    assert expected in push_error(pushing, name, token=token)
    assert not pushing.repository("model", "ann/model").exists
