"""The local Hub with the real Hugging Face clients, each in a new process."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fakes.fork_server import run_python
from fakes.hub.server import Fault, LocalHub

pytestmark = pytest.mark.slow

MIB = 1 << 20
PRELUDE = """
import json, os, threading, time
from pathlib import Path
from huggingface_hub import HfApi, hf_hub_download, snapshot_download
api, result = HfApi(), {}
home, folder, revision = (Path(os.environ["HF_HOME"]), Path(os.environ["FOLDER"]), os.environ["REVISION"])

def attempt(name, call, *args, **kwargs):
    try:
        result[name] = str(call(*args, **kwargs))
    except Exception as error:
        status = getattr(getattr(error, "response", None), "status_code", "")
        result[name] = f"{type(error).__name__} {status}".strip()

def content(*args, **kwargs):
    return Path(hf_hub_download(*args, **kwargs)).read_text()

def load(name, **options):
    from transformers import AutoConfig, AutoModel
    result[name] = AutoConfig.from_pretrained(name, **options).model_type
    model = AutoModel.from_pretrained(name, **options)
    for thread in threading.enumerate():
        if "conversion" in thread.name:
            thread.join()
    return float(sum(weights.abs().sum() for weights in model.parameters()))
"""
README = """\
---
license: cc-by-4.0
tags:
- audio
- music
configs:
- config_name: small
  data_files:
  - split: train
    path: data/train-*.parquet
dataset_info:
  config_name: small
  features:
  - name: audio
    dtype: audio
  - name: genre
    dtype:
      class_label:
        names:
          '0': blues
          '1': rock
