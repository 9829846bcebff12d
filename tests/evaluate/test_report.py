import html
import io
import json
import re
import shutil
import subprocess
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
from fakes.html_page import Page
from fakes.report_page import figures_of, make_content, recordings_of, spectrograms_of
from helpers import git, sha256_of, tone
from PIL import Image

from stages.common.tables import select_scores
from stages.evaluate.figures import SPECTROGRAM_SIZE
from stages.evaluate.report import (
    CLIP_SECONDS,
    MAX_ERRORS,
    MAX_PROBABILITIES,
    describe_error,
    select_errors,
    write_report,
)

MARKUP = '<b>&"x'
N_ERRORS = 14  # of the example's 20 clips
# A script that puts into the title what the browser finds: the length or the error of each recording, whether all
# images load, and whether the page is wider than the window.
PROBE = """<script>
const sounds = [...document.querySelectorAll("audio")]
const found = sounds.map(sound => new Promise(resolve => {
  sound.onloadeddata = () => resolve(sound.duration.toFixed(1))
  sound.onerror = () => resolve(sound.error.message)
  sound.preload = "auto"
  sound.load()
}))
Promise.all(found).then(found => { document.title = JSON.stringify({
  sounds: found,
  images: [...document.images].every(image => image.naturalWidth > 0),
  tooWide: document.documentElement.scrollWidth > innerWidth,
}) })
</script>"""


