"""The web page, in Chromium and over HTTP: one server and one browser for all tests of this file."""

import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2
import numpy as np
import pandas as pd
import pytest
import soundfile
from fakes.browser import start_chromium
from helpers import ROOT, needs, tone

from stages.common.answers import Answering

pytestmark = [pytest.mark.slow, needs("gradio", "demo")]
TIMEOUT = 180  # seconds: four processes run tests on two cores
get, post = partial(httpx2.get, timeout=TIMEOUT), partial(httpx2.post, timeout=TIMEOUT)
SPACE = (
    "import runpy, sys; sys.modules['stages'] = sys.modules['tools'] = None; runpy.run_path('app.py', None, '__main__')"
)


@pytest.fixture(scope="module", autouse=True)
def no_proxy() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NO_PROXY", "*")
        yield


def start(folder: Path, arguments: list[str], **env: str) -> tuple[subprocess.Popen[str], str]:
    """Start a server in a folder, and return it with the address that it prints."""
    known = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "GRADIO"))} | env
    known |= {"PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, *arguments]
    log = folder.parent / f"{folder.name}.log"
    with log.open("w") as output:
        server = subprocess.Popen(command, cwd=folder, env=known, text=True, stdout=output, stderr=subprocess.STDOUT)
    for _ in range(TIMEOUT * 10):
        text = log.read_text()
        if found := re.search(r"http://127\.0\.0\.1:\d+", text):
            return server, found[0]
        assert server.poll() is None, text
        time.sleep(0.1)
    server.kill()
    raise AssertionError(text)


def stop(server: "subprocess.Popen[str]") -> None:
    server.terminate()
    assert server.wait(TIMEOUT) is not None


@pytest.fixture(scope="module")
def page(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """The page of a finished run: its address, and the folder of its uploads."""
    folder, temporary = tmp_path_factory.mktemp("page") / "finished", tmp_path_factory.mktemp("temporary")
    shutil.copytree(finished, folder, ignore=shutil.ignore_patterns(".dvc", ".git", "encoded"))
    server, url = start(folder, ["-m", "tools.page", "--port", "0"], PYTHONPATH=str(ROOT), TMPDIR=str(temporary))
    [uploads] = temporary.glob("page-*")
    yield SimpleNamespace(url=url, uploads=uploads, folder=folder)
    stop(server)
    assert not uploads.exists()


@pytest.fixture(scope="module")
def browser(page: SimpleNamespace) -> Iterator[Any]:
    """Chromium, with the page open."""
    with start_chromium() as chromium:
        chromium.implicitly_wait(60)
        chromium.get(page.url)
        yield chromium


@pytest.fixture
def recordings(tmp_path: Path) -> SimpleNamespace:
    """A recording of 3 s, and a text file."""
    soundfile.write(tmp_path / "three <b>seconds.wav", tone(3.0), 22_050)
    (tmp_path / "notes.wav").write_text("This is a text.\n" * 20)
    return SimpleNamespace(sound=tmp_path / "three <b>seconds.wav", text=tmp_path / "notes.wav")


def find(browser: Any, selector: str) -> Any:
    return browser.find_element("css selector", selector)


def wait_for(condition: Callable[[], Any]) -> Any:
    """Wait until a condition is true, and return its value."""
    for _ in range(1200):
        if value := condition():
            return value
        time.sleep(0.05)
    raise AssertionError("nothing happened in a minute")


def open_tab(browser: Any, name: str) -> None:
    [tab] = [tab for tab in browser.find_elements("css selector", "button[role=tab]") if tab.text == name]
    tab.click()


def test_upload_in_browser(browser: Any, page: SimpleNamespace, recordings: SimpleNamespace) -> None:
    open_tab(browser, "Try")
    find(browser, "#recorder input[type=file]").send_keys(str(recordings.sound))
    clip = find(browser, "#result .clip")
    labels = pd.read_csv(page.folder / "metrics/predictions.csv").columns[3:]
    assert find(clip, "h3").text in labels
    assert {bar.text for bar in clip.find_elements("css selector", ".bars span")} == set(labels)
    assert "3.0 s" in find(clip, "small").text
    ticks = [tick.text for tick in clip.find_elements("css selector", ".seconds span, .hz span")]
    assert {"1 s", "3 s", "1000 Hz"} <= set(ticks)
    windows = clip.find_elements("css selector", ".plot button")
    assert len(windows) == 6  # of 0.5 s, as in the training
    player = find(clip, "audio")
    windows[3].click()
    assert wait_for(lambda: browser.execute_script("return Math.max(0, arguments[0].currentTime - 1.5)", player)) < 1
    assert browser.execute_script("return Math.round(arguments[0].duration)", player) == 3
    assert not [file for file in page.uploads.rglob("*") if file.is_file()]


def test_text_file_in_browser(browser: Any, page: SimpleNamespace, recordings: SimpleNamespace) -> None:
    open_tab(browser, "Try")
    find(browser, "#recorder input[type=file]").send_keys(str(recordings.text))
    message = find(browser, "#result .message").text
    assert message.startswith("notes.wav cannot be used: broken (")
    assert str(page.uploads) not in browser.page_source
    assert not [file for file in page.uploads.rglob("*") if file.is_file()]


def test_example_listen_and_errors_in_browser(browser: Any, page: SimpleNamespace) -> None:
    open_tab(browser, "Try")
    find(browser, "#examples button").click()
    assert re.search("correct|wrong, the label is", find(browser, "#result h3").text)
    open_tab(browser, "Listen")
    find(browser, "#more").click()
    find(browser, "#clips .clip .plot").click()
    player = find(browser, "#clips audio")
    played = "return arguments[0].ended || !arguments[0].paused && arguments[0].currentTime"
    wait_for(lambda: browser.execute_script(played, player))
    assert len(browser.find_elements("css selector", "#clips audio")) == 4
    open_tab(browser, "Errors")
    predictions = pd.read_csv(page.folder / "metrics/predictions.csv")
    wrong = predictions[predictions["label"] != predictions["prediction"]]
    titles = {title.text for title in [find(browser, "#worst h3")]}
    assert titles <= {f"{row.prediction} – wrong, the label is {row.label}" for row in wrong.itertuples()}
    assert len(browser.find_elements("css selector", "#worst .clip")) == min(12, len(wrong))
    link = find(browser, "a[href*='report']").get_attribute("href")
    assert "<title>Report" in get(link).text


def test_browser_asks_only_this_server(browser: Any, page: SimpleNamespace) -> None:
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = {e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"}
    assert asked
    assert {url for url in asked if not url.startswith((page.url, "data:", "blob:", "chrome:"))} == set()
    assert not [entry for entry in browser.get_log("browser") if "Content Security Policy" in entry["message"]]


def upload(url: str, file: Path) -> str:
    """Upload a file, and return its path on the server."""
    with file.open("rb") as content:
        response = post(f"{url}/gradio_api/upload", files={"files": (file.name, content)})
    return str(response.raise_for_status().json()[0])


def ask(url: str, path: str) -> Any:
    """Ask for the result of an uploaded file, and return it: HTML, or None for an error."""
    config, session = get(f"{url}/config").json(), secrets.token_hex(8)
    [function] = [f["id"] for f in config["dependencies"] if f["targets"][0][1] == "upload"]
    recording = {"path": path, "meta": {"_type": "gradio.FileData"}}
    body = {"data": [recording], "fn_index": function, "session_hash": session}
    post(f"{url}/gradio_api/queue/join", json=body).raise_for_status()
    address = f"{url}/gradio_api/queue/data?session_hash={session}"
    with httpx2.stream("GET", address, timeout=TIMEOUT) as events:
        for line in events.iter_lines():
            message = json.loads(line.removeprefix("data: ") or "{}")
            if message.get("msg") == "process_completed":
                return message["output"]["data"][1] if message["success"] else None
    raise AssertionError("no result")


@pytest.mark.rare
def test_twenty_uploads_at_once(page: SimpleNamespace, recordings: SimpleNamespace, tmp_path: Path) -> None:
    other = tmp_path / "other.flac"
    soundfile.write(other, np.random.default_rng(0).uniform(-0.3, 0.3, 44_100), 44_100)
    files = [recordings.sound, recordings.text, other, recordings.sound] * 5
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda file: ask(page.url, upload(page.url, file)), files))
    for file, answer in zip(files, answers):
        assert ("notes.wav cannot be used" if file == recordings.text else 'class="bars"') in answer
        assert "<b>seconds" not in answer
        assert str(page.uploads) not in answer
    assert len(set(answers)) == 3
    assert not [file for file in page.uploads.rglob("*") if file.is_file()]


PATHS = [
    *("/etc/passwd", "{folder}/params.yaml", "params.yaml", "../../etc/passwd", "{uploads}/../../../etc/passwd"),
    *("{uploads}/..%2f..%2f..%2fetc/passwd", "%2fetc%2fpasswd", "..%252f..%252fetc/passwd", "file:///etc/passwd"),
    *("http://127.0.0.1:9/", "https://example.org/", "\\\\etc\\passwd", "{uploads}", "{folder}/data/raw/clips.csv"),
]


@pytest.mark.parametrize("route", ["/gradio_api/file=", "/file=", "/gradio_api/file/", "/static/", "/"])
def test_paths_are_refused(page: SimpleNamespace, route: str) -> None:
    with httpx2.Client(timeout=TIMEOUT) as client:
        for path in PATHS:
            target = f"{route}{path.format(folder=page.folder, uploads=page.uploads)}".encode()
            response = client.send(httpx2.Request("GET", page.url, extensions={"target": target}))
            assert response.status_code in (400, 403, 404), target
            assert "root:" not in response.text
            assert "clip,label" not in response.text


def test_other_requests_are_refused(page: SimpleNamespace, recordings: SimpleNamespace, tmp_path: Path) -> None:
    for route in (
        "/gradio_api/vibe-code",
        "/gradio_api/runs",
        "/monitoring",
        "/gradio_api/proxy=https://x.org/",
        "/docs",
    ):
        assert get(page.url + route).status_code == 404
    [clip, *_] = (page.folder / "data/raw/audio").rglob("*.wav")
    for path in ("https://example.org/a.wav", str(clip), f"{page.uploads}/../x.wav", clip.name):
        join = {"data": [{"path": path, "meta": {"_type": "gradio.FileData"}}]}
        assert post(f"{page.url}/gradio_api/queue/join", json=join).status_code == 400
    for host in ("example.org", "127.0.0.1.example.org:80", "[::2]:80"):
        assert get(page.url, headers={"Host": host}).status_code == 400, host
    for host in ("[::1]:80", "[::1]", "localhost:80", "127.0.0.2"):
        assert get(page.url, headers={"Host": host}).status_code == 200, host
    uploaded = upload(page.url, recordings.sound)
    assert get(f"{page.url}/gradio_api/file={uploaded}").status_code == 200
    ask(page.url, uploaded)
    assert get(f"{page.url}/gradio_api/file={uploaded}").status_code in (403, 404)
    long = tmp_path / "long.flac"
    soundfile.write(long, np.resize(tone(1.0, 8000), 8000 * 1000), 8000)
    assert "longer than 15 minutes" in ask(page.url, upload(page.url, long))


def test_large_and_foreign_posts_are_refused(page: SimpleNamespace) -> None:
    address, file = f"{page.url}/gradio_api/upload", ("files", ("a.wav", b"x"))
    for name, value in (
        ("Sec-Fetch-Site", "cross-site"),
        ("Sec-Fetch-Site", "same-site"),
        ("Origin", "http://example.org"),
        ("Origin", "http://127.0.0.1:1"),
        ("Origin", "null"),
    ):
        assert post(address, files=[file], headers={name: value}).status_code == 403, value
    assert post(address, files=[file, file]).status_code == 400
    assert post(address, content=iter([b"x"])).status_code == 413  # of unknown length
    for route, length in (("upload", 202 << 20), ("cancel", (1 << 20) + 1), ("queue/join", (1 << 20) + 1)):
        connection = HTTPConnection(page.url.removeprefix("http://"), timeout=TIMEOUT)
        connection.putrequest("POST", f"/gradio_api/{route}")
        connection.putheader("Content-Length", str(length))
        connection.endheaders()
        assert connection.getresponse().status == 413, route
        connection.close()
    assert not [file for file in page.uploads.rglob("*") if file.is_file()]
    headers = {"Sec-Fetch-Site": "same-origin", "Origin": page.url}
    [uploaded] = post(address, files=[file], headers=headers).json()
    shutil.rmtree(Path(uploaded).parent)


def test_is_loopback() -> None:
    from tools.page.server import is_loopback

    assert all(map(is_loopback, ("127.0.0.1", "127.0.0.2", "::1", "localhost")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "192.168.0.1", "localhost.example.org", "")))


