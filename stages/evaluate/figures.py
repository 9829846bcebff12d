"""Draw the figures of the result: learning curves, confusion matrix, reliability diagram, answers, spectrograms.

To add a figure to the report, write a function that draws on Axes, and list it in FIGURES.
"""

import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from stages.evaluate.drawing import find_fonts, label_text, text_width  # before anything else imports matplotlib

# isort: split
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image
from sklearn.metrics import confusion_matrix

from stages.common.audio import power_spectrogram
from stages.common.names import code_of
from stages.common.paths import FIGURE

TRAIN_COLOUR, EVAL_COLOUR = "#1f77b4", "#d62728"
# Text stays text, and ids do not change between runs.
SVG: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": "report"}
FRAME = 2048  # samples of a spectrogram's frame: 93 ms at 22,050 Hz
MIN_HZ = 50  # the bottom of a spectrogram
DECIBELS = 80  # range of a spectrogram
COLOURS = 32  # of a spectrogram; more look the same and take up to five times the bytes
SPECTROGRAM_SIZE = (360, 112)  # pixels
MAX_LABELS = 100  # named beside the confusion matrix; of more, every second is named, or every third, and so on


class Result(NamedTuple):
    """What the figures show.

    epochs: as `read_epochs` returns them. best_epoch: the one whose weights were measured.
    predictions: the content of predictions.csv, with one probability column per label from the fourth column on.
    reliability: as `metrics.reliability` returns it. answer: as `calibration.measure_answers` returns it.
    undrawable: characters of labels that no font has.
    select_by: the metric that selected the epoch. averaged_epochs: the first and the last, if the mean of the weights
        of several epochs was measured.
    """

    epochs: pd.DataFrame
    best_epoch: int
    predictions: pd.DataFrame
    reliability: list[dict[str, Any]]
    answer: dict[str, Any]
    undrawable: frozenset[str] = frozenset()
    select_by: str = "accuracy"
    averaged_epochs: tuple[int, int] | None = None

    @property
    def labels(self) -> list[str]:
        """Label names, in the order of ids."""
        return list(self.predictions.columns[3:])


def draw_learning_curves(axes: Axes, result: Result) -> None:
    """Draw the losses and the metric of each epoch; a line marks the best epoch, or a band those that were averaged."""
    epochs, metric = result.epochs, result.select_by.replace("_", " ")
    for name, colour in (("train_loss", TRAIN_COLOUR), ("eval_loss", EVAL_COLOUR)):
        axes.plot(epochs.index, epochs[name], color=colour, marker=".", label=name.replace("_", " "))
    if result.averaged_epochs:
        axes.axvspan(*result.averaged_epochs, color="grey", alpha=0.2)
    else:
        axes.axvline(result.best_epoch, color="grey", linestyle=":")
    axes.set(xlabel="epoch", ylabel="cross-entropy", ylim=(0, None), title="Learning curves")
    metric_axes = axes.twinx()
    values = epochs[f"eval_{result.select_by}"]
    metric_axes.plot(epochs.index, values, color="black", linestyle="--", marker=".", label=f"eval {metric}")
    metric_axes.set(ylabel=metric, ylim=(0, 1.03))
    axes.set_box_aspect(0.8)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(handles=[*axes.lines[:2], *metric_axes.lines], loc="center right")


def count_confusions(result: Result) -> np.ndarray:
    """Count the clips by actual label (rows) and predicted label (columns): int64, shape (labels, labels)."""
    return confusion_matrix(result.predictions["label"], result.predictions["prediction"], labels=result.labels)


def draw_confusion(axes: Axes, result: Result) -> None:
    """Draw how many clips of each label were predicted as which; darker means a larger share of the row."""
    counts, step = count_confusions(result), -(-len(result.labels) // MAX_LABELS)
    labels = [label_text(label, result.undrawable) for label in result.labels[::step]]
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="predicted", ylabel="actual", title="Confusion matrix")
    axes.set_xticks(range(0, len(counts), step), labels, rotation=45, ha="right")
    axes.set_yticks(range(0, len(counts), step), labels)
    for row, column in zip(*counts.nonzero()) if step == 1 else []:
        colour = "white" if shares[row, column] > 0.5 else "black"
        axes.text(column, row, counts[row, column], ha="center", va="center", color=colour, fontsize=8)


def draw_reliability(axes: Axes, result: Result) -> None:
    """Draw accuracy by the probability of the predicted label; larger dots have more clips."""
    points = [(row["confidence"], row["accuracy"], row["n_clips"]) for row in result.reliability if row["n_clips"]]
    confidence, accuracy, n = np.array(points).T
    axes.plot([0, 1], [0, 1], color="grey", linestyle=":")
    axes.vlines(confidence, confidence, accuracy, color=EVAL_COLOUR)
    axes.scatter(confidence, accuracy, s=20 + 300 * n / n.sum(), color=TRAIN_COLOUR, zorder=3, clip_on=False)
    axes.set(xlim=(0, 1.03), ylim=(0, 1.03), aspect="equal", title="Reliability")
    axes.set(xlabel="probability of the predicted label", ylabel="accuracy")


