"""The stages against a Hub, by the real clients. Only the Hub itself is a stand-in: tests/local_hub.py."""

import json
import lzma
import re
import subprocess
import sys
import tarfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from conftest import ROOT, dvc, git, set_params
from datasets import ClassLabel, Dataset, Features, Value
from hub_fixtures import (
    DISTILHUBERT,
    GENRES,
    GTZAN,
    OVER_BOTH,
    OVER_HTTP,
    checkpoint,
    distilhubert,
    listed,
    mistake,
    pack,
    replica,
    stage,
    wav,
)
from huggingface_hub import ModelCard
from local_hub import Fault, LocalHub
from transformers import AutoModel

from stages.common.clip_sources import _label_names


@OVER_BOTH
def test_the_archive_is_unpacked_in_its_own_order_and_its_faults_are_named(archive: LocalHub) -> None:
    output = stage(archive, "stages.download", "dataset")
    assert listed() == [f"{genre}.{n:05d}" for genre in ("rock", "jazz", "blues") for n in range(6)]
    assert Path("data/raw/audio/jazz/jazz.00003.wav").read_bytes() == replica()["genres/jazz/jazz.00003.wav"]
    rejected = pd.read_csv("data/raw/rejected.csv")
    assert rejected["reason"].str.startswith("hidden").sum() == 7
    assert rejected["reason"].str.startswith("broken").sum() == 1
    assert "rejected genres/jazz/jazz.00054.wav: broken" in output
    source = json.loads(Path("data/raw/source.json").read_text())
    assert source["revision"] == archive.repository("dataset", GTZAN).resolve("main").sha


def test_a_revision_pins_the_data_set(archive: LocalHub, workspace: Path) -> None:
    first = archive.repository("dataset", GTZAN).resolve("main").sha
    archive.commit("dataset", GTZAN, {"data/genres.tar.gz": pack(replica(number=2))})
    set_params(workspace, {"download.dataset.revision": first})
    stage(archive, "stages.download", "dataset")
    assert len(listed()) == 18
    set_params(workspace, {"download.dataset.revision": "main"})
    stage(archive, "stages.download", "dataset")
    assert len(listed()) == 6
    set_params(workspace, {"download.dataset.revision": "v9"})
    assert "has no revision v9" in mistake(archive, "stages.download", "dataset")


def test_originals_are_counted_and_others_named_but_not_refused(archive: LocalHub, workspace: Path) -> None:
    import hashlib

    clips = {Path(name).stem: content for name, content in replica().items() if "._" not in name}
    table = pd.DataFrame({"clip": list(clips), "md5": [hashlib.md5(content).hexdigest() for content in clips.values()]})
    table.loc[table["clip"] == "rock.00002", "md5"] = "0" * 32
    table.loc[len(table)] = ["rock.00099", "1" * 32]
    table.to_csv("mine.csv", index=False)
    set_params(workspace, {"download.dataset.originals": "mine.csv"})
    output = stage(archive, "stages.download", "dataset")
    assert "18 of the 20 files of mine.csv are here, byte for byte" in output
    assert "not the original: rock.00002.wav" in output


@pytest.mark.parametrize("names_in", ["card", "file"])
def test_parquet_gives_the_same_clips_and_its_class_labels_names(
    hub: LocalHub, workspace: Path, tmp_path: Path, names_in: str
) -> None:
    rows = [(name, content) for name, content in replica().items() if "._" not in name and "00054" not in name]
    audio = [{"bytes": content, "path": Path(name).name} for name, content in rows]
    labels = [GENRES.index(name.split("/")[1]) for name, _ in rows]
    if names_in == "file":
        features = Features({"audio": {"bytes": Value("binary"), "path": Value("string")}})
        features["genre"] = ClassLabel(names=list(GENRES))
        Dataset.from_dict({"audio": audio, "genre": labels}, features=features).to_parquet(tmp_path / "a.parquet")
    else:
        pq.write_table(pa.table({"audio": audio, "genre": labels}), tmp_path / "a.parquet")
    card = {
        "configs": [{"config_name": "all", "data_files": [{"split": "train", "path": "all/*.parquet"}]}],
        "dataset_info": {
            "config_name": "all",
            "features": [
                {"name": "audio", "dtype": "audio"},
                {"name": "genre", "dtype": {"class_label": {"names": dict(enumerate(GENRES))}}},
            ],
        },
    }
    files: dict[str, Any] = {"all/train-00000-of-00001.parquet": tmp_path / "a.parquet"}
    if names_in == "card":
        files["README.md"] = f"---\n{yaml.safe_dump(card)}---\n# GTZAN\n".encode()
    hub.commit("dataset", GTZAN, files)
    source = {"source": "hub", "id": GTZAN, "label_column": "genre", "max_rejected": 0.0}
    set_params(workspace, {"download.dataset": source | ({"config": "all"} if names_in == "card" else {})})
    stage(hub, "stages.download", "dataset")
    assert listed() == [Path(name).stem for name, _ in rows]
    clips = pd.read_csv("data/raw/clips.csv")
    assert (clips["label"] == clips["clip"].str.split(".").str[0]).all()
    assert Path("data/raw/audio/rock/rock.00001.wav").read_bytes() == replica()["genres/rock/rock.00001.wav"]
    assert not list(Path(".home").rglob("*.arrow"))
    set_params(workspace, {"download.dataset.label_column": "label"})
    assert "no column label; it has audio, genre" in mistake(hub, "stages.download", "dataset")