---
# Tracks
"""


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[LocalHub]:
    with LocalHub(tmp_path / "hub") as hub:
        hub.tokens |= {"hf_ann": "ann", "hf_bob": "bob", "hf_read": "ann"}
        hub.read_only_tokens.add("hf_read")
        yield hub


def run(hub: LocalHub, home: Path, code: str, token: str | None = None, **settings: str) -> dict[str, Any]:
    """Run client code in a new process and return the ``result`` it leaves."""
    quiet = {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "FOLDER": "", "REVISION": ""}
    program = f"{PRELUDE}\n{code}\nprint(json.dumps(result))"
    status, output = run_python("-c", program, env=hub.env(home, token) | quiet | settings)
    assert status == 0, output
    found: dict[str, Any] = json.loads(output.splitlines()[-1])
    return found


def write_folder(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def read_folder(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


PUSH = """
push = dict(repo_id="ann/model", folder_path=folder)
attempt("user", lambda: api.whoami()["name"])
attempt("created", api.create_repo, "ann/model", private=True)
attempt("created again", api.create_repo, "ann/model")
attempt("created at need", api.create_repo, "ann/model", exist_ok=True)
first = api.upload_folder(**push).oid
attempt("nothing new", lambda: api.upload_folder(**push).oid == first)
api.create_tag("ann/model", tag="v1")
attempt("tagged again", api.create_tag, "ann/model", tag="v1")
attempt("tagged at need", api.create_tag, "ann/model", tag="v1", exist_ok=True)
(folder / "config.json").write_text("new")
(folder / "empty.txt").unlink()
second = api.upload_folder(**push, delete_patterns="*", parent_commit=first).oid
file = dict(path_or_fileobj=b"x", path_in_repo="x", repo_id="ann/model")
attempt("outdated", api.upload_file, **file, parent_commit=first)
attempt("no branch", api.upload_file, **file, revision="none")
api.create_branch("ann/model", branch="old", revision="v1")
attempt("branches", lambda: {ref.name: ref.target_commit for ref in api.list_repo_refs("ann/model").branches})
result["commits"] = [first, second]
"""


def test_push(hub: LocalHub, tmp_path: Path) -> None:
    files = {
        "model.safetensors": os.urandom(12 * MIB),
        "config.json": b"old",
        "empty.txt": b"",
        "a/b c.txt": b"c",
    }
    folder = write_folder(tmp_path / "folder", {**files, "README.md": b"---\nlicense: mit\n---\nHello"})
    found = run(hub, tmp_path / "home", PUSH, "hf_ann", FOLDER=str(folder))
    first, second = found.pop("commits")
    assert found == {
        "user": "ann",
        "created": f"{hub.url}/ann/model",
        "created again": "HfHubHTTPError 409",
        "created at need": f"{hub.url}/ann/model",
        "nothing new": "True",
        "tagged again": "HfHubHTTPError 409",
        "tagged at need": "None",
        "outdated": "HfHubHTTPError 412",
        "no branch": "RevisionNotFoundError 404",
        "branches": str({"main": second, "old": first}),
    }
    repo, puts = hub.repository("model", "ann/model"), hub.seen("PUT")
    assert [commit.sha for commit in repo.history(second)][:2] == [second, first]
    assert set(repo.resolve("v1").tree) == {".gitattributes", "README.md", *files}
    assert set(repo.resolve("main").tree) == {".gitattributes", *read_folder(folder)}
    assert [path for path, blob in repo.resolve("main").tree.items() if blob.lfs] == ["model.safetensors"]
    assert "ann/model" in hub.private
    assert ["authorization" in put.headers for put in puts] == [False]


PULL = """
result["now"] = snapshot_download("ann/model")
result["then"] = snapshot_download("ann/model", revision="v1")
names = ("main", "v1", "old", revision)
result["config"] = [content("ann/model", "config.json", revision=name) for name in names]
result["files"] = api.list_repo_files("ann/model")
info = api.model_info("ann/model", files_metadata=True)
result["info"] = [info.sha, info.private, info.card_data.license, info.tags]
result["lfs"] = [file.rfilename for file in info.siblings if file.lfs]
verified = api.verify_repo_checksums("ann/model")
result["verified"] = [verified.checked_count, len(verified.mismatches)]
"""


def test_pull(hub: LocalHub, tmp_path: Path) -> None:
    readme = b"---\nlicense: mit\ntags:\n- audio\n---\nHello"
    old = {"model.bin": os.urandom(12 * MIB), "config.json": b"old", "empty.txt": b"", "a/b c.txt": b"c"}
    new = {"model.bin": old["model.bin"], "config.json": b"new", "README.md": readme, "a/b c.txt": b"c"}
    before = hub.commit("model", "ann/model", old)
    repo = hub.repository("model", "ann/model")
    repo.set_ref("tags", "v1", before)
    repo.set_ref("heads", "old", before)
    after = hub.commit("model", "ann/model", {"empty.txt": None, **new}, message="Change")
    found = run(hub, tmp_path / "home", PULL, REVISION=before)
    then, now = read_folder(Path(found["then"])), read_folder(Path(found["now"]))
    attributes = {".gitattributes": then[".gitattributes"]}
    assert (then, now) == (old | attributes, new | attributes)
    assert (Path(found["then"]).name, Path(found["now"]).name) == (before, after)
    assert found["config"] == ["new", "old", "old", "old"]
    assert found["files"] == sorted(now)
    assert found["info"] == [after, False, "mit", ["audio"]]
    assert found["lfs"] == ["model.bin"]
    assert found["verified"] == [5, 0]
    assert all("authorization" not in request.headers for request in hub.seen("GET /stored/"))


LISTINGS = """
result["files"] = api.list_repo_files("ann/pages", repo_type="dataset")
result["commits"] = [c.title for c in api.list_repo_commits("ann/pages", repo_type="dataset")]
tree = api.list_repo_tree("ann/pages", "data", repo_type="dataset", expand=True)
result["changed"] = {file.path: file.last_commit.title for file in tree}
infos = api.get_paths_info("ann/pages", ["data", "data/4.txt", "nowhere"], repo_type="dataset")
result["infos"] = {info.path: type(info).__name__ for info in infos}
attempt("nowhere", lambda: list(api.list_repo_tree("ann/pages", "nowhere", repo_type="dataset")))
"""


def test_listings_in_pages(hub: LocalHub, tmp_path: Path) -> None:
    files: dict[str, bytes | Path | None] = {f"data/{n}.txt": b"%d" % n for n in range(5)}
    sha = hub.commit("dataset", "ann/pages", files, message="Add")
    with LocalHub(tmp_path / "other") as other:
        assert other.commit("dataset", "ann/pages", files, message="Add") == sha
    hub.commit("dataset", "ann/pages", {"data/0.txt": None, "data/1.txt": b"new"}, message="Change")
    hub.page_size = 2
    assert run(hub, tmp_path / "home", LISTINGS) == {
        "files": [".gitattributes", *(f"data/{n}.txt" for n in (1, 2, 3, 4))],
        "commits": ["Change", "Add", "initial commit"],
        "changed": {f"data/{n}.txt": "Change" if n == 1 else "Add" for n in (1, 2, 3, 4)},
        "infos": {"data": "RepoFolder", "data/4.txt": "RepoFile"},
        "nowhere": "RemoteEntryNotFoundError 404",
    }
    assert len(hub.seen("cursor=")) == 4


def fetch(url: str, **headers: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, b""


def test_signed_links(hub: LocalHub) -> None:
    hub.commit("model", "ann/m", {"a.txt": b"0123456789", "a.bin": b"binary"})
    url = f"{hub.url}/ann/m/resolve/main/a.txt"
    assert fetch(url) == (200, b"0123456789")
    parts = [fetch(url, Range=f"bytes={part}") for part in ("2-4", "7-", "-3", "8-99")]
    assert parts == [(206, b"234"), (206, b"789"), (206, b"789"), (206, b"89")]
    assert fetch(url, Range="bytes=10-")[0] == 416
    assert fetch(f"{hub.url}/ann/m/resolve/main/a.bin") == (200, b"binary")
    assert fetch(hub.storage_url + hub.requests[-1].path.split("?")[0])[0] == 403
    assert fetch(f"{hub.url}/api/spaces")[0] == 501


def parquet(first: int, count: int) -> bytes:
    rows = range(first, first + count)
    audio = pa.array(
        [{"bytes": b"%06d" % n + os.urandom(20_000), "path": f"{n}.wav"} for n in rows],
        pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
    )
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"audio": audio, "genre": pa.array([n % 2 for n in rows])}), sink, row_group_size=4)
    return bytes(sink.getvalue())


DATA_SET = """
import pyarrow.parquet as pq
from datasets import Audio, load_dataset, load_dataset_builder
from huggingface_hub import DatasetCard