def render_report(folder: Path, content: dict[str, Any]) -> str:
    """Write the report, and return it."""
    write_report(folder / "report.html", **content)
    return (folder / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The content of the example. Read it, or copy it; do not change it."""
    return make_content(tmp_path_factory.mktemp("content"), [MARKUP, "R&B, soul", "None"], clips=20, wrong=N_ERRORS)


@pytest.fixture(scope="module")
def simple_content(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The content of a report without errors, which is faster. Read it, or copy it; do not change it."""
    return make_content(tmp_path_factory.mktemp("simple"), ["x", "y"], clips=4, wrong=0)


@pytest.fixture(scope="module")
def example(content: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> str:
    """A report, as HTML."""
    return render_report(tmp_path_factory.mktemp("report"), content)


@pytest.fixture(scope="module")
def page(example: str) -> Page:
    return Page(example)


@pytest.fixture
def without_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the figures, which have tests of their own, where a test reads only the text."""
    monkeypatch.setattr("stages.evaluate.report.render_svg", lambda draw, result: b"")


@pytest.mark.slow
def test_html_is_well_formed(page: Page) -> None:
    assert page.stray == page.open == []
    assert page.find_all("html") == [{"lang": "en"}]
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(set(ids)) == len(ids) == 8


def test_report_needs_no_other_file(example: str, page: Page) -> None:
    assert page.find_all("script") == []
    loaded = [value for _, attributes in page.tags for name, value in attributes.items() if name in ("src", "href")]
    assert all(value.startswith(("data:", "#")) for value in loaded)
    ids = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    assert {value[1:] for value in loaded if value.startswith("#")} == ids
    [styles] = re.findall(r"<style>.*?</style>", example, re.DOTALL)
    assert "url(" not in styles
    assert "@import" not in styles


def test_headings_skip_no_level(page: Page) -> None:
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_images_have_descriptions(page: Page) -> None:
    assert len(figures_of(page)) == 4
    assert len(page.find_all("img")) == 4 + MAX_ERRORS
    assert all(image["alt"] for image in page.find_all("img"))
    assert all(region["aria-label"] for _, region in page.tags if region.get("role") == "region")


def test_figures_need_no_other_file(page: Page) -> None:
    for figure in figures_of(page):
        assert list(figure.iter("{http://www.w3.org/2000/svg}script")) == []
        links = [value for element in figure.iter() for name, value in element.attrib.items() if name.endswith("href")]
        assert all(link.startswith(("data:", "#")) for link in links)


def test_numbers_are_those_of_content(page: Page) -> None:
    assert "6 of 20 test clips were classified correctly: accuracy 0.300." in page.text
    assert "0.20 to 0.40 (over 2 groups of clips that belong together)" in page.text
    assert "epoch 2, with the highest accuracy on the validation clips" in page.text
    assert "recording 1 of 20" in page.text
    assert "artist 2 of 19; unknown for 1" in page.text
    assert "12 of 14 errors, the most confident first." in page.text
    assert "9 clips to train, 0 to validate, 20 to test; split: grouped, seed 1." in page.text
    assert "0.9 to 1.0 0.950 0.700 3" in page.text
    assert "R&B, soul 2 0.50 0.25 0.33" in page.text


@pytest.mark.usefixtures("without_figures")
@pytest.mark.parametrize(
    ("outcome", "sentence"),
    [
        ("yes", "The interval is above the better baseline (0.500)."),
        ("not significantly", "The accuracy is above the better baseline (0.500), but the interval includes it"),
        ("no", "The accuracy is not above the better baseline (0.500)."),
    ],
)
def test_outcome_of_baselines(simple_content: dict[str, Any], tmp_path: Path, outcome: str, sentence: str) -> None:
    metrics = simple_content["metrics"] | {"beats_baselines": outcome}
    text = Page(render_report(tmp_path, simple_content | {"metrics": metrics})).text
    assert sentence in text
    assert text.count("better baseline") == 1


def test_every_metric_is_listed(content: dict[str, Any], page: Page) -> None:
    numbers = select_scores(content["metrics"])
    assert len(numbers) == 6
    assert "0.123" not in page.text  # not of the test clips
    for name, value in numbers.items():
        assert f"{name.replace('_', ' ')} {value:.3f}" in page.text


@pytest.mark.usefixtures("without_figures")
def test_new_metric_is_listed(simple_content: dict[str, Any], page: Page, tmp_path: Path) -> None:
    assert "error rate" not in page.text
    metrics = simple_content["metrics"] | {"error_rate": 0.7}
    assert "error rate 0.700" in Page(render_report(tmp_path, simple_content | {"metrics": metrics})).text


@pytest.mark.usefixtures("without_figures")
def test_window_accuracy_is_optional(simple_content: dict[str, Any], page: Page, tmp_path: Path) -> None:
    assert "window accuracy 0.450" in page.text
    metrics = {name: value for name, value in simple_content["metrics"].items() if name != "window_accuracy"}
    assert "window accuracy" not in Page(render_report(tmp_path, simple_content | {"metrics": metrics})).text


def test_errors_are_most_confident_first(page: Page) -> None:
    """Each has its recording, of which this finds the frequency, and its spectrogram."""
    errors = range(N_ERRORS - 1, N_ERRORS - 1 - MAX_ERRORS, -1)
    assert [sound["aria-label"] for sound in page.find_all("audio")] == [f"clip & {n}" for n in errors]
    for n, mp3 in zip(errors, recordings_of(page)):
        samples, sampling_rate = soundfile.read(io.BytesIO(mp3))
        assert samples.shape == (22_050,)
        assert sampling_rate == 22_050
        assert abs(np.fft.rfft(samples)).argmax() == 200 + 40 * n  # Hz, because it is one second
    for png in spectrograms_of(page):
        assert Image.open(io.BytesIO(png)).size == SPECTROGRAM_SIZE


def test_equal_errors_keep_order() -> None:
    rows = [["a", "x", "x", 0.9, 0.1], ["b", "x", "y", 0.3, 0.7], ["c", "y", "x", 0.8, 0.2], ["d", "x", "y", 0.3, 0.7]]
    predictions = pd.DataFrame(rows, columns=["clip", "label", "prediction", "x", "y"])
    assert select_errors(predictions)["clip"].tolist() == ["c", "b", "d"]


def test_actual_label_is_always_listed(tmp_path: Path) -> None:
    """Of the others, the five highest are, if they are at least 0.01."""
    soundfile.write(tmp_path / "a.wav", tone(0.5), 22_050)
    values = {"t": 0.001, "u": 0.009, "v": 0.05, "w": 0.06, "x": 0.08, "y": 0.1, "z": 0.7}
    row = pd.Series({"clip": "a", "label": "t", "prediction": "z", **values})
    error = describe_error(row, tmp_path / "a.wav")
    assert list(error["probabilities"]) == ["z", "y", "x", "w", "v", "t"]
    assert len(error["probabilities"]) == MAX_PROBABILITIES + 1
    assert error["probabilities"]["t"] == 0.001
    assert error["seconds"] == pytest.approx(0.5)
    row["v"], row["w"] = 0.009, 0.009
    assert list(describe_error(row, tmp_path / "a.wav")["probabilities"]) == ["z", "y", "x", "t"]


@pytest.mark.slow
def test_same_content_gives_same_bytes(example: str, content: dict[str, Any], tmp_path: Path) -> None:
    assert render_report(tmp_path, content) == example


def test_names_are_not_markup(example: str, page: Page) -> None:
    assert "<b>" not in example
    assert "<my>" not in example
    assert html.escape(MARKUP) in example.replace("&#34;", "&quot;")
    assert MARKUP in page.text
    texts = ["".join(text.itertext()).strip() for text in figures_of(page)[1].iter("{http://www.w3.org/2000/svg}text")]
    assert texts.count(MARKUP) == 2


@pytest.mark.usefixtures("without_figures")
def test_report_without_errors(simple_content: dict[str, Any], tmp_path: Path) -> None:
    metrics = simple_content["metrics"] | {"accuracy_low": 0.51, "accuracy_high": 1.0, "interval_of": "clips"}
    page = Page(render_report(tmp_path, simple_content | {"metrics": metrics}))
    assert "None: all test clips were classified correctly." in page.text
    assert "0.51 to 1.00. The interval is above the better baseline (0.500)." in page.text
    assert "over groups" not in page.text
    assert page.find_all("audio") == []


@pytest.mark.usefixtures("without_figures")
@pytest.mark.parametrize(("selected_on", "optimistic"), [("validation", False), ("test", True)])
def test_selection_on_test_is_disclosed(
    simple_content: dict[str, Any], tmp_path: Path, selected_on: str, optimistic: bool
) -> None:
    metrics = simple_content["metrics"] | {"selected_on": selected_on}
    text = Page(render_report(tmp_path, simple_content | {"metrics": metrics})).text
    assert ("the accuracy is optimistic" in text) == optimistic
    assert f"with the highest accuracy on the {selected_on} clips" in text


@pytest.mark.slow
def test_fifty_labels_fit(tmp_path: Path) -> None:
    """The clips are short, and there is one epoch."""
    labels = [f"label {n}" for n in range(50)]
    content = make_content(tmp_path, labels, clips=50, wrong=3, seconds=0.01)
    content["result"] = content["result"]._replace(epochs=content["result"].epochs.iloc[:1], best_epoch=1)
    page = Page(render_report(tmp_path, content))
    assert page.stray == page.open == []
    assert "3 of 3 errors, the most confident first." in page.text
    assert len(page.find_all("audio")) == 3
    confusion = figures_of(page)[1]
    texts = ["".join(text.itertext()).strip() for text in confusion.iter("{http://www.w3.org/2000/svg}text")]
    assert all(texts.count(label) == 2 for label in labels)
    assert texts.count("1") == 50  # one number for each clip
    assert float(confusion.attrib["width"].removesuffix("pt")) > 1000


@pytest.mark.slow
@pytest.mark.usefixtures("without_figures")
def test_many_labels_list_errors(tmp_path: Path) -> None:
    """The complete matrix of 1000 labels would have a million cells."""
    labels = [f"label {n}" for n in range(200)]
    report = render_report(tmp_path, make_content(tmp_path, labels, clips=20, wrong=3, seconds=0.01))
    page = Page(report)
    assert page.stray == page.open == []
    assert report.count("<td") < 5000
    assert "actual predicted clips label 0 label 1 1 label 1 label 2 1 label 2 label 3 1" in page.text


@pytest.mark.slow
def test_report_stays_small(tmp_path: Path) -> None:
    """Loud noise is the worst case of both MP3 and PNG."""
    content = make_content(tmp_path, ["x", "y"], clips=3, wrong=3)
    noise = np.random.default_rng(0).uniform(-0.9, 0.9, (15 * 44_100, 2)).astype(np.float32)
    for n in range(3):
        soundfile.write(content["raw"] / f"{n}.wav", noise, 44_100)
    clips = pd.read_csv(content["raw"] / "clips.csv")
    clips.assign(sha256=sha256_of(content["raw"] / "0.wav")).to_csv(content["raw"] / "clips.csv", index=False)
    report = render_report(tmp_path, content)
    assert len(report) * MAX_ERRORS / 3 < 2_500_000
    for mp3 in recordings_of(Page(report)):
        assert soundfile.info(io.BytesIO(mp3)).duration == pytest.approx(CLIP_SECONDS)


@pytest.mark.slow
def test_recordings_are_not_published(finished: Path) -> None:
    """The report contains copies of recordings, so it goes neither into git nor to the Hub."""
    report = finished / "metrics/report.html"
    assert Page(report.read_text(encoding="utf-8")).find_all("h1") == [{}]
    assert "metrics/report.html" not in git(finished, "ls-files").split()
    assert git(finished, "check-ignore", "metrics/report.html").strip() == "metrics/report.html"
    assert list((finished / "models/published").glob("*.html")) == []


@pytest.mark.slow
def test_browser_opens_report(example: str, tmp_path: Path) -> None:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not chromium:
        pytest.skip("no chromium on the path")
    file = tmp_path / "report.html"
    # The page allows no script; the probe is one.
    file.write_text(example.replace("default-src 'none'", "default-src 'none'; script-src 'unsafe-inline'") + PROBE)
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    options += ["--enable-logging=stderr", "--window-size=500,800", "--virtual-time-budget=10000", "--dump-dom"]
    done = subprocess.run([chromium, *options, file.as_uri()], capture_output=True, text=True, timeout=60)
    assert [line for line in done.stderr.splitlines() if ":CONSOLE" in line] == []
    found = json.loads(html.unescape(re.search("<title>(.*?)</title>", done.stdout)[1]))
    assert found == {"sounds": ["1.0"] * MAX_ERRORS, "images": True, "tooWide": False}
