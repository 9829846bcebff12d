"""A Hub with small versions of GTZAN and DistilHuBERT, and processes that know only this Hub."""

import gzip
import json
import tarfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
import soundfile
import yaml
from helpers import ROOT, set_params, tone

from fakes.fork_server import run_python
from fakes.hub.server import LocalHub

if TYPE_CHECKING:  # these imports take seconds, and few tests need them
    from transformers import HubertModel

GENRES = ("blues", "jazz", "rock")
GTZAN, DISTILHUBERT = "marsyas/gtzan", "ntu-spml/distilhubert"
ARCHIVE = "data/genres.tar.gz"


def wav(seconds: float, hz: float) -> bytes:
    """Return a WAV file with a tone."""
    file = BytesIO()
    soundfile.write(file, tone(seconds, hz=hz), 22_050, format="WAV")
    return file.getvalue()


def small_gtzan(number: int = 6) -> dict[str, bytes]:
    """Return the files of GTZAN's archive, unsorted, with a broken clip and hidden files. number: clips per genre."""
    clips = {
        f"genres/{genre}/{genre}.{n:05d}.wav": wav(1.0, 200 + 300 * i + 20 * n)
        for i, genre in reversed(list(enumerate(GENRES)))
        for n in range(number)
    }
    clips["genres/jazz/jazz.00054.wav"] = b"\0" * 3000
    hidden = {name.replace(".wav", "").replace("/jazz.", "/._jazz.") + ".wav": b"\0\5\26\7" for name in clips}
    return clips | {name: content for name, content in hidden.items() if "/._" in name}


def usable_clips() -> list[tuple[str, bytes]]:
    """Return path and content of the clips of `small_gtzan` that can be decoded."""
    return [(name, content) for name, content in small_gtzan().items() if "._" not in name and "00054" not in name]


def pack(files: dict[str, bytes]) -> bytes:
    """Return a tar.gz file."""
    packed = BytesIO()
    # Without the time of packing, so that two archives of the same files are equal.
    with gzip.GzipFile(fileobj=packed, mode="wb", mtime=0) as zipped, tarfile.open(fileobj=zipped, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, BytesIO(content))
    return packed.getvalue()


def write_parquet(file: Path, with_names: bool) -> Path:
    """Write the clips as a Parquet file. with_names: of the labels, not only their numbers."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from datasets import ClassLabel, Dataset, Features, Value

    file.parent.mkdir(parents=True, exist_ok=True)
    audio = [{"bytes": content, "path": Path(name).name} for name, content in usable_clips()]
    labels = [GENRES.index(name.split("/")[1]) for name, _ in usable_clips()]
    if with_names:
        features = Features({"audio": {"bytes": Value("binary"), "path": Value("string")}})
        features["genre"] = ClassLabel(names=list(GENRES))
        Dataset.from_dict({"audio": audio, "genre": labels}, features=features).to_parquet(file)
    else:
        pq.write_table(pa.table({"audio": audio, "genre": labels}), file)
    return file


def dataset_card() -> bytes:
    """Return the README.md of a data set with a configuration, which states the names of the labels."""
    class_label = {"class_label": {"names": dict(enumerate(GENRES))}}
    features = [{"name": "audio", "dtype": "audio"}, {"name": "genre", "dtype": class_label}]
    card = {
        "configs": [{"config_name": "all", "data_files": [{"split": "train", "path": "all/*.parquet"}]}],
        "dataset_info": {"config_name": "all", "features": features},
    }
    return f"---\n{yaml.safe_dump(card)}---\n# GTZAN\n".encode()


def small_distilhubert() -> "HubertModel":
    """Make DistilHuBERT with smaller widths."""
    import torch
    from transformers import HubertConfig, HubertModel

    torch.manual_seed(0)
    widths = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 16, "conv_dim": (8,) * 7}
    convolution = {"num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2}
    return HubertModel(HubertConfig(num_hidden_layers=2, apply_spec_augment=False, **widths, **convolution))


def checkpoint(folder: Path, old: bool) -> dict[str, bytes]:
    """Return the files of a model repo. old: pickled, with the earlier names of weight norm, as the real one has."""
    import torch
    from transformers import Wav2Vec2FeatureExtractor

    small_distilhubert().save_pretrained(folder)
    Wav2Vec2FeatureExtractor(do_normalize=False, return_attention_mask=False).save_pretrained(folder)
    if old:
        names = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
        state = small_distilhubert().state_dict()
        for new, first in names.items():
            state = {name.replace(new, first): tensor for name, tensor in state.items()}
        torch.save(state, folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
    card = {"README.md": b"---\nlicense: apache-2.0\n---\n# DistilHuBERT\n", "training_args.bin": b"not needed"}
    return {file.name: file.read_bytes() for file in folder.iterdir()} | card


OVER_BOTH = pytest.mark.parametrize("hub", [True, False], ids=["xet", "http"], indirect=True)
OVER_HTTP = pytest.mark.parametrize("hub", [False], ids=["http"], indirect=True)


@pytest.fixture
def hub(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[LocalHub]:
    """A Hub with a Xet store, as the real one has, unless OVER_BOTH or OVER_HTTP say differently."""
    with LocalHub(tmp_path_factory.mktemp("hub"), xet=getattr(request, "param", True)) as hub:
        hub.tokens |= {"hf_ann": "ann", "hf_bob": "bob", "hf_reader": "ann"}
        hub.read_only_tokens.add("hf_reader")
        yield hub


@pytest.fixture
def gtzan(hub: LocalHub, workspace: Path) -> LocalHub:
    """A Hub with GTZAN's archive, and a workspace that names it."""
    hub.commit("dataset", GTZAN, {ARCHIVE: pack(small_gtzan())})
    source = {"source": "hub", "id": GTZAN, "archive": ARCHIVE, "max_rejected": 0.2}
    set_params(workspace, {"download.dataset": source})
    return hub


