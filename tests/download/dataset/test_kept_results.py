"""Downloads that are killed and go on from the results of their checks."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import digests, set_params, user_error, write_clips
from train.test_checkpoints import start

from stages.common import audio
from stages.common.paths import RAW
from stages.download.__main__ import download_dataset
from stages.download.dataset import clips as clip_files
from stages.download.dataset import repetitions
from stages.download.dataset.kept_results import CHECK, FILE, KeptResults

KEPT = Path(".dvc/tmp/checked")
CLIPS = 40
# Kills its process when a function is called the nth time; before, it writes some bytes to a file.
KILL = """
import itertools, os, signal
from pathlib import Path
from stages.download.dataset import clips, folder_clips, kept_results, repetitions
original, calls = {function}, itertools.count(1)
def count(first, *args):
    if next(calls) == {call}:
        if {half}:
            half = first.read_bytes()[:1000]
            args[0].write_bytes(half)
        os.kill(os.getpid(), signal.SIGKILL)
    return original(first, *args)
{function} = count
from stages.download.__main__ import download_dataset
download_dataset()
"""
COPY, MEASURE, ANALYSE = "folder_clips.copy_clip", "clips.measure_clip", "repetitions.pack_fingerprint"


def kill(function: str, call: int, half: bool = False) -> None:
    """Run the stage until a function is called the nth time. half: leave the half of the clip that it copies."""
    with start("-c", KILL.format(function=function, call=call, half=half)) as stage:
        errors = stage.communicate()[1]
    assert stage.returncode
    assert "Traceback" not in errors


def count_kept() -> int:
    return sum(file.read_bytes().count(b"\n") for file in KEPT.rglob(FILE))


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> Callable[[], tuple[int, int]]:
    """A function that returns how many clips were checked and analysed since its last call."""
    checked, analysed = list[Path](), list[Path]()
    measure, analyse = clip_files.measure_clip, repetitions.pack_fingerprint
    monkeypatch.setattr(clip_files, "measure_clip", lambda file: checked.append(file) or measure(file))
    monkeypatch.setattr(repetitions, "pack_fingerprint", lambda file: analysed.append(file) or analyse(file))

    def take() -> tuple[int, int]:
        found = len(checked), len(analysed)
        checked.clear()
        analysed.clear()
        return found

    return take


@pytest.fixture
def clips(workspace: Path) -> Path:
    """A folder of CLIPS clips, which params.yaml names, with one that repeats another and one that is broken."""
    clips = write_clips(workspace / "clips", number=CLIPS // 2, seconds=0.3)
    (clips / "b/b.00003.wav").write_bytes((clips / "b/b.00002.wav").read_bytes() + bytes(100))  # of the same samples
    (clips / "a/broken.wav").write_bytes(b"RIFF")
    set_params(workspace, {"download.dataset": {"source": "folder", "path": "clips", "max_rejected": 0.1}})
    return clips


@pytest.fixture
def expected(clips: Path) -> dict[str, str]:
    """The digests of a download that was not interrupted."""
    download_dataset()
    assert not list(KEPT.iterdir())
    found = digests(RAW)
    RAW.rename("uninterrupted")
    return found


@pytest.mark.slow
def test_killed_download_gives_same_bytes(
    expected: dict[str, str], decoded: Callable[[], tuple[int, int]], capsys: pytest.CaptureFixture[str]
) -> None:
    """While it checks, while it analyses, and while it writes a clip that was complete before."""
    kill(MEASURE, 10)
    assert 1 <= count_kept() < 15  # two threads, which may be a few clips apart
    kill(MEASURE, 10)
    kill(ANALYSE, 30)
    kept = count_kept()
    assert kept > CLIPS + 20
    kill(COPY, 5, half=True)
    assert count_kept() == kept
    assert not RAW.exists()
    download_dataset()
    assert f"goes on from the check of {CLIPS} clips and the analysis of {kept - CLIPS}" in capsys.readouterr().out
    assert decoded() == (1, CLIPS - (kept - CLIPS))  # the broken one is not kept
    assert digests(RAW) == expected
    assert not list(KEPT.iterdir())


@pytest.mark.slow
def test_changed_clip_is_decoded_again(
    expected: dict[str, str], clips: Path, decoded: Callable[[], tuple[int, int]]
) -> None:
    """It has the size and the time that it had before."""
    kill(ANALYSE, CLIPS)
    file = clips / "a/a.00001.wav"
    content, times = file.read_bytes(), (file.stat().st_atime_ns, file.stat().st_mtime_ns)
    file.write_bytes(bytes(len(content)))
    os.utime(file, ns=times)
    download_dataset()
    checked, analysed = decoded()
    assert checked == 2
    assert analysed <= 2
    assert "a/a.00001.wav" in (RAW / "rejected.csv").read_text()
    assert digests(RAW)["clips.csv"] != expected["clips.csv"]


@pytest.mark.slow
def test_other_params_use_same_results(
    expected: dict[str, str], clips: Path, decoded: Callable[[], tuple[int, int]]
) -> None:
    """A limit that was too low stops the download after the check; a larger one goes on."""
    set_params(Path(), {"download.dataset.max_rejected": 0.0})
    assert user_error(download_dataset).key == "download.dataset.max_rejected"
    assert decoded() == (CLIPS + 1, 0)
    set_params(Path(), {"download.dataset.max_rejected": 0.1})
    download_dataset()
    assert decoded() == (1, CLIPS)
    assert digests(RAW) == expected


@pytest.mark.slow
def test_other_code_starts_afresh(expected: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    kill(ANALYSE, CLIPS)
    with Path("stages/common/audio.py").open("a") as code:
        code.write("# changed\n")
    download_dataset()
    output = capsys.readouterr().out
    assert "not used: the checks of a download with another stages/common/audio.py; see python -m tools" in output
    assert "goes on" not in output
    assert digests(RAW) == expected


def test_lines_that_are_cut_or_damaged(tmp_path: Path) -> None:
    file = tmp_path / FILE
    file.touch()
    for name in ("a", "b", "c"):
        KeptResults(file).compute(CHECK, lambda path: [str(path)], Path(f"{name}.wav"), name)
    lines = file.read_bytes()
    for length in range(len(lines)):  # the last line that is complete has all of its bytes
        file.write_bytes(lines[:length])
        results = KeptResults(file)
        for name in ("a", "b", "c"):
            assert results.compute(CHECK, lambda path: [f"new {path}"], Path(f"{name}.wav"), name) in (
                [f"{name}.wav"],
                [f"new {name}.wav"],
            )
        assert "the check of 3 clips" in KeptResults(file).describe()
        file.write_bytes(lines[:length] + bytes([lines[length] ^ 1]) + lines[length + 1 :])
        assert KeptResults(file).describe() != "the check of 3 clips and the analysis of 0"


def test_errors_are_not_kept(tmp_path: Path) -> None:
    file = tmp_path / FILE
    file.touch()

    def fail(path: Path) -> list[int]:
        raise audio.AudioError("too many open files")

    with pytest.raises(audio.AudioError):
        KeptResults(file).compute(CHECK, fail, Path("a.wav"), "0")
    assert KeptResults(file).describe() == ""
