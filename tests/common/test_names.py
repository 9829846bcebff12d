"""Names of any characters, through everything that shows them."""

from base64 import b64decode
from html.parser import HTMLParser
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
import soundfile
from helpers import ANSWER, HARD_NAMES, names, sha256_of, tone
from huggingface_hub import ModelCard
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from stages.common import paths
from stages.common.names import show, show_with_spaces
from stages.common.tables import read_epochs, read_table, write_json, write_table
from stages.evaluate.drawing import label_text
from stages.evaluate.figures import Result
from stages.evaluate.metrics import measure
from stages.evaluate.prediction import Predictions
from stages.evaluate.report import MAX_ERRORS, write_report
from stages.publish.card import write_card

RESERVED = {"clip", "label", "prediction"}


def test_invisible_characters_are_shown() -> None:
    assert show("a\n\x01\u202e\ud800\uffff") == r"a\n\x01\u202e\ud800\uffff"
    assert show("日本 é 👩‍🎤\u200c") == "日本 é 👩‍🎤\u200c"
    assert show_with_spaces(" a  b ").split("\N{NO-BREAK SPACE}") == ["", "a ", "b", ""]


class Texts(HTMLParser):
    """The tags of a page, and its texts and attributes."""

    def __init__(self, page: str):
        super().__init__()
        self.tags: set[str] = set()
        self.texts: list[str | None] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.texts += [value for _, value in attrs]

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def write_results(labels: list[str]) -> tuple[Result, dict[str, Any], dict[str, Any]]:
    """Write what report and card read, with every name as label, clip, title and group; result, metrics, split."""
    ids = np.arange(len(labels))
    probabilities = np.full((len(labels), len(labels)), 0.1)
    probabilities[ids, ids[::-1]] = 0.9  # one at most is correct
    predictions = Predictions(labels, labels, ids, probabilities / probabilities.sum(axis=1, keepdims=True), None)
    for name in ("train_loss", "eval_loss", "eval_accuracy"):
        file = paths.EPOCHS / f"plots/metrics/{name}.tsv"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"step\t{name}\n1\t0.5\n")
    metrics = measure(predictions, ids // 2, {"majority": 0.1, "spectrum": 0.2}, "test", 0.5)
    answer = ANSWER | {"background": labels[0], "let_through_as": [{"label": name, "n_clips": 1} for name in labels]}
    metrics["answer"] = answer
    leakage = {name: {"test_clips": 3, "known": 3, "shared": 1} for name in labels}
    totals = {"total": {"train": 1, "validation": 0, "test": 1}, "method": "random", "seed": 1}
    totals |= {"left_out": 0, "leakage": leakage}
    source = {"source": "hub", "id": "a/b", "title": labels[0], "licence": labels[-1], "revision": "0" * 40}
    checkpoint = {"source": "folder", "id": labels[0], "licence": labels[-1]}
    training = {"selected_on": "test", "best_epoch": 1, "train": {}, "resample_encode": {"max_seconds": 1}}
    config = {"architectures": ["HubertForSequenceClassification"], "id2label": dict(enumerate(labels))}
    for path, content in {
        paths.METRICS: metrics,
        paths.SPLIT_COUNTS: totals,
        paths.DATASET_SOURCE: source,
        paths.BASE_SOURCE: checkpoint,
        paths.TRAINING: training,
        paths.FINETUNED / "config.json": config,
        paths.FINETUNED / "preprocessor_config.json": {"sampling_rate": 16_000},
    }.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, content)
    soundfile.write(paths.RAW / "a.wav", tone(0.1), 22_050)
    facts = {"sha256": sha256_of(paths.RAW / "a.wav"), "sampling_rate": 22_050, "channels": 1, "seconds": 0.1}
    write_table(paths.CLIPS, pd.DataFrame({"clip": labels, "label": labels, "path": "a.wav"}).assign(**facts))
    return Result(read_epochs(paths.EPOCHS), 1, predictions.to_table(), metrics["reliability"], answer), metrics, totals


@pytest.mark.slow
@settings(deadline=None, max_examples=1)
@given(st.lists(names().filter(lambda name: name not in RESERVED), min_size=5, max_size=9, unique=True))
@example(HARD_NAMES)
def test_every_name_is_shown(labels: list[str]) -> None:
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        result, metrics, totals = write_results(labels)
        write_table(paths.PREDICTIONS, result.predictions)
        written = read_table(paths.PREDICTIONS)
        assert list(written.columns) == ["clip", "label", "prediction", *labels]
        assert written["clip"].tolist() == written["label"].tolist() == labels
        write_report(paths.REPORT, metrics, totals, result, paths.RAW)
        page = Texts(paths.REPORT.read_text(encoding="utf-8"))
        write_card(Path("README.md"), "ann/model")
        card = ModelCard.load(Path("README.md"))
    figures = [text for text in page.texts if text and text.startswith("data:image/svg+xml;base64,")]
    confusion = ElementTree.fromstring(b64decode(figures[1].split(",")[1]))
    drawn = ["".join(text.itertext()) for text in confusion.iter("{http://www.w3.org/2000/svg}text")]
    assert {label: drawn.count(label_text(label)) >= 2 for label in labels} == dict.fromkeys(labels, True)
    shown = {show_with_spaces(label) for label in labels}
    assert shown <= set(page.texts)
    assert page.tags.isdisjoint({"b", "script"})
    assert len([name for name in page.texts if name in shown]) >= 3 * len(labels) + min(MAX_ERRORS, len(labels) - 1)
    assert card.data.eval_results[0].dataset_name == labels[0]
    assert shown | {"baseline: majority", "baseline: spectrum"} <= set(cells_of(card.text))


def cells_of(text: str) -> list[str]:
    """Return the text of each cell of the tables, as Markdown shows it."""
    inline = [token for token in MarkdownIt("commonmark").enable("table").parse(text) if token.type == "inline"]
    assert {child.type for token in inline for child in token.children or []} <= {
        *("text", "softbreak", "image", "code_inline", "text_special"),
        *(f"{kind}_{end}" for kind in ("link", "strong") for end in ("open", "close")),
    }
    return ["".join(child.content for child in token.children or []) for token in inline]