def test_rejected_background_is_correct() -> None:
    from tools.page.answers import make_title

    labels, answering = ["noise", "rock", "pop"], Answering(threshold=0.5, background="noise")
    for probabilities in ([0.8, 0.1, 0.1], [0.3, 0.4, 0.3]):  # the background, and no label above the threshold
        titles = [make_title(np.array(probabilities), labels, answering, label) for label in (None, "noise", "rock")]
        none = "none of these"
        assert titles == [none, f"{none} – correct", f"{none} – wrong, the label is rock"]
    assert make_title(np.array([0.1, 0.8, 0.1]), labels, answering, "rock") == "rock – correct"
    assert make_title(np.array([0.1, 0.8, 0.1]), labels, answering, "noise") == "rock – wrong, the label is noise"


@pytest.mark.rare
def test_space_in_its_own_folder(finished: Path, tmp_path: Path, recordings: SimpleNamespace) -> None:
    folder = tmp_path / "space"
    shutil.copytree(finished / "models/space", folder)
    shutil.copytree(finished / "models/published", folder / "model")
    server, url = start(
        folder, ["-c", SPACE], GRADIO_TEMP_DIR=str(tmp_path / "uploads"), GRADIO_SERVER_NAME="127.0.0.1"
    )
    try:
        answer = ask(url, upload(url, recordings.sound))
        assert answer.count('data-start="') == 6
        soundfile.write(tmp_path / "long.wav", tone(31.0), 22_050)  # the clip of 30 s without the last second
        assert ask(url, upload(url, tmp_path / "long.wav")).count('data-start="') == 60
        assert "cannot be read as audio" in ask(url, upload(url, recordings.text))
    finally:
        stop(server)
