"""Classify recordings of all kinds with the model of a finished pipeline."""

import shutil
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from helpers import error_of, tone, write_tiny_model

from stages.common.answers import NONE
from stages.common.classifier import load_classifier
from stages.common.configs import load_config
from stages.common.encoded_clips import open_encoded_clips, select_split
from stages.common.paths import CLIPS, ENCODED, FINETUNED, PREDICTIONS, RAW, SPLITS
from stages.common.tables import read_table
from stages.common.windows import ClipDataset
from stages.evaluate.prediction import predict
from tools.classify import __main__ as tool

Run = Callable[..., tuple[str, str, int]]


@pytest.fixture
def classify(
    finished: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Run:
    """Run the tool in an empty folder, with the finished pipeline's model; return stdout, stderr and exit status."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object, model: Path = finished / "models/published") -> tuple[str, str, int]:
        options = ["classify", "--model", str(model), "--threads", "1"]
        monkeypatch.setattr("sys.argv", [*options, *map(str, arguments)])
        status = 0
        try:
            tool.main()
        except SystemExit as stop:
            status = int(stop.code or 0)
        out, err = capsys.readouterr()
        return out, err, status

    return call


def write(file: str, seconds: float = 1.0, rate: int = 22_050, channels: int = 1, hz: float = 440.0) -> None:
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(file, np.stack([tone(seconds, rate, hz)] * channels, axis=1), rate)


def write_melody(file: str) -> None:
    """Write a recording whose windows have several labels."""
    parts = [tone(0.7, 16_000, hz) * level for hz in (100, 900, 3000) for level in (0.1, 1.0)]
    noise = np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32)
    soundfile.write(file, np.concatenate([*parts, noise]), 16_000)


@pytest.mark.slow
def test_numbers_are_those_of_evaluate(
    finished: Path, classify: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    expected = read_table(finished / PREDICTIONS)
    labels = list(expected.columns[3:])
    paths = read_table(finished / CLIPS).set_index("clip")["path"]
    files = [str(finished / RAW / paths[name]) for name in expected["clip"]]
    classify(*files, "--top", len(labels), "--out", "complete.csv")
    classify(*files, "--top", len(labels), "--window", 0.3, "--out", "windows.csv")
    monkeypatch.chdir(finished)
    encoded = open_encoded_clips(ENCODED)
    model = load_classifier(FINETUNED, load_config(FINETUNED), new_head=False).eval()
    clips = ClipDataset(select_split(encoded, read_table(SPLITS), "test"))
    averaged = predict([model], encoded, clips, 4800, 8).to_probabilities()
    complete = pd.read_csv(tmp_path / "complete.csv").set_index("file").loc[files]
    np.testing.assert_allclose(complete["probability"], expected[labels].astype(float).max(axis=1), atol=2e-6)
    assert complete["label"].tolist() == expected["prediction"].tolist()
    lowest = f"probability_{len(labels)}"
    np.testing.assert_allclose(complete[lowest], expected[labels].astype(float).min(axis=1), atol=2e-6)
    windows = pd.read_csv(tmp_path / "windows.csv")
    assert windows[windows["file"] == files[0]]["start"].tolist() == [0, 0.3, 0.6, 0.7]
    answers = windows.groupby("file").first().loc[files]
    np.testing.assert_allclose(answers["file_probability"], averaged.max(axis=1), atol=2e-6)
    assert answers["file_label"].tolist() == [labels[i] for i in averaged.argmax(axis=1)]


@pytest.mark.slow
def test_mixed_files(classify: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for suffix, rate, channels in [("wav", 8_000, 1), ("flac", 48_000, 2), ("ogg", 44_100, 2), ("mp3", 32_000, 1)]:
        write(f"in/deep/{suffix}.{suffix}", 1.5, rate, channels)
    write("in/long.wav", 70.0, 8_000)
    write("in/clip.au", 30.5, 8_000)
    Path("in/text.wav").write_text("no audio\n" * 99)
    Path("in/film.MP4").write_bytes(b"\0\0\0\x18ftypisom")
    Path("in/notes.txt").write_text("ignored")
    write("in/.hidden.wav")
    write("in/short.wav", 0.001)
    write("-dash=1.wav")
    monkeypatch.setenv("PATH", "")  # no FFmpeg
    out, err, status = classify("--out", "p.csv", "--", "in", "missing.wav", "-dash=1.wav")
    assert (out, status) == ("", 1)
    errors = sorted(line for line in err.splitlines() if line.startswith("error: "))
    assert [error.split(": ")[1] for error in errors] == ["in/film.MP4", "in/short.wav", "in/text.wav", "missing.wav"]
    assert "needs FFmpeg, which is not installed" in errors[0]
    assert "too short: 0.001 s" in errors[1]
    assert "broken" in errors[2]
    # Cut as in evaluate; a longer one is read to its end.
    assert "note: 1 recordings are a little longer than 30 s; what lies beyond, at most 0.50 s, was left out" in err
    table = read_table(Path("p.csv")).set_index("file")["seconds"].astype(float)
    assert len(table) == 7
    assert (table["in/long.wav"], table["in/clip.au"], table["-dash=1.wav"]) == (70, 30, 1)
    assert Path("p.csv").read_text().count("'-dash=1.wav") == 1  # no formula
    before = Path("p.csv").read_bytes()
    Path("in/text.wav").unlink()
    write("in/text.wav")
    err = classify("in", "--out", "p.csv")[1]
    assert "p.csv: has the results of 6 recordings already" in err
    assert Path("p.csv").read_bytes().startswith(before)
    assert read_table(Path("p.csv"))["file"].tolist()[7:] == ["in/text.wav"]


@pytest.mark.slow
def test_none_of_these(classify: Run) -> None:
    """No probability is above 1. The most probable labels move to the next columns."""
    write_melody("in.wav")
    usual = pd.read_csv(StringIO(classify("in.wav", "--format", "csv")[0])).loc[0]
    for name in ("p.csv", "p.json", "p.parquet", "again.csv"):
        classify("in.wav", "--threshold", 1, "--window", 0.5, "--out", name)
    before = Path("again.csv").read_bytes()
    assert classify("in.wav", "--threshold", 1, "--window", 0.5, "--out", "again.csv")[2] == 0
    assert Path("again.csv").read_bytes() == before
    table = pd.read_csv("p.csv")
    assert set(table["label"]) == set(table["file_label"]) == {NONE}
    assert table["probability"].isna().all()
    assert (table["probability_2"] > table["probability_3"]).all()
    pd.testing.assert_frame_equal(pd.read_parquet("p.parquet"), table)
    pd.testing.assert_frame_equal(pd.read_json("p.json", lines=True), table, check_dtype=False)
    out = classify("in.wav", "--threshold", 1)[0]
    assert out.startswith(f"in.wav: {NONE}, {usual['label']} {usual['probability']:.1%}, ")
    assert f"s  {NONE}\n" in classify("in.wav", "--threshold", 1, "--window", 0.5)[0]
    assert classify("in.wav", "--threshold", 1, "--window", 0.5, "--format", "audacity")[0] == ""
    assert classify("in.wav", "--threshold", 1.1)[2] == 2


@pytest.mark.slow
def test_formats_agree(classify: Run) -> None:
    write_melody("in.wav")
    options = ("in.wav", "--window", 0.5, "--hop", 0.25)
    for name in ("t.csv", "t.parquet", "t.json"):
        assert classify(*options, "--out", name)[2] == 0
    table = pd.read_csv("t.csv")
    assert table["start"].tolist() == [*np.arange(0, 4.51, 0.25), 4.7]
    assert set(table["end"] - table["start"]) == {0.5}
    pd.testing.assert_frame_equal(pd.read_parquet("t.parquet"), table, check_dtype=False)
    pd.testing.assert_frame_equal(pd.read_json("t.json", lines=True), table, check_dtype=False)
    assert classify(*options, "--format", "csv")[0] == Path("t.csv").read_text()
    joined = [
        (group["start"].min(), group["end"].max(), group["label"].iloc[0])
        for _, group in table.groupby((table["label"] != table["label"].shift()).cumsum())
    ]
    assert len({label for _, _, label in joined}) > 1
    screen = classify(*options)[0]
    assert screen.splitlines()[0].startswith(f"in.wav: {table['file_label'][0]} ")
    assert len(screen.splitlines()) == 1 + len(joined)
    assert classify(*options, "--format", "audacity", "--out", "labels.txt")[2] == 0
    assert [(start, end, text.rpartition(" ")[0]) for start, end, text in parse_audacity("labels.txt")] == joined
    assert classify(*options, "--format", "raven", "--out", "tables")[2] == 0
    raven = pd.read_csv("tables/in.wav.selections.txt", sep="\t")
    assert raven["Selection"].tolist() == [*range(1, len(joined) + 1)]
    assert list(zip(raven["Begin Time (s)"], raven["End Time (s)"], raven["Label"])) == joined
    assert set(raven["Begin File"]) == {"in.wav"}
    assert set(raven["High Freq (Hz)"]) == {8_000}


def parse_audacity(file: str) -> list[tuple[float, float, str]]:
    """Read a label track by the rules of Audacity's manual: start, end and text, separated by tabs.

    A line that starts with a backslash would have the frequencies of the label before it.
    """
    rows = []
    for line in Path(file).read_bytes().decode("utf-8").removesuffix("\n").split("\n"):
        start, end, text = line.split("\t")
        assert not line.startswith("\\")
        assert 0 <= float(start) <= float(end)
        rows.append((float(start), float(end), text))
    return rows


@pytest.mark.slow
@pytest.mark.parametrize("name", ["t.csv", "t.json"])
def test_cut_off_results_are_completed(name: str, classify: Run) -> None:
    for number in range(3):
        write(f"in/{number},\n'.wav", hz=200 + 300 * number)
    options = ("in", "--window", 0.5, "--out", name)
    classify(*options)
    complete = Path(name).read_bytes()
    for size in (len(complete) // 2, len(complete) - 1, len(complete) - len(complete.splitlines()[-1]) - 1):
        Path(name).write_bytes(complete[:size])
        assert classify(*options)[2] == 0
        assert Path(name).read_bytes() == complete


@pytest.mark.slow
def test_other_options_are_refused(classify: Run, finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write("in/a.wav")
    write("in/b/a.wav")
    classify("in", "--out", "t.csv")
    for arguments, reason in [
        (["--out", "t.csv", "--window", "0.5"], "t.csv: its columns are of another --top"),
        (["--window", "31"], "--window 31: the clips that the model learnt from have at most 30 s"),
        (["--window", "0.001"], "the model needs at least"),
        (["--window", "1", "--hop", "2"], "at most --window"),
        (["--out", "t.txt"], "choose a --format"),
        (["--format", "parquet"], "needs --out FILE"),
        (["--format", "raven", "--out", "x.txt"], "--out FOLDER"),
        (["--model", "nowhere/"], "neither a folder nor an id"),
        (["--model", "./nowhere"], "nowhere: no config.json"),
    ]:
        model = ["--model", str(finished / "models/published")] if "--model" not in arguments else []
        monkeypatch.setattr("sys.argv", ["classify", "in", *model, *arguments])
        assert reason in error_of(tool.main)


@pytest.mark.slow
@pytest.mark.parametrize(("architecture", "seconds"), [("ast", "0.655"), ("whisper", "2")])
def test_spectrogram_models(architecture: str, seconds: str, classify: Run) -> None:
    """Their feature extractors cut longer clips."""
    from transformers import AutoModelForAudioClassification

    write_tiny_model(architecture)
    base = Path("models/base")
    AutoModelForAudioClassification.from_pretrained(base, num_labels=3).save_pretrained(base)
    write("in.wav", 3.0)
    out, err, status = classify("in.wav", model=base)
    assert f"uses only the first {seconds} s of each window of 30 s" in err
    assert status == 0
    out, err, status = classify("in.wav", "--window", 0.5, "--format", "json", model=base)
    assert "note" not in err
    assert len(out.splitlines()) == 6


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="no ffmpeg")
def test_containers_go_through_ffmpeg(classify: Run) -> None:
    import subprocess

    write_melody("in.wav")
    subprocess.run(
        ["ffmpeg", "-v", "error", "-i", "in.wav", "-c:a", "alac", "-sample_fmt", "s16p", "in.m4a"], check=True
    )
    Path("cut.m4a").write_bytes(Path("in.m4a").read_bytes()[:5000])
    out, err, status = classify("in.wav", "in.m4a", "cut.m4a", "--format", "csv", "--window", 0.5)
    assert status == 1
    assert "error: cut.m4a: FFmpeg cannot decode it" in err
    assert len(set(out.replace("in.m4a", "in.wav").splitlines())) == len(out.splitlines()) // 2 + 1
