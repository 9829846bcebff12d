import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from helpers import set_params, tone, user_error, write_clips

from stages.common.lfs import START
from stages.common.tables import read_json, read_table
from stages.download.__main__ import download_dataset
from stages.download.dataset.clips import MAX_LISTED, report_lost_labels, report_rejected
from stages.download.dataset.selection import select_clips

UseFolder = Callable[..., None]


@pytest.mark.slow
def test_unusable_files(workspace: Path, use_folder: UseFolder, capsys: pytest.CaptureFixture[str]) -> None:
    clips = write_clips(workspace / "mine", number=6)
    complete = (clips / "a/a.00000.wav").read_bytes()
    (clips / "a/text.wav").write_text("not audio")
    (clips / "a/._a.00001.wav").write_bytes(b"\0\5\26\7")
    (clips / "a/cover.jpg").write_bytes(b"\xff\xd8")
    (clips / "a/a.00005.flac").write_bytes(complete)
    (clips / "b/empty.wav").touch()
    (clips / "b/lfs.wav").write_bytes(START + b"\noid sha256:0\n")
    (clips / "b/cut.wav").write_bytes(complete[:9000])
    soundfile.write(clips / "b/nan.wav", tone() * np.nan, 22_050, subtype="FLOAT")
    soundfile.write(clips / "b/silent.wav", 0 * tone(), 22_050)
    use_folder(clips)
    download_dataset()
    listed = read_table(Path("data/raw/clips.csv"))
    names = [f"{label}.{n:05d}" for label in "ab" for n in range(6)]
    assert listed["clip"].tolist() == [*names[:5], "a.00005.flac", "a.00005.wav", *names[6:]]
    rejected = dict(read_table(Path("data/raw/rejected.csv")).itertuples(index=False))
    expected = {
        "a/text.wav": "broken",
        "a/._a.00001.wav": "hidden",
        "a/cover.jpg": "not an audio",
        "b/empty.wav": "empty",
        "b/lfs.wav": "not audio: a Git LFS pointer",
        "b/cut.wav": "truncated",
        "b/nan.wav": "NaN",
        "b/silent.wav": "silent",
    }
    output = capsys.readouterr().out
    for file, reason in expected.items():
        assert reason in rejected[file]
        assert file in output or reason in output
    assert "13 clips of 2 labels, files rejected: 6, files that are not audio ignored: 1, hidden" in output
    files = {str(file.relative_to("data/raw")) for file in Path("data/raw/audio").rglob("*") if file.is_file()}
    assert files == set(listed["path"])


def test_too_many_rejected_files(workspace: Path, use_folder: UseFolder) -> None:
    clips = write_clips(workspace / "mine")
    (clips / "a/text.wav").write_text("not audio")
    use_folder(clips, max_rejected=0.1)
    error = user_error(download_dataset)
    assert error.key == "download.dataset.max_rejected"
    assert "1 of 9 audio files" in str(error)
    assert "a/text.wav: broken" in str(error)


def test_reserved_label(workspace: Path, use_folder: UseFolder) -> None:
    """A label becomes a column of predictions.csv."""
    use_folder(write_clips(workspace / "mine", labels=("label", "other")))
    assert "label label is the name of a column" in str(user_error(download_dataset))


def test_single_label(workspace: Path, use_folder: UseFolder) -> None:
    use_folder(write_clips(workspace / "single", labels=("only",)))
    assert "at least two labels, found ['only']" in str(user_error(download_dataset))


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["c/1.m4a", "c/2.m4a"], "label c has no clip left; not used: 2 (first: c/1.m4a: soundfile cannot decode it"),
        (["c/1.wav"], "label c has no clip left; not used: 1 (first: c/1.wav: empty file"),
        (["c/1.txt"], "label c has no clip left; not used: 1 (first: c/1.txt: not an audio file"),
        (["c/"], "label c has no clip left; not used: 1 (first: c/: empty folder"),
        (["c/d/1.wav"], "label c has no clip left; not used: 1 (first: c/d/1.wav: not at <label>/<file>"),
        (["c/\n.wav"], "label c has no clip left; not used: 1 (first: 'c/\\n.wav': its name has a control"),
        (["c/.DS_Store"], None),
    ],
    ids=["not-decodable", "empty", "text", "empty-folder", "too-deep", "control-character", "hidden"],
)
def test_label_without_clips(
    workspace: Path, use_folder: UseFolder, capsys: pytest.CaptureFixture[str], files: list[str], expected: str | None
) -> None:
    clips = write_clips(workspace / "mine", number=2, seconds=0.2)
    (clips / "c").mkdir()
    for file in files:
        if not file.endswith("/"):
            (clips / file).parent.mkdir(exist_ok=True)
            (clips / file).touch()
    use_folder(clips)
    download_dataset()
    output = capsys.readouterr().out
    assert (f"warning: {expected}" in output) if expected else ("warning" not in output)
    lost = [file for file in files if file.endswith((".m4a", ".wav"))]
    if lost:
        use_folder(clips, max_rejected=0.1)
        error = user_error(download_dataset)
        assert f"{len(lost)} of {4 + len(lost)} audio files rejected" in str(error)