def test_rows_without_a_label_or_audio_are_rejected_by_name(hub: LocalHub, workspace: Path, tmp_path: Path) -> None:
    content = [wav(1.0, 200 + 50 * n) for n in range(8)]
    audio = [{"bytes": own, "path": f"c{n}.wav"} for n, own in enumerate(content)]
    audio[0]["bytes"] = audio[1] = None
    labels = ["a", "a", None, "", "a", "a", "b", "b"]
    table = pa.table({"audio": audio, "genre": labels, "known": [0, 0, -1, -1, 0, 0, 1, 1]})
    pq.write_table(table, tmp_path / "a.parquet")
    hub.commit("dataset", GTZAN, {"train.parquet": tmp_path / "a.parquet"})
    source = {"source": "hub", "id": GTZAN, "label_column": "genre", "max_rejected": 0.5}
    set_params(workspace, {"download.dataset": source})
    stage(hub, "stages.download", "dataset")
    assert listed() == ["c4", "c5", "c6", "c7"]
    rejected = pd.read_csv("data/raw/rejected.csv").set_index("file")["reason"]
    assert rejected["/c2.wav"] == rejected["/c3.wav"] == "no label"
    assert set(rejected.index) == {"a/c0.wav", "a/a.00001.mp3", "/c2.wav", "/c3.wav"}
    set_params(workspace, {"download.dataset.audio_column": "known"})
    assert "column known holds no audio" in mistake(hub, "stages.download", "dataset")
    to_name = _label_names(table.schema, Features({"genre": ClassLabel(names=["a", "b/c"])}), "genre")
    assert [to_name(value) for value in (0, 1, -1, None)] == ["a", "b-c", "", ""]


@OVER_BOTH
@pytest.mark.parametrize("old", [True, False], ids=["pickled", "safetensors"])
def test_distilhubert_comes_whole_from_old_and_new_files(
    hub: LocalHub, workspace: Path, tmp_path: Path, old: bool
) -> None:
    commit = hub.commit("model", DISTILHUBERT, checkpoint(tmp_path / "made", old))
    set_params(workspace, {"download.model": {"source": "hub", "id": DISTILHUBERT}})
    stage(hub, "stages.download", "model")
    files = {file.name for file in Path("models/base").iterdir()}
    weights = "pytorch_model.bin" if old else "model.safetensors"
    assert files == {"config.json", "preprocessor_config.json", "source.json", weights}
    source = json.loads(Path("models/base/source.json").read_text())
    assert (source["revision"], source["licence"]) == (commit, "apache-2.0")
    loaded = AutoModel.from_pretrained("models/base").state_dict()
    for name, tensor in distilhubert().state_dict().items():
        torch.testing.assert_close(loaded[name], tensor, msg=name)


def test_safetensors_are_preferred(hub: LocalHub, workspace: Path, tmp_path: Path) -> None:
    files = checkpoint(tmp_path / "new", old=False)
    hub.commit("model", DISTILHUBERT, files | {"pytorch_model.bin": b"a pickle that nobody opens"})
    set_params(workspace, {"download.model": {"source": "hub", "id": DISTILHUBERT}})
    stage(hub, "stages.download", "model")
    assert not Path("models/base/pytorch_model.bin").exists()
    assert not hub.seen("pytorch_model.bin")


