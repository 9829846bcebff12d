"""Drive Chromium."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest


@contextmanager
def start_chromium(downloads: Path | None = None) -> Iterator[Any]:
    """Start Chromium, or skip the test if it is not installed. downloads: folder of the files that pages save."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="the extra test is not installed")
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if not program or not driver:
        pytest.skip("no chromium with chromedriver on this machine")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1280,1400"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    if downloads:
        options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    chromium = webdriver.Chrome(options, webdriver.ChromeService(driver))
    try:
        yield chromium
    finally:
        chromium.quit()
