"""A Hub with GTZAN and DistilHuBERT in small, and the stages as processes that know this Hub alone."""

import gzip
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import soundfile
import torch
from conftest import set_params, tone
from local_hub import LocalHub
from transformers import HubertConfig, HubertModel, Wav2Vec2FeatureExtractor

GENRES = ("blues", "jazz", "rock")
GTZAN, DISTILHUBERT = "marsyas/gtzan", "ntu-spml/distilhubert"


def wav(seconds: float, hz: float) -> bytes:
    file = BytesIO()
    soundfile.write(file, tone(seconds, hz=hz), 22_050, format="WAV")
    return file.getvalue()


def replica(number: int = 6) -> dict[str, bytes]:
    """GTZAN's archive in small, in an order that is no sorted one, with what is wrong with it."""
    clips = {
        f"genres/{genre}/{genre}.{n:05d}.wav": wav(1.0, 200 + 300 * i + 20 * n)
        for i, genre in reversed(list(enumerate(GENRES)))
        for n in range(number)
    }
    clips["genres/jazz/jazz.00054.wav"] = b"\0" * 3000
    hidden = {name.replace(".wav", "").replace("/jazz.", "/._jazz.") + ".wav": b"\0\5\26\7" for name in clips}
    return clips | {name: content for name, content in hidden.items() if "/._" in name}


def pack(files: dict[str, bytes]) -> bytes:
    packed = BytesIO()
    # Without the time of packing, so that two archives of the same files are equal.
    with gzip.GzipFile(fileobj=packed, mode="wb", mtime=0) as zipped, tarfile.open(fileobj=zipped, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, BytesIO(content))
    return packed.getvalue()


def distilhubert() -> HubertModel:
    """DistilHuBERT's architecture with its widths divided."""
    torch.manual_seed(0)
    widths = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 16, "conv_dim": (8,) * 7}
    convolution = {"num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2}
    return HubertModel(HubertConfig(num_hidden_layers=2, apply_spec_augment=False, **widths, **convolution))


def checkpoint(folder: Path, old: bool) -> dict[str, bytes]:
    """The files of a model repo; old as the real one has them: pickled, with the first names of weight norm."""
    distilhubert().save_pretrained(folder)
    Wav2Vec2FeatureExtractor(do_normalize=False, return_attention_mask=False).save_pretrained(folder)
    if old:
        names = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
        state = distilhubert().state_dict()
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
    """A Hub with a Xet store, as the real one has, unless OVER_BOTH or OVER_HTTP say otherwise."""
    with LocalHub(tmp_path_factory.mktemp("hub"), xet=getattr(request, "param", True)) as hub:
        hub.tokens |= {"hf_ann": "ann", "hf_bob": "bob", "hf_reader": "ann"}
        hub.read_only_tokens.add("hf_reader")
        yield hub


@pytest.fixture
def archive(hub: LocalHub, workspace: Path) -> LocalHub:
    """A Hub with the replica, and a workspace that names it."""
    hub.commit("dataset", GTZAN, {"data/genres.tar.gz": pack(replica())})
    source = {"source": "hub", "id": GTZAN, "archive": "data/genres.tar.gz", "max_rejected": 0.2}
    set_params(workspace, {"download.dataset": source})
    return hub


def stage(hub: LocalHub, *arguments: str, token: str | None = None, check: bool = True, **env: str) -> str:
    """Run a stage in the current workspace as a process that knows this Hub alone; its output, both streams."""
    home = Path.cwd() / ".home"
    known = hub.env(home, token) | {"HF_HUB_DISABLE_PROGRESS_BARS": "1"} | env
    command = [sys.executable, "-m", *arguments]
    done = subprocess.run(command, env=known, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert (done.returncode == 0) == check, done.stdout
    return done.stdout


def mistake(hub: LocalHub, *arguments: str, **options: Any) -> str:
    """The one line with which a stage ends; nothing half-written is left."""
    output = stage(hub, *arguments, check=False, **options)
    assert "Traceback" not in output
    [line] = [line for line in output.splitlines() if line.startswith("error: ")]
    assert not list(Path.cwd().glob("*/*.partial"))
    return line


def listed() -> list[str]:
    return pd.read_csv("data/raw/clips.csv")["clip"].tolist()


@pytest.fixture
def publishing(copied: Path, hub: LocalHub) -> LocalHub:
    """All but publish is done."""
    set_params(copied, {"publish.push": True})
    return hub