@pytest.mark.slow
def test_repetitions(workspace: Path, use_folder: UseFolder, capsys: pytest.CaptureFixture[str]) -> None:
    set_params(workspace, {"download.dataset.seconds": 4})
    download_dataset()
    assert Path("data/raw/repetitions.csv").read_text() == "clip,recording\n"
    clips = Path("data/raw/audio").rename("mine")
    samples, sampling_rate = soundfile.read(clips / "jazz/jazz.00002.wav")
    soundfile.write(clips / "rock/quiet.wav", samples / 4, sampling_rate)
    shutil.copyfile(clips / "pop/pop.00001.wav", clips / "rock/rock.00000.wav")
    use_folder(clips)
    download_dataset()
    table = Path("data/raw/repetitions.csv").read_text()
    assert table == "clip,recording\njazz.00002,0\npop.00001,1\nquiet,0\nrock.00000,1\n"
    output = capsys.readouterr().out
    assert "found 2 recordings that occur in several clips (4 clips)" in output
    assert "the same recording is labelled jazz and rock: jazz.00002, quiet" in output


def write_originals(clips: Path, table: str) -> None:
    """Write a table of the MD5 of clips. One line has another MD5, and one is of a clip that does not exist."""
    files = sorted(clips.rglob("*.wav"))
    rows = [f"{file.stem},{hashlib.md5(file.read_bytes()).hexdigest()}" for file in files]
    rows[2] = f"{files[2].stem},{0:032d}"
    Path(table).write_text("\n".join(["clip,md5", *rows, f"b.00099,{1:032d}", ""]))


def test_originals(workspace: Path, use_folder: UseFolder, capsys: pytest.CaptureFixture[str]) -> None:
    clips = write_clips(workspace / "mine")
    write_originals(clips, "mine.csv")
    use_folder(clips)
    set_params(workspace, {"download.dataset.originals": "mine.csv"})
    download_dataset()
    output = capsys.readouterr().out
    assert "7 of the 9 files of mine.csv match the originals" in output
    assert "not the original: a.00002.wav" in output
    assert len(read_table(Path("data/raw/clips.csv"))) == 8
    originals = read_json(Path("data/raw/source.json"))["originals"]
    assert originals == {"table": "mine.csv", "known": 9, "original": 7, "differ": ["a.00002.wav"]}


@pytest.mark.parametrize("change", [str.upper, lambda text: "\\" + text, lambda text: f" {text}"])
def test_originals_of_other_programs(
    workspace: Path, use_folder: UseFolder, capsys: pytest.CaptureFixture[str], change: Callable[[str], str]
) -> None:
    clips = write_clips(workspace / "mine", number=1)
    lines = [
        f"*{file.relative_to(clips)};{change(hashlib.md5(file.read_bytes()).hexdigest())}"
        for file in clips.rglob("*.wav")
    ]
    Path("mine.csv").write_bytes("\r\n".join(["Clip;MD5", *lines]).encode("utf-16"))
    use_folder(clips)
    set_params(workspace, {"download.dataset.originals": "mine.csv"})
    download_dataset()
    assert "2 of the 2 files of mine.csv match the originals" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "fact"), [("z,0123456789abcdef0123456789abcdef", "lists none"), ("a.00000,sha", "has the md5 'sha'")]
)
def test_originals_of_other_clips(workspace: Path, use_folder: UseFolder, line: str, fact: str) -> None:
    Path("mine.csv").write_text(f"clip,md5\n{line}\n")
    use_folder(write_clips(workspace / "mine", number=1))
    set_params(workspace, {"download.dataset.originals": "mine.csv"})
    assert fact in str(user_error(download_dataset))


@pytest.mark.parametrize("text", [None, "clip,sha256\n"], ids=["missing", "other-columns"])
def test_invalid_table_of_originals(workspace: Path, use_folder: UseFolder, text: str | None) -> None:
    use_folder(write_clips(workspace / "mine"))
    if text is not None:
        Path("mine.csv").write_text(text + "a.00000,x\n")
    set_params(workspace, {"download.dataset.originals": "mine.csv"})
    assert user_error(download_dataset).key == "download.dataset.originals"


@pytest.mark.slow
def test_many_files_are_not_all_listed(
    workspace: Path, use_folder: UseFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    clips = write_clips(workspace / "mine", number=8)
    (clips / "a/._a.00000.wav").write_bytes(b"hidden")
    rows = [f"{label}.{n:05d},{n:032d}" for label in "ab" for n in range(8)]
    Path("mine.csv").write_text("\n".join(["clip,md5", *rows]))
    use_folder(clips)
    set_params(workspace, {"download.dataset.originals": "mine.csv"})
    download_dataset()
    output = capsys.readouterr().out
    assert output.count("not the original: ") == MAX_LISTED == 10
    assert "6 more like that; data/raw/source.json lists them all" in output
    assert "hidden files ignored: 1 (first: a/._a.00000.wav)" in output
    assert "16 clips of 2 labels, files rejected: 0, hidden files ignored: 1" in output


def test_few_names_are_listed_for_each_reason(capsys: pytest.CaptureFixture[str]) -> None:
    long = [f"a/{'x' * (252 + n)}.wav" for n in range(50)]
    report_rejected([], select_clips(long).rejected)
    assert capsys.readouterr().out.count("\n") == MAX_LISTED + 1


@pytest.mark.parametrize("file", ["/c0.wav", "top.wav"])
def test_clip_without_label_is_of_no_lost_label(capsys: pytest.CaptureFixture[str], file: str) -> None:
    report_lost_labels([], [(file, "no label")])
    assert capsys.readouterr().out == ""
