"""The content of a report, and what is in its page, for tests."""

import base64
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import soundfile
from helpers import ANSWER, sha256_of, tone

from fakes.html_page import Page
from stages.evaluate.figures import Result
from stages.evaluate.metrics import compare_with_baselines


def make_content(folder: Path, labels: list[str], clips: int, wrong: int, seconds: float = 1.0) -> dict[str, Any]:
    """Return the arguments of write_report for n test clips: the first are wrong, later ones more confident."""
    raw = folder / "raw"
    raw.mkdir(parents=True)
    rows, table = [], []
    for n in range(clips):
        actual, clip = n % len(labels), f"clip & {n}"
        soundfile.write(raw / f"{n}.wav", tone(seconds, hz=200 + 40 * n), 22_050)
        predicted = (actual + 1) % len(labels) if n < wrong else actual
        probabilities = np.full(len(labels), 0.4 - 0.01 * n) / (len(labels) - 1)
        probabilities[predicted] = 0.6 + 0.01 * n
        rows.append([clip, labels[actual], labels[predicted], *probabilities])
        table.append([clip, labels[actual], f"{n}.wav", sha256_of(raw / f"{n}.wav")])
    pd.DataFrame(table, columns=["clip", "label", "path", "sha256"]).to_csv(raw / "clips.csv", index=False)
    (raw / "source.json").write_text('{"source": "folder", "id": "<my> clips", "licence": "unknown"}')
    epochs = pd.DataFrame(
        {"eval_accuracy": [0.2, 0.6, 0.6], "eval_loss": [2.0, 1.0, np.inf], "train_loss": [2.1, 0.9, 0.4]},
        index=pd.Index([1, 2, 3], name="epoch"),
    )
    predictions = pd.DataFrame(rows, columns=["clip", "label", "prediction", *labels])
    bins = [{"low": n / 10, "high": n / 10 + 0.1} for n in range(10)]
    empty = {"confidence": None, "accuracy": None, "n_clips": 0}
    reliability = [
        edges | (empty if n < 6 else {"confidence": n / 10 + 0.05, "accuracy": 0.7, "n_clips": 3})
        for n, edges in enumerate(bins)
    ]
    accuracy = 1 - wrong / clips
    low, high = max(0.0, accuracy - 0.1), min(1.0, accuracy + 0.1)
    baselines = {"majority": 1 / len(labels), "spectrum": 0.35}
    return {
        "metrics": {
            "selection_accuracy": 0.123,
            "accuracy": accuracy,
            "macro_f1": accuracy,
            "log_loss": 0.5,
            "top_2_accuracy": 1.0,
            "calibration_error": 0.1,
            "window_accuracy": 0.45,
            "baselines": baselines,
            "beats_baselines": compare_with_baselines(accuracy, low, baselines),
            "selected_on": "validation",
            "n_clips": clips,
            "n_groups": 2,
            "accuracy_low": low,
            "accuracy_high": high,
            "interval_of": "groups",
            "per_label": [
                {"label": label, "precision": 0.5, "recall": 0.25, "f1": 1 / 3, "n_clips": 2} for label in labels
            ],
            "reliability": reliability,
            "answer": ANSWER,
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
        "result": Result(epochs, 2, predictions, reliability, ANSWER),
        "raw": raw,
    }


def decode_data(addresses: list[str], media_type: str) -> list[bytes]:
    """Return what data URLs of this type contain."""
    assert all(address.startswith(f"data:{media_type};base64,") for address in addresses)
    return [base64.b64decode(address.split(",")[1], validate=True) for address in addresses]


def figures_of(page: Page) -> list[ElementTree.Element]:
    """Return the SVG figures, each of which must be well-formed."""
    sources = [image["src"] for image in page.find_all("img") if image.get("class") == "figure"]
    return [ElementTree.fromstring(svg) for svg in decode_data(sources, "image/svg+xml")]


def spectrograms_of(page: Page) -> list[bytes]:
    """Return the PNG files of the errors."""
    sources = [image["src"] for image in page.find_all("img") if image.get("class") != "figure"]
    return decode_data(sources, "image/png")


def recordings_of(page: Page) -> list[bytes]:
    """Return the MP3 files of the errors."""
    return decode_data([sound["src"] for sound in page.find_all("audio")], "audio/mpeg")