def draw_answers(axes: Axes, result: Result) -> None:
    """Draw the accuracy of the answers, and the share of the background that gets a label, by the share of answers."""
    curve, answer = result.answer["curve"], result.answer
    coverage = [row["coverage"] for row in curve]
    axes.plot(coverage, [row["accuracy"] for row in curve], color=TRAIN_COLOUR, marker=".", label="accuracy of answers")
    points = [(answer["accuracy"], TRAIN_COLOUR)]
    if answer["let_through"] is not None:
        through = [row["let_through"] for row in curve]
        axes.plot(coverage, through, color=EVAL_COLOUR, marker=".", label="background let through")
        points.append((answer["let_through"], EVAL_COLOUR))
    if answer["threshold"] is not None:
        line = axes.axvline(answer["coverage"], color="grey", linestyle=":")
        line.set_label(f"threshold {answer['threshold']:.2f}")
        for value, colour in points:
            if value is not None:
                axes.scatter(answer["coverage"], value, s=60, color=colour, zorder=3, clip_on=False)
    axes.set(xlim=(0, 1.03), ylim=(0, 1.03), aspect="equal", title="Answers")
    axes.set(xlabel="share of the clips that get a label", ylabel="share")
    axes.legend(loc="center left")


FIGURES: dict[str, Callable[[Axes, Result], None]] = {
    "learning_curves": draw_learning_curves,
    "confusion": draw_confusion,
    "reliability": draw_reliability,
    "answers": draw_answers,
}


def _confusion_size(result: Result, cell: float) -> tuple[float, float]:
    """Return width and height of the confusion matrix with its labels, in inches. cell: of a row, at least."""
    matrix = max(3.0, cell * min(len(result.labels), MAX_LABELS))
    labels = 0.08 * max(text_width(label_text(label, result.undrawable)) for label in result.labels)
    return max(5.0, matrix + labels + 1.2), max(4.8, matrix + 0.75 * labels + 1.2)


def _lay_out(figure: Figure) -> None:
    """Place the axes, twice: after a single time, labels of axes with a fixed shape can be cut off."""
    engine = figure.get_layout_engine()
    assert engine is not None
    for _ in range(2):
        engine.execute(figure)


def save_result(file: Path, result: Result, title: str) -> None:
    """Write all figures as one PNG, the same bytes for the same result."""
    families, missing = find_fonts(result.labels)
    result = result._replace(undrawable=frozenset(missing))
    width, height = _confusion_size(result, 0.25)
    widths = [width if draw is draw_confusion else 5 for draw in FIGURES.values()]
    with plt.rc_context({"font.family": families}):
        figure, axes = plt.subplots(
            1, len(FIGURES), figsize=(sum(widths), height), width_ratios=widths, layout="constrained"
        )
        for draw, part in zip(FIGURES.values(), axes):
            draw(part, result)
        figure.suptitle(title)
        _lay_out(figure)
        figure.set_layout_engine("none")  # or savefig would place the axes once more
        figure.savefig(file, format="png", dpi=100, metadata={"Software": None})
        plt.close(figure)
    if missing:
        print(
            f"warning: no font of this machine has all characters of the labels, so {FIGURE} shows {len(missing)} as "
            f"codes such as {code_of(min(missing))}; install one, e.g. a Noto font, then dvc repro --force evaluate"
        )


def render_svg(draw: Callable[[Axes, Result], None], result: Result) -> bytes:
    """Draw one figure as SVG, the same bytes for the same result."""
    size = _confusion_size(result, 0.4) if draw is draw_confusion else (5.0, 4.5)
    families, _ = find_fonts(result.labels)
    with plt.rc_context(SVG | {"font.family": families}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)  # the browser has other fonts
        figure, axes = plt.subplots(figsize=size, layout="constrained")
        draw(axes, result)
        _lay_out(figure)
        file = io.BytesIO()
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
        plt.close(figure)
    return file.getvalue()


def draw_spectrogram(samples: np.ndarray, sampling_rate: int) -> bytes:
    """Draw a spectrogram as PNG: power down to 80 dB below the maximum, log frequency from MIN_HZ up.

    Args:
        samples: float32, shape (samples,), mono.
    """
    width, height = SPECTROGRAM_SIZE
    starts = np.linspace(0, max(0, len(samples) - FRAME), width).astype(int)
    decibels = 10 * np.log10(power_spectrogram(samples, FRAME, starts) + 1e-10)
    rows, bins = np.geomspace(sampling_rate / 2, MIN_HZ, height), np.fft.rfftfreq(FRAME, 1 / sampling_rate)
    image = np.stack([np.interp(rows, bins, frame) for frame in decibels], axis=1)
    levels = np.round(np.clip((image - image.max()) / DECIBELS + 1, 0, 1) * (COLOURS - 1)).astype(np.uint8)
    image_file = Image.fromarray(levels).convert("P")
    palette = matplotlib.colormaps["magma"](np.linspace(0, 1, COLOURS), bytes=True)[:, :3]
    image_file.putpalette(palette.tobytes())
    file = io.BytesIO()
    image_file.save(file, "png", optimize=True)
    return file.getvalue()