GET = r"GET /(datasets|stored/datasets)/.*genres\.tar\.gz"


@OVER_HTTP
@pytest.mark.parametrize(
    ("pattern", "faults"),
    [
        (GET, [Fault(cut_after=4000)]),
        (GET, [Fault(reset=True)]),
        (GET, [Fault(status=500), Fault(status=503)]),
        (GET, [Fault(status=429, headers={"Retry-After": "1"})]),
        (GET, [Fault(corrupt=True)]),
        (r"GET /api/datasets/marsyas/gtzan", [Fault(status=500), Fault(reset=True)]),
        (r"HEAD .*genres\.tar\.gz", [Fault(reset=True)]),
    ],
    ids=["cut", "reset", "500", "429", "corrupt", "api", "head"],
)
def test_a_passing_fault_is_overcome(archive: LocalHub, pattern: str, faults: list[Fault]) -> None:
    archive.fail(pattern, *faults)
    stage(archive, "stages.download", "dataset")
    assert len(listed()) == 18


@OVER_HTTP
@pytest.mark.parametrize(
    ("faults", "expected"),
    [
        ([Fault(status=500)] * 30, "500"),
        ([Fault(corrupt=True)] * 30, "wrong checksum"),
        ([Fault(status=403)] * 30, "403"),
    ],
    ids=["500", "corrupt", "403"],
)
def test_a_lasting_fault_ends_in_one_line_and_the_next_run_goes_through(
    archive: LocalHub, faults: list[Fault], expected: str
) -> None:
    archive.fail(GET, *faults)
    line = mistake(archive, "stages.download", "dataset")
    assert GTZAN in line
    assert expected in line
    assert not Path("data/raw").exists()
    archive.fail(GET)
    archive._faults.clear()
    stage(archive, "stages.download", "dataset")
    assert len(listed()) == 18


def test_private_and_gated_data_sets_need_a_token_that_may(archive: LocalHub) -> None:
    archive.private.add(GTZAN)
    assert "no such repo, or a private one" in mistake(archive, "stages.download", "dataset")
    archive.private.clear()
    archive.gated.add(GTZAN)
    line = mistake(archive, "stages.download", "dataset", token="hf_bob")
    assert "ask for access" in line
    assert "hf_bob" not in line
    archive.granted.add(("bob", GTZAN))
    stage(archive, "stages.download", "dataset", token="hf_bob")
    assert len(listed()) == 18


def test_an_unknown_repo_or_file_is_named(archive: LocalHub, workspace: Path) -> None:
    set_params(workspace, {"download.dataset.archive": "data/other.tar.gz"})
    assert "no file data/other.tar.gz" in mistake(archive, "stages.download", "dataset")
    set_params(workspace, {"download.dataset.id": "marsyas/gtsan"})
    assert "marsyas/gtsan: no such repo" in mistake(archive, "stages.download", "dataset")


@OVER_BOTH
def test_offline_the_cache_serves_and_without_one_the_way_out_is_named(archive: LocalHub) -> None:
    line = mistake(archive, "stages.download", "dataset", HF_HUB_OFFLINE="1")
    assert "HF_HUB_OFFLINE is set" in line
    stage(archive, "stages.download", "dataset")
    first = Path("data/raw/source.json").read_bytes()
    archive.close()
    stage(archive, "stages.download", "dataset", HF_HUB_OFFLINE="1")
    assert Path("data/raw/source.json").read_bytes() == first
    assert len(listed()) == 18


def test_with_the_network_away_one_line_names_repo_folder_and_demo(archive: LocalHub) -> None:
    archive.close()
    line = mistake(archive, "stages.download", "dataset")
    for part in (GTZAN, "presets/folder.yaml", "presets/demo.yaml"):
        assert part in line


def evil(name: str, **fields: Any) -> bytes:
    packed = BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        member = tarfile.TarInfo(name)
        for field, value in fields.items():
            setattr(member, field, value)
        tar.addfile(member, BytesIO(b"x" * member.size))
    return packed.getvalue()


