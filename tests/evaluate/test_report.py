import base64
import html
import io
import re
import shutil
import subprocess
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
from conftest import git, tone
from PIL import Image

from stages.common import report

VOID = {"meta", "link", "img", "br"}
ODD = '<b>&"x'
# What the browser found: of each recording its length or error, and whether the page is wider than the window.
PROBE = """<script>
const sounds = [...document.querySelectorAll("audio")]
const found = sounds.map(sound => new Promise(tell => {
  sound.onloadeddata = () => tell(sound.duration.toFixed(1))
  sound.onerror = () => tell(sound.error.message)
  sound.preload = "auto"
  sound.load()
}))
Promise.all(found).then(found => { document.title = JSON.stringify({
  sounds: found,
  pictures: [...document.images].every(picture => picture.naturalWidth > 0),
  tooWide: document.documentElement.scrollWidth > innerWidth,
}) })
</script>"""


class Page(HTMLParser):
    """A page taken apart: `tags` with their attributes, `text` outside of style, and what was not closed in order."""

    def __init__(self, content: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.stray: list[str] = []
        self.text = ""
        self.feed(content)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.stray.append(tag)

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.text += " " + data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def made_up(folder: Path, labels: list[str], clips: int, wrong: int, seconds: float = 1.0) -> dict[str, Any]:
    """The arguments of write_report for so many test clips, the first of them wrong, and ever surer."""
    raw = folder / "raw"
    raw.mkdir(parents=True)
    rows, table = [], []
    for n in range(clips):
        own, clip = n % len(labels), f"clip & {n}"
        soundfile.write(raw / f"{n}.wav", tone(seconds, hz=200 + 40 * n), 22_050)
        said = (own + 1) % len(labels) if n < wrong else own
        probabilities = np.full(len(labels), 0.4 - 0.01 * n) / (len(labels) - 1)
        probabilities[said] = 0.6 + 0.01 * n
        rows.append([clip, labels[own], labels[said], *probabilities])
        table.append([clip, labels[own], f"{n}.wav"])
    pd.DataFrame(table, columns=["clip", "label", "path"]).to_csv(raw / "clips.csv", index=False)
    (raw / "source.json").write_text('{"source": "folder", "id": "<my> clips", "licence": "unknown"}')
    accuracy = 1 - wrong / clips
    return {
        "metrics": {
            "accuracy": accuracy,
            "macro_f1": accuracy,
            "loss": 0.5,
            "top_2_accuracy": 1.0,
            "calibration_error": 0.1,
            "window_accuracy": 0.5,
            "baseline": {"majority": 1 / len(labels), "spectrum": 0.35},
            "n": clips,
            "selected_on": "validation",
            "accuracy_interval_95": [max(0.0, accuracy - 0.1), min(1.0, accuracy + 0.1)],
            "interval_of": "groups",
            "per_label": [{"label": label, "precision": 0.5, "recall": 0.25, "f1": 1 / 3, "n": 2} for label in labels],
            "reliability": [
                {"low": low / 10, "high": low / 10 + 0.1, "confidence": None, "accuracy": None, "n": 0}
                if low < 6
                else {"low": low / 10, "high": low / 10 + 0.1, "confidence": low / 10 + 0.05, "accuracy": 0.7, "n": 3}
                for low in range(10)
            ],
        },
        "split": {
            "method": "grouped",
            "seed": 1,
            "total": {"train": 9, "validation": 0, "test": clips},
            "leakage": {
                "recording": {"test_clips": clips, "known": clips, "shared": 1},
                "artist": {"test_clips": clips, "known": clips - 1, "shared": 2},
            },
        },
        "epochs": pd.DataFrame(
            {"eval_accuracy": [0.2, 0.6, 0.6], "eval_loss": [2.0, 1.0, np.inf], "train_loss": [2.1, 0.9, 0.4]},
            index=pd.Index([1, 2, 3], name="epoch"),
        ),
        "predictions": pd.DataFrame(rows, columns=["clip", "label", "prediction", *labels]),
        "raw": raw,
    }


def written(folder: Path, **arguments: Any) -> str:
    report.write_report(folder / "report.html", **arguments)
    return (folder / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("report")
    arguments = made_up(folder, [ODD, "R&B, soul", "None"], clips=20, wrong=14)
    report.write_report(folder / "report.html", **arguments)
    return folder / "report.html", arguments


def data_of(addresses: list[str], kind: str) -> list[bytes]:
    assert all(address.startswith(f"data:{kind};base64,") for address in addresses)
    return [base64.b64decode(address.split(",")[1], validate=True) for address in addresses]


def test_report_is_whole_well_formed_and_needs_nothing_else(example: tuple[Path, dict[str, Any]]) -> None:
    page = Page(example[0].read_text(encoding="utf-8"))
    assert page.stray == page.open == []
    assert page.all("script") == []
    loaded = [value for _, attributes in page.tags for name, value in attributes.items() if name in ("src", "href")]
    assert all(value.startswith(("data:", "#")) for value in loaded)
    styles = re.findall(r"<style>.*?</style>", example[0].read_text(encoding="utf-8"), re.DOTALL)
    assert "url(" not in styles[0]
    assert "@import" not in styles[0]
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(set(ids)) == len(ids) == 7
    assert {value[1:] for value in loaded if value.startswith("#")} == set(ids)
    assert page.all("html") == [{"lang": "en"}]
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert all(picture["alt"] for picture in page.all("img"))
    assert all(chart["role"] == "img" and chart["aria-label"] for chart in page.all("svg"))
    assert len(page.all("svg")) == 3


def test_numbers_and_words_are_those_of_the_result(example: tuple[Path, dict[str, Any]]) -> None:
    text = " ".join(Page(example[0].read_text(encoding="utf-8")).text.split())
    assert "6 of 20 test clips got their own label: accuracy 0.300." in text
    assert "0.20 to 0.40 (95% interval, over groups of clips that belong together)" in text
    assert "That is less than what statistics of the spectrum alone tell (0.350)" in text
    assert "epoch 2, the first of those with the highest accuracy on the validation clips" in text
    assert "recording 1 of 20" in text
    assert "artist 2 of 19; of 1 it is not known" in text
    assert "Of the 14 wrong answers, the 12 that the model was surest of." in text


def test_surest_errors_come_first_and_can_be_heard_and_seen(example: tuple[Path, dict[str, Any]]) -> None:
    page = Page(example[0].read_text(encoding="utf-8"))
    assert [sound["aria-label"] for sound in page.all("audio")] == [f"clip & {n}" for n in range(13, 1, -1)]
    for n, mp3 in zip(range(13, 1, -1), data_of([sound["src"] for sound in page.all("audio")], "audio/mpeg")):
        samples, sampling_rate = soundfile.read(io.BytesIO(mp3))
        assert samples.shape == (22_050,)
        assert sampling_rate == 22_050
        assert abs(np.fft.rfft(samples)).argmax() == 200 + 40 * n  # Hz: the right recording, one second of it
    for png in data_of([picture["src"] for picture in page.all("img")], "image/png"):
        assert Image.open(io.BytesIO(png)).size == report.PICTURE_SIZE


def test_same_content_gives_the_same_bytes(example: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    file, arguments = example
    assert written(tmp_path, **arguments) == file.read_text(encoding="utf-8")


def test_names_are_text_never_markup(example: tuple[Path, dict[str, Any]]) -> None:
    page = example[0].read_text(encoding="utf-8")
    assert "<b>" not in page
    assert "<my>" not in page
    assert html.escape(ODD) in page.replace("&#34;", "&quot;")
    assert ODD in Page(page).text


def test_no_errors_are_said_to_be_none(tmp_path: Path) -> None:
    arguments = made_up(tmp_path, ["x", "y"], clips=4, wrong=0)
    arguments["metrics"] |= {"selected_on": "test", "accuracy_interval_95": [0.51, 1.0]}
    del arguments["metrics"]["window_accuracy"]  # only where clips are cut into windows
    text = " ".join(Page(written(tmp_path, **arguments)).text.split())
    assert "None: every test clip got its own label." in text
    assert "0.350), and so is all of the interval" in text
    assert "chosen on these same test clips, so the accuracy is optimistic" in text
    assert "single windows" not in text


def test_fifty_labels_short_clips_and_one_epoch(tmp_path: Path) -> None:
    labels = [f"label {n}" for n in range(50)]
    arguments = made_up(tmp_path, labels, clips=50, wrong=3, seconds=0.01)
    arguments["epochs"] = arguments["epochs"].iloc[:1]
    page = Page(written(tmp_path, **arguments))
    assert page.stray == page.open == []
    assert "The 3 wrong answers, the surest first." in " ".join(page.text.split())
    assert len(page.all("audio")) == 3
    assert len(page.all("td")) > 2500


def test_twelve_long_clips_would_stay_small(tmp_path: Path) -> None:
    arguments = made_up(tmp_path, ["x", "y"], clips=3, wrong=3)
    noise = np.random.default_rng(0).uniform(-0.9, 0.9, (15 * 44_100, 2)).astype(np.float32)
    for n in range(3):  # the worst there is for both MP3 and PNG
        soundfile.write(arguments["raw"] / f"{n}.wav", noise, 44_100)
    page = written(tmp_path, **arguments)
    assert len(page) * report.WORST / 3 < 2_500_000
    for mp3 in data_of([sound["src"] for sound in Page(page).all("audio")], "audio/mpeg"):
        assert soundfile.info(io.BytesIO(mp3)).duration == pytest.approx(report.SECONDS)


def test_recordings_go_neither_into_git_nor_to_the_hub(finished: Path) -> None:
    made = finished / "metrics/report.html"
    assert Page(made.read_text(encoding="utf-8")).all("h1") == [{}]
    assert "metrics/report.html" not in git(finished, "ls-files").split()
    assert git(finished, "check-ignore", "metrics/report.html").strip() == "metrics/report.html"
    assert list((finished / "models/published").glob("*.html")) == []


def test_silence_has_a_picture_too() -> None:
    assert report.draw_spectrogram(np.zeros(10, np.float32)).startswith(b"\x89PNG")


def test_browser_opens_it_without_complaint(example: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not chromium:
        pytest.skip("no chromium on the path")
    page = example[0].read_text(encoding="utf-8")
    probed = tmp_path / "probed.html"
    # The page allows itself no script; the probe is one.
    probed.write_text(page.replace("default-src 'none'", "default-src 'none'; script-src 'unsafe-inline'") + PROBE)
    quiet = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    tell = ["--enable-logging=stderr", "--window-size=500,800", "--virtual-time-budget=10000", "--dump-dom"]
    done = subprocess.run(
        [chromium, *quiet, *tell, probed.as_uri()],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert [line for line in done.stderr.splitlines() if ":CONSOLE" in line] == []
    title = html.unescape(re.search("<title>(.*?)</title>", done.stdout)[1])
    assert title == '{"sounds":[' + ",".join(['"1.0"'] * 12) + '],"pictures":true,"tooWide":false}'