named, audio = dict(path="ann/tracks", name="small", revision=revision), Audio(decode=False)
stream = load_dataset(**named, split="train", streaming=True).cast_column("audio", audio)
result["streamed"] = [row["audio"]["path"] for row in stream]
paths = [name for name in api.list_repo_files("ann/tracks", repo_type="dataset") if "/train-" in name]
files = [hf_hub_download("ann/tracks", name, repo_type="dataset", revision=revision) for name in paths]
result["direct"] = [track["path"] for file in files for track in pq.read_table(file)["audio"].to_pylist()]
result["copied before"] = sum(file.stat().st_size for file in home.rglob("*.arrow"))
rows = load_dataset(**named, split="train").cast_column("audio", audio)
result["loaded"] = [track["path"] for track in rows["audio"]]
result["copied"] = sum(file.stat().st_size for file in home.rglob("*.arrow"))
result["first"] = rows[0]["audio"]["bytes"][:6].decode()
card = DatasetCard(content("ann/tracks", "README.md", repo_type="dataset")).data
result["genres"] = [
    rows.features["genre"].names,
    load_dataset_builder(**named).info.features["genre"].names,
    list(card.dataset_info["features"][1]["dtype"]["class_label"]["names"].values()),
]
attempt("revision", load_dataset, "ann/tracks", "small", revision="none")
attempt("missing", load_dataset, "ann/none")
"""


def test_data_set(hub: LocalHub, tmp_path: Path) -> None:
    shards = {f"data/train-0000{n}-of-00002.parquet": parquet(10 * n, 10) for n in range(2)}
    sha = hub.commit("dataset", "ann/tracks", {"README.md": README.encode(), **shards})
    found = run(hub, tmp_path / "home", DATA_SET, REVISION=sha)
    assert found["streamed"] == found["direct"] == found["loaded"] == [f"{n}.wav" for n in range(20)]
    assert found["first"] == "000000"
    assert found["genres"] == [["blues", "rock"]] * 3
    assert found["copied before"] == 0
    assert found["copied"] > 20 * 20_000
    assert found["revision"] == found["missing"] == "DatasetNotFoundError"


MODELS = """
import torch
from transformers import ASTConfig, ASTModel
tiny = dict(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
model = ASTModel(ASTConfig(**tiny, num_mel_bins=16, max_length=16))
model.save_pretrained(folder / "safe")
model.config.save_pretrained(folder / "pickled")
torch.save(model.state_dict(), folder / "pickled" / "pytorch_model.bin")
for name in ("safe", "pickled"):
    api.create_repo("ann/" + name)
    api.upload_folder(repo_id="ann/" + name, folder_path=folder / name)
result["made"] = float(sum(weights.abs().sum() for weights in model.parameters()))
result["loaded"] = [load("ann/safe"), load("ann/pickled")]
os.environ["DISABLE_SAFETENSORS_CONVERSION"] = "1"
result["loaded"].append(load("ann/pickled", cache_dir=folder / "cache"))
"""


@pytest.mark.rare
def test_models(hub: LocalHub, tmp_path: Path) -> None:
    online = run(hub, tmp_path / "home", MODELS, "hf_ann", FOLDER=str(tmp_path / "models"))
    assert online["loaded"] == pytest.approx([online["made"]] * 3)
    assert online["ann/safe"] == online["ann/pickled"] == "audio-spectrogram-transformer"
    asked = [request.path.split("?")[0] for request in hub.seen("GET .*/discussions")]
    assert asked == ["/api/models/ann/pickled/discussions"]
    hub.requests.clear()
    code = 'result["loaded"] = [load("ann/safe"), load("ann/pickled")]'
    offline = run(hub, tmp_path / "home", code, HF_HUB_OFFLINE="1")
    assert offline["loaded"] == online["loaded"][:2]
    assert not hub.requests


READ = """
for name in ("open", "private", "gated", "missing"):
    attempt(name, content, "ann/" + name, "a.txt")
attempt("entry", content, "ann/open", "b.txt")
attempt("revision", content, "ann/open", "a.txt", revision="none")
attempt("info", lambda: api.model_info("ann/gated").gated)
"""


def test_access(hub: LocalHub, tmp_path: Path) -> None:
    for name in ("open", "private", "gated"):
        hub.commit("model", f"ann/{name}", {"a.txt": name.encode()})
    hub.private.add("ann/private")
    hub.gated.add("ann/gated")

    def read(token: str) -> list[str]:
        return list(run(hub, tmp_path / f"home {token}", READ, token or None).values())

    missing = ["RemoteEntryNotFoundError 404", "RevisionNotFoundError 404", "auto"]
    nothing, unknown, gate = "RepositoryNotFoundError 401", "RepositoryNotFoundError 404", "GatedRepoError"
    assert read("") == ["open", nothing, f"{gate} 401", nothing, *missing]
    assert read("hf_ann") == ["open", "private", "gated", unknown, *missing]
    assert read("hf_bob") == ["open", unknown, f"{gate} 403", unknown, *missing]
    assert set(read("hf_wrong")) == {"HfHubHTTPError 401"}
    hub.granted |= {("bob", "ann/private"), ("bob", "ann/gated")}
    assert read("hf_bob") == ["open", "private", "gated", unknown, *missing]


WRITE = """
attempt("create", api.create_repo, "ann/new")
attempt("upload", api.upload_file, path_or_fileobj=b"x", path_in_repo="x.txt", repo_id="ann/model")
attempt("tag", api.create_tag, "ann/model", tag="v1")
"""


@pytest.mark.parametrize(("token", "status"), [("", 401), ("hf_bob", 403), ("hf_read", 403)])
def test_writing_without_permission(hub: LocalHub, tmp_path: Path, token: str, status: int) -> None:
    before = hub.commit("model", "ann/model", {"a.txt": b"a"})
    found = run(hub, tmp_path / "home", WRITE, token or None)
    assert set(found.values()) == {f"HfHubHTTPError {status}"}
    assert hub.repository("model", "ann/model").refs == {"heads": {"main": before}, "tags": {}}
    assert not hub.repository("model", "ann/new").exists


DOWNLOADS = """
result["cut"] = hf_hub_download("ann/m", "cut.bin")
for name in ("reset", "dropped", "failing", "failing", "flipped", "refused"):
    key = name + " again" * (name in result)
    attempt(key, lambda: Path(hf_hub_download("ann/m", name + ".bin")).stat().st_size)
start = time.monotonic()
attempt("busy", content, "ann/m", "busy.bin")
result["waited"] = time.monotonic() - start
result["wrong"] = [file["path"] for file in api.verify_repo_checksums("ann/m").mismatches]
result["left"] = [path.name for path in home.rglob("*.incomplete")]
"""


def test_faults_of_downloads(hub: LocalHub, tmp_path: Path) -> None:
    names = ("reset", "dropped", "failing", "busy", "flipped", "refused")
    big = os.urandom(12 * MIB)
    hub.commit("model", "ann/m", {"cut.bin": big, **{f"{name}.bin": name.encode() for name in names}})
    hub.fail("GET .*/cut.bin", Fault(cut_after=11 * MIB))
    hub.fail("GET .*/reset.bin", Fault(cut_after=2, reset=True))
    hub.fail("HEAD .*/dropped.bin", Fault(cut_after=0))
    hub.fail("HEAD .*/failing.bin", Fault(status=500), Fault(status=503))
    hub.fail("GET .*/failing.bin", Fault(status=500))
    hub.fail("GET .*/busy.bin", Fault(status=429, headers={"Retry-After": "1"}))
    hub.fail("GET .*/flipped.bin", Fault(corrupt=True))
    hub.fail("HEAD .*/refused.bin", Fault(status=403))
    found = run(hub, tmp_path / "home", DOWNLOADS)
    assert Path(found.pop("cut")).read_bytes() == big
    ranges = [request.headers.get("range") for request in hub.seen("GET .*/cut.bin")]
    assert ranges == [None, "bytes=10485760-"]
    assert found.pop("waited") >= 1
    assert found == {
        "reset": "ReadError",
        "dropped": "RemoteProtocolError",
        "failing": "HfHubHTTPError 500",
        "failing again": "7",
        "busy": "busy",
        "flipped": "7",
        "refused": "LocalEntryNotFoundError",
        "wrong": ["flipped.bin"],
        "left": [],
    }
    assert len(hub.seen("HEAD .*/failing.bin")) == 4


UPLOADS = """
for name in ("m409", "m412", "m429", "m500", "lost"):
    api.create_repo("ann/" + name)
    attempt(name, api.upload_folder, repo_id="ann/" + name, folder_path=folder)
before = api.model_info("ann/lost").sha
attempt("lost again", lambda: api.upload_folder(repo_id="ann/lost", folder_path=folder).oid == before)
"""


def test_faults_of_uploads(hub: LocalHub, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "folder", {"a.bin": os.urandom(1000), "b.txt": b"b"})
    for status in (409, 412, 429, 500):
        hub.fail(f"POST .*/m{status}/commit", Fault(status=status, headers={"Retry-After": "1"}))
    hub.fail("POST .*/preupload", Fault(status=429, headers={"Retry-After": "0"}))
    hub.fail("PUT /lfs/", Fault(status=500), Fault(cut_after=0))
    hub.fail("POST .*/lost/commit", Fault(cut_after=0))
    assert run(hub, tmp_path / "home", UPLOADS, "hf_ann", FOLDER=str(folder)) == {
        **{f"m{status}": f"HfHubHTTPError {status}" for status in (409, 412, 429, 500)},
        "lost": "RemoteProtocolError",
        "lost again": "True",
    }
    assert len(list(hub.repository("model", "ann/lost").history("main"))) == 2
    assert len(hub.seen("PUT /lfs/")) == 3


CACHED = """
attempt("file", content, "ann/m", "a.txt")
attempt("commit", content, "ann/m", "a.txt", revision=revision)
attempt("snapshot", lambda: Path(snapshot_download("ann/m")).name)
attempt("missing", snapshot_download, "ann/none")
attempt("revision", snapshot_download, "ann/m", revision="v1")
attempt("info", api.model_info, "ann/m")
"""


def test_without_network(hub: LocalHub, tmp_path: Path) -> None:
    sha, home = hub.commit("model", "ann/m", {"a.txt": b"a", "b.txt": b"b"}), tmp_path / "home"
    run(hub, home, 'snapshot_download("ann/m")')
    hub.requests.clear()
    expected = {"file": "a", "commit": "a", "snapshot": sha}
    expected |= {"missing": "LocalEntryNotFoundError", "revision": "LocalEntryNotFoundError"}
    offline = run(hub, home, CACHED, REVISION=sha, HF_HUB_OFFLINE="1")
    assert offline == expected | {"info": "OfflineModeIsEnabled"}
    assert not hub.requests
    hub.close()
    assert run(hub, home, CACHED, REVISION=sha) == expected | {"info": "ConnectError"}
