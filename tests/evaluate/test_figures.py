import io
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from helpers import ANSWER, tone
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from stages.evaluate.figures import (
    FIGURES,
    MIN_HZ,
    SPECTROGRAM_SIZE,
    Result,
    draw_confusion,
    draw_learning_curves,
    draw_reliability,
    draw_spectrogram,
    render_svg,
    save_result,
)
from stages.evaluate.metrics import reliability

SVG = "{http://www.w3.org/2000/svg}"
# As markup or as a formula, these would not be the text that they are.
LABELS = ['<b>&"x', "$x_1$", "None"]
ACTUAL, PREDICTED = [0, 0, 0, 1, 2], [0, 0, 1, 1, 0]


@pytest.fixture
def result() -> Result:
    """Five clips, three of them correct; all have the same probability of their predicted label."""
    probabilities = np.full((5, 3), 0.1)
    probabilities[range(5), PREDICTED] = 0.8
    names = np.array(LABELS)
    predictions = pd.DataFrame({"clip": list("abcde"), "label": names[ACTUAL], "prediction": names[PREDICTED]}).join(
        pd.DataFrame(probabilities, columns=LABELS)
    )
    epochs = pd.DataFrame(
        {"eval_accuracy": [0.2, 0.6, 0.6], "eval_loss": [2.0, 1.0, np.inf], "train_loss": [2.1, 0.9, 0.4]},
        index=pd.Index([1, 2, 3], name="epoch"),
    )
    return Result(epochs, 2, predictions, reliability(probabilities, np.array(ACTUAL)), ANSWER)


@pytest.fixture
def axes() -> Iterator[Axes]:
    figure, axes = plt.subplots()
    yield axes
    plt.close(figure)