def crowd() -> bytes:
    packed = BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for number in range(300):
            tar.addfile(tarfile.TarInfo(f"genres/rock/{number}.wav"))
    return packed.getvalue()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (lambda: evil("../evil.wav"), "'../evil.wav' points out"),
        (lambda: evil("genres/../../evil.wav"), "'genres/../../evil.wav' points out"),
        (lambda: evil("/etc/evil.wav"), "'/etc/evil.wav' points out"),
        (lambda: evil("genres/rock/a.wav", type=tarfile.SYMTYPE, linkname="/etc/passwd"), "is a link or device"),
        (lambda: evil("genres/rock/a.wav", type=tarfile.LNKTYPE, linkname="b.wav"), "is a link or device"),
        (lambda: evil("genres/rock/a.wav", type=tarfile.CHRTYPE), "is a link or device"),
        (lambda: evil("genres/rock/a.wav", type=tarfile.FIFOTYPE), "is a link or device"),
        (crowd, "more than 200 members"),
        (lambda: evil("genres/rock/a.wav", size=3_000_000), "unpacks to more than 0.002 GB at 'genres/rock/a.wav'"),
        (lambda: pack(replica())[:20_000], "broken archive"),
        (lambda: b"no archive at all", "broken archive"),
        (lambda: lzma.compress(pack(replica()))[:2000], "broken archive"),
    ],
)
def test_an_archive_that_means_harm_is_refused_by_name(
    archive: LocalHub, workspace: Path, content: Callable[[], bytes], expected: str
) -> None:
    archive.commit("dataset", GTZAN, {"data/genres.tar.gz": content()})
    set_params(workspace, {"download.dataset.max_files": 200, "download.dataset.max_gigabytes": 0.002})
    assert expected in mistake(archive, "stages.download", "dataset")
    assert not list(workspace.parent.rglob("evil*"))
    assert not Path("data/raw").exists()


def commits(hub: LocalHub, repo: str) -> list[str]:
    home = Path.cwd() / ".home"
    code = (
        f"from huggingface_hub import HfApi; print(*(c.title for c in HfApi().list_repo_commits({repo!r})), sep='\\n')"
    )
    done = subprocess.run([sys.executable, "-c", code], env=hub.env(home, "hf_ann"), text=True, capture_output=True)
    return done.stdout.splitlines()


@OVER_BOTH
def test_pushing_makes_one_commit_and_again_none(publishing: LocalHub) -> None:
    output = stage(publishing, "stages.publish", token="hf_ann")
    assert f"{publishing.url}/ann/hubert-demo" in output
    assert "hf_ann" not in output
    first = commits(publishing, "ann/hubert-demo")
    commit = git(Path.cwd(), "rev-parse", "--short=7", "HEAD").strip()
    assert re.fullmatch(rf"Publish git commit {commit}\+?, test accuracy 0\.\d{{3}}", first[0])
    assert len(first) == 2
    stage(publishing, "stages.publish", token="hf_ann")
    assert commits(publishing, "ann/hubert-demo") == first
    repo = publishing.repository("model", "ann/hubert-demo")
    assert [tag for tag in repo.refs["tags"] if tag.startswith(f"git-{commit}")]
    held = set(repo.resolve("main").tree) - {".gitattributes"}
    here = {str(file.relative_to("models/published")) for file in Path("models/published").rglob("*") if file.is_file()}
    assert held == here
    assert "ann/hubert-demo" in publishing.private


@OVER_BOTH
def test_a_stale_file_goes_with_the_next_push(publishing: LocalHub) -> None:
    publishing.commit("model", "ann/hubert-demo", {"old.bin": b"old"})
    stage(publishing, "stages.publish", token="hf_ann")
    assert "old.bin" not in publishing.repository("model", "ann/hubert-demo").resolve("main").tree


def test_what_cannot_be_pushed_is_said_before_any_work(publishing: LocalHub, copied: Path) -> None:
    set_params(copied, {"publish.min_accuracy": 1.0})
    assert "publish.min_accuracy: 1.0 is more than" in mistake(publishing, "stages.publish", token="hf_ann")
    set_params(copied, {"publish.min_accuracy": None})
    line = mistake(publishing, "stages.publish")
    assert "hf auth login" in line
    assert "HF_TOKEN" in line
    assert "the Hub rejects HF_TOKEN" in mistake(publishing, "stages.publish", token="hf_unknown")
    assert "403" in mistake(publishing, "stages.publish", token="hf_reader")
    set_params(copied, {"publish.name": "somebody/else"})
    assert "somebody/else" in mistake(publishing, "stages.publish", token="hf_ann")
    assert not publishing.repository("model", "ann/hubert-demo").exists


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
)
def test_a_passing_fault_of_a_push_is_overcome(publishing: LocalHub, pattern: str, fault: Fault) -> None:
    publishing.fail(pattern, fault)
    stage(publishing, "stages.publish", token="hf_ann")
    assert publishing.seen(pattern)
    assert len(commits(publishing, "ann/hubert-demo")) == 2