def stage(hub: LocalHub, *arguments: str, check: bool = True, **options: Any) -> str:
    """Run a stage in the current workspace, and return its output."""
    return _run(hub, ["-m", *arguments], check, **options)


def stage_error(hub: LocalHub, *arguments: str, **options: Any) -> str:
    """Run a stage that fails, and return its error message. Check that no partial output remains."""
    line = _find_error(stage(hub, *arguments, check=False, **options))
    assert not list(Path.cwd().glob("*/.*.partial"))
    return line


def listed_clips() -> list[str]:
    return pd.read_csv("data/raw/clips.csv")["clip"].tolist()


# What the tests of stages.common.hub download: as an archive, but of random bytes.
CONTENT = np.random.default_rng(0).bytes(100_000)
SHORT_WAITS = (0.1, 0.1, 0.1)
FETCH = """
import json, sys
from stages.common import hub
from stages.common.stage import run_command
waits, repo, revision, pattern = sys.argv[1:]
hub.WAITS = json.loads(waits)
run_command(lambda: print(*hub.fetch_files("dataset", repo, revision, [pattern])))
"""
PUSH = """
import json, sys
from pathlib import Path
from stages.common import hub
from stages.common.stage import run_command
waits, name = sys.argv[1:]
hub.WAITS = json.loads(waits)

def push():
    repo = name if "/" in name else f"{hub.token_owner(name)}/{name}"
    print(hub.push_folder(Path("model"), repo, private=True, message="Publish", tag="git-123"))

run_command(push)
"""


@pytest.fixture
def archive(hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalHub:
    """A Hub with a file to fetch; the test runs in an empty folder."""
    monkeypatch.chdir(tmp_path)
    hub.commit("dataset", GTZAN, {ARCHIVE: CONTENT})
    return hub


@pytest.fixture
def pushing(hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalHub:
    """A Hub, and the folder `model` to push to it."""
    monkeypatch.chdir(tmp_path)
    Path("model/runs").mkdir(parents=True)
    Path("model/model.safetensors").write_bytes(CONTENT)
    Path("model/README.md").write_text("---\nlicense: mit\n---\n# A model\n")
    Path("model/runs/events").write_bytes(CONTENT[:1000])
    return hub


def fetch(
    hub: LocalHub,
    repo: str = GTZAN,
    revision: str = "main",
    pattern: str = ARCHIVE,
    waits: tuple[float, ...] = SHORT_WAITS,
    check: bool = True,
    **options: Any,
) -> str:
    """Call `hub.fetch_files` in a new process, and return what it prints. waits: seconds before further tries."""
    arguments = [json.dumps(waits), repo, revision, pattern]
    return _run(hub, ["-c", FETCH, *arguments], check, **options)


def fetch_error(hub: LocalHub, *arguments: str, **options: Any) -> str:
    """Call `hub.fetch_files`, which fails, and return the error message."""
    return _find_error(fetch(hub, *arguments, check=False, **options))


def fetched() -> bytes:
    """Return the content of the file that was fetched, from each revision in the cache the same."""
    [content] = {file.read_bytes() for file in Path(".home/hub").glob(f"datasets--*/snapshots/*/{ARCHIVE}")}
    return content


def push(hub: LocalHub, name: str = "model", check: bool = True, token: str | None = "hf_ann", **options: Any) -> str:
    """Call `hub.token_owner` and `hub.push_folder` in a new process, and return what they print."""
    return _run(hub, ["-c", PUSH, json.dumps(SHORT_WAITS), name], check, token, **options)


def push_error(hub: LocalHub, *arguments: str, **options: Any) -> str:
    """Call the same, which fail, and return the error message."""
    return _find_error(push(hub, *arguments, check=False, **options))


def commit_titles(hub: LocalHub, repo: str) -> list[str]:
    """Return the titles of the commits of a model repo, latest first."""
    return [commit.message for commit in hub.repository("model", repo).history("main")]


def _run(hub: LocalHub, arguments: list[str], check: bool, token: str | None = None, **env: str) -> str:
    """Run Python as a process that knows only this Hub, and return its output, both streams."""
    known = hub.env(Path.cwd() / ".home", token) | {"HF_HUB_DISABLE_PROGRESS_BARS": "1"} | env
    known["PYTHONPATH"] = str(ROOT)  # after the current folder: a workspace has a copy of the stages
    status, output = run_python(*arguments, env=known)
    assert (status == 0) == check, output
    return output


def _find_error(output: str) -> str:
    """Return the error message of a process, which is one line."""
    assert "Traceback" not in output
    [line] = [line for line in output.splitlines() if line.startswith("error: ")]
    return line