def texts_of(svg: bytes) -> list[str]:
    """Return the texts of an SVG file, which must be well-formed."""
    return ["".join(element.itertext()).strip() for element in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def test_labels_keep_order(result: Result) -> None:
    assert result.labels == LABELS


def test_line_marks_best_epoch(axes: Axes, result: Result) -> None:
    draw_learning_curves(axes, result)
    train, evaluation, best = axes.lines
    assert train.get_ydata().tolist() == [2.1, 0.9, 0.4]
    assert evaluation.get_ydata().tolist() == [2.0, 1.0, np.inf]
    assert list(best.get_xdata()) == [2, 2]


def test_metric_that_selected_and_averaged_epochs(axes: Axes, result: Result) -> None:
    epochs = result.epochs.assign(eval_macro_f1=[0.1, 0.2, 0.3])
    draw_learning_curves(axes, result._replace(epochs=epochs, select_by="macro_f1", averaged_epochs=(2, 3)))
    assert len(axes.lines) == 2
    (band,) = axes.patches
    assert band.get_extents().width > 0
    (other,) = [one for one in axes.figure.axes if one is not axes]
    assert other.get_ylabel() == "macro f1"
    assert other.lines[0].get_ydata().tolist() == [0.1, 0.2, 0.3]  # type: ignore[union-attr]


def test_confusion_counts_clips(axes: Axes, result: Result) -> None:
    """A row has the clips of one actual label; zeros are not written."""
    draw_confusion(axes, result)
    counts = {(text.get_position()[1], text.get_position()[0]): text.get_text() for text in axes.texts}
    assert counts == {(0, 0): "2", (0, 1): "1", (1, 1): "1", (2, 0): "1"}
    np.testing.assert_allclose(axes.images[0].get_array(), [[2 / 3, 1 / 3, 0], [0, 1, 0], [1, 0, 0]])
    assert [label.get_text() for label in axes.get_xticklabels()] == LABELS
    assert [label.get_text() for label in axes.get_yticklabels()] == LABELS


def test_label_without_clips_has_row(axes: Axes, result: Result) -> None:
    draw_confusion(axes, result._replace(predictions=result.predictions.iloc[:4]))
    np.testing.assert_allclose(axes.images[0].get_array()[2], 0)


def test_reliability_skips_empty_bins(axes: Axes, result: Result) -> None:
    draw_reliability(axes, result)
    np.testing.assert_allclose(axes.collections[-1].get_offsets(), [[0.8, 0.6]])


@pytest.mark.slow
@pytest.mark.parametrize("name", FIGURES)
def test_svg_is_well_formed(name: str, result: Result) -> None:
    svg = render_svg(FIGURES[name], result)
    assert ElementTree.fromstring(svg).tag == f"{SVG}svg"
    assert render_svg(FIGURES[name], result) == svg


def test_svg_has_labels_as_text(result: Result) -> None:
    texts = texts_of(render_svg(draw_confusion, result))
    assert {label: texts.count(label) for label in LABELS} == dict.fromkeys(LABELS, 2)


@pytest.mark.slow
def test_confusion_grows_with_labels(result: Result) -> None:
    labels = [f"label {n}" for n in range(50)]
    predictions = pd.DataFrame({"clip": labels, "label": labels, "prediction": labels})
    predictions = predictions.join(pd.DataFrame(np.eye(50), columns=labels))
    large = render_svg(draw_confusion, result._replace(predictions=predictions))
    widths = [
        float(ElementTree.fromstring(svg).attrib["width"].removesuffix("pt"))
        for svg in (render_svg(draw_confusion, result), large)
    ]
    assert widths[1] > 3 * widths[0]
    assert set(labels) <= set(texts_of(large))


def test_thousand_labels_fit(axes: Axes, result: Result) -> None:
    """Every tenth is named."""
    labels = [f"label {n}" for n in range(1000)]
    predictions = pd.DataFrame({"clip": labels, "label": labels, "prediction": labels})
    predictions = predictions.join(pd.DataFrame(np.eye(1000), columns=labels))
    draw_confusion(axes, result._replace(predictions=predictions))
    for axis in (axes.xaxis, axes.yaxis):
        assert [label.get_text() for label in axis.get_ticklabels()] == labels[::10]
        assert axis.get_ticklocs().tolist() == list(range(0, 1000, 10))
    assert axes.images[0].get_array().shape == (1000, 1000)


@pytest.mark.slow
def test_png_has_all_figures(tmp_path: Path, result: Result) -> None:
    files = [tmp_path / "first.png", tmp_path / "second.png"]
    for file in files:
        save_result(file, result, "a title with a $")
    with Image.open(files[0]) as image:
        assert image.size == (500 * len(FIGURES), 480)
    assert files[0].read_bytes() == files[1].read_bytes()
    assert plt.get_fignums() == []


@pytest.mark.parametrize("samples", [np.zeros(10, np.float32), np.zeros(0, np.float32), tone(2.0)])
def test_spectrogram_of_any_length(samples: np.ndarray) -> None:
    image = Image.open(io.BytesIO(draw_spectrogram(samples, 22_050)))
    assert image.format == "PNG"
    assert image.size == SPECTROGRAM_SIZE


def test_spectrogram_shows_tone() -> None:
    image = np.asarray(Image.open(io.BytesIO(draw_spectrogram(tone(2.0, hz=440), 22_050))))
    rows = np.geomspace(11_025, MIN_HZ, SPECTROGRAM_SIZE[1])  # high frequencies are at the top
    assert rows[image.mean(axis=1).argmax()] == pytest.approx(440, rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("number", [2, 10, *(pytest.param(number, marks=pytest.mark.rare) for number in (35, 100))])
def test_labels_of_the_picture_do_not_overlap_and_are_not_cut_off(
    number: int, result: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"a_label_of_some_length {n}" for n in range(number)]
    table = pd.DataFrame({"clip": names, "label": names, "prediction": names[::-1]})
    table = table.join(pd.DataFrame(np.eye(number), columns=names))
    drawn: list[Figure] = []
    with monkeypatch.context() as patched:
        patched.setattr(plt, "close", drawn.append)
        save_result(tmp_path / "result.png", result._replace(predictions=table), "title")
    [figure] = drawn
    boxes = [label.get_window_extent() for label in figure.axes[1].get_yticklabels()]
    assert len(boxes) == number
    assert all(upper.y0 >= lower.y1 - 1 for upper, lower in pairwise(sorted(boxes, key=lambda box: -box.y0)))
    for part in figure.axes:
        box = part.get_tightbbox()
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= figure.bbox.x1
        assert box.y1 <= figure.bbox.y1
    plt.close(figure)