USE = """
import json, sys
from transformers import pipeline
from stages.common import audio
classify = pipeline("audio-classification", model=sys.argv[1], top_k=None)
answers = {clip: classify(audio.load(file, 16_000)) for clip, file in json.loads(sys.argv[2]).items()}
print(json.dumps(answers))
"""


def test_the_course_from_the_hub_to_the_hub(hub: LocalHub, workspace: Path, tmp_path: Path) -> None:
    hub.commit("dataset", GTZAN, {"data/genres.tar.gz": pack(replica())})
    hub.commit("model", DISTILHUBERT, checkpoint(tmp_path / "made", old=True))
    params = yaml.safe_load((ROOT / "presets/course.yaml").read_text())
    params["download"]["dataset"]["max_rejected"] = 0.1
    params["train"] |= {"precision": "fp32", "epochs": 2, "threads": 2}
    params["split"]["test"] = 0.2
    params["publish"] |= {"push": True}
    (workspace / "params.yaml").write_text(yaml.safe_dump(params))
    git(workspace, "commit", "-qam", "Use the course's preset")
    env = hub.env(workspace / ".home", "hf_ann")
    output = dvc(workspace, "repro", env=env)
    assert "0 of the 1000 files of gtzan_md5.csv" in output
    repo = "ann/distilhubert-finetuned-gtzan"
    assert f"{hub.url}/{repo}" in output
    for file in (workspace / "dvc.lock", workspace / "models/published/README.md"):
        assert "hf_ann" not in file.read_text()
    card = ModelCard.load(workspace / "models/published/README.md")
    [accuracy, _] = card.data.eval_results
    assert (accuracy.dataset_type, accuracy.dataset_name, accuracy.dataset_config) == (GTZAN, "GTZAN", "all")
    assert (accuracy.task_type, accuracy.metric_type) == ("audio-classification", "accuracy")
    assert card.data.base_model == DISTILHUBERT
    assert card.data.datasets == [GTZAN]
    assert "generated_from_trainer" in card.data.tags
    assert "optimistic" in card.text
    assert json.loads(Path("metrics/metrics.json").read_text())["selected_on"] == "test"
    table = pd.read_csv("metrics/predictions.csv").set_index("clip")
    files = {clip: f"data/raw/audio/{label}/{clip}.wav" for clip, label in table["label"].items()}
    done = subprocess.run(
        [sys.executable, "-c", USE, repo, json.dumps(files)], env=env, text=True, capture_output=True, check=True
    )
    for clip, answer in json.loads(done.stdout.splitlines()[-1]).items():
        for item in answer:
            np.testing.assert_allclose(item["score"], table.loc[clip, item["label"]], atol=2e-3)


def test_the_parquet_branch_that_the_hub_makes(hub: LocalHub, workspace: Path, tmp_path: Path) -> None:
    rows = [(name, content) for name, content in replica().items() if "._" not in name and "00054" not in name]
    audio = [{"bytes": content, "path": Path(name).name} for name, content in rows]
    features = Features({"audio": {"bytes": Value("binary"), "path": Value("string")}})
    features["genre"] = ClassLabel(names=list(GENRES))
    labels = [GENRES.index(name.split("/")[1]) for name, _ in rows]
    Dataset.from_dict({"audio": audio, "genre": labels}, features=features).to_parquet(tmp_path / "a.parquet")
    hub.commit("dataset", GTZAN, {"README.md": b"# GTZAN\n"})
    hub.commit("dataset", GTZAN, {"all/train/0000.parquet": tmp_path / "a.parquet"}, branch="refs/convert/parquet")
    source = {"source": "hub", "id": GTZAN, "revision": "refs/convert/parquet", "config": None, "label_column": "genre"}
    set_params(workspace, {"download.dataset": source | {"max_rejected": 0.0}})
    stage(hub, "stages.download", "dataset")
    assert sorted(listed()) == [f"{genre}.{n:05d}" for genre in GENRES for n in range(6)]
    assert json.loads(Path("data/raw/source.json").read_text())["split"] == "train"
