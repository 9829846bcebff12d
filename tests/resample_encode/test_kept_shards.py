"""Encodings that are killed and go on from their complete shards."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import digests, make_workspace, set_params, user_error, write_clips
from resample_encode.test_resample_encode import WAVEFORM
from train.test_checkpoints import start
from transformers import HubertConfig

from stages.common.params import load_params
from stages.common.paths import BASE, ENCODED, RAW
from stages.download.__main__ import download_dataset
from stages.resample_encode.__main__ import main
from stages.resample_encode.encoder import Encoder
from stages.resample_encode.kept_shards import describe_run
from stages.resample_encode.params import ResampleEncodeParams

KEPT = Path(".dvc/tmp/encoded")
CLIPS = 600  # three shards
# Kills its process when a function is called the nth time.
KILL = """
import itertools, os, signal
from stages.resample_encode import encoder, kept_shards
original, calls = {function}, itertools.count(1)
def count(*args):
    if next(calls) == {call}:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(*args)
{function} = count
from stages.resample_encode.__main__ import main
main()
"""
ENCODE, HASH = "encoder.Encoder.encode", "kept_shards._hash"


def kill(function: str, call: int) -> list[str]:
    """Run the stage until a function is called the nth time; return the shards that it leaves, also half ones."""
    with start("-c", KILL.format(function=function, call=call)) as stage:
        errors = stage.communicate()[1]
    assert stage.returncode
    assert "Traceback" not in errors
    return sorted(file.name[:10] for file in KEPT.rglob("*.arrow"))


@pytest.fixture
def expected(make_once: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The digests of an encoding that was not interrupted, whose output has been removed as DVC does it."""

    def make(folder: Path) -> None:
        clips = write_clips(make_workspace(folder) / "clips", number=CLIPS // 2, seconds=0.1)
        (clips / "b/b.00299.wav").unlink()  # so that no number of clips is even
        set_params(folder, {"download.dataset": {"source": "folder", "path": "clips", "max_rejected": 0}})
        set_params(folder, {"resample_encode.workers": 2})
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            download_dataset()
            WAVEFORM.save_pretrained(BASE)
            HubertConfig().save_pretrained(BASE)
            main()
            assert not list(KEPT.iterdir())

    encoded = make_once("encoded", make)
    shutil.copytree(encoded, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    shutil.rmtree(ENCODED)
    return digests(encoded / ENCODED)


@pytest.mark.slow
def test_killed_encoding_gives_same_bytes(
    expected: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the first and second shard, and between the two files of the second and of the third."""
    assert kill(ENCODE, 100) == ["data-00000"]
    assert kill(ENCODE, 400) == ["data-00000", "data-00001"]
    # The first call is that for the first shard, which is complete.
    assert kill(HASH, 2) == ["data-00000", "data-00001"]
    assert kill(HASH, 3) == ["data-00000", "data-00001", "data-00002"]
    assert not ENCODED.exists()
    encoded, original = [], Encoder.encode
    monkeypatch.setattr(Encoder, "encode", lambda self, row: encoded.append(row.clip) or original(self, row))
    main()
    output = capsys.readouterr().out
    assert "goes on from 512 of 599 clips, from the shards in " in output
    assert ": 2 clips (a.00271, b.00263); remove them" in output  # one is in a complete shard
    assert len(encoded) == 599 - 512 + 1  # the first describes the shape of all
    assert digests(ENCODED) == expected
    assert not list(KEPT.iterdir())


@pytest.mark.slow
def test_changed_or_damaged_inputs_of_shards(expected: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    kill(HASH, 2)
    shard = next(KEPT.glob("*/data-00000*.arrow"))
    set_params(Path(), {"resample_encode.max_seconds": 0.05})
    main()
    output = capsys.readouterr().out
    assert "not used: the shards of an encoding with another resample_encode.max_seconds (30, now 0.05)" in output
    assert digests(ENCODED) != expected
    assert list(KEPT.glob("*/")) == [shard.parent]

    set_params(Path(), {"resample_encode.max_seconds": 30, "resample_encode.workers": 1})
    clip = RAW / "audio/a/a.00005.wav"
    content = clip.read_bytes()
    clip.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert user_error(main).file == str(clip)

    clip.write_bytes(content)
    damaged = bytearray(shard.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    shard.write_bytes(damaged)
    main()
    assert "goes on" not in capsys.readouterr().out
    assert digests(ENCODED) == expected
    assert not list(KEPT.iterdir())


def test_precision_of_the_device_decides(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With auto, another machine may compute the cached part in bf16."""
    set_params(workspace, {"resample_encode.cache": "base", "resample_encode.precision": "auto"})
    params = load_params("resample_encode", ResampleEncodeParams)
    runs = []
    for found in (True, False):
        monkeypatch.setattr("stages.common.device.has_bf16", lambda found=found: found)
        runs.append(describe_run(params, None))
    assert runs[0]
    assert runs[0] != runs[1]
