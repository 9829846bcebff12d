"""The result at a glance: how the model learned, what it takes for what, and what its probabilities are worth."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # no screen needed

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from sklearn.metrics import confusion_matrix

TRAIN_COLOUR, EVAL_COLOUR = "#1f77b4", "#d62728"


def read_epochs(folder: Path) -> pd.DataFrame:
    """DVCLive's files, one per metric, as a table: one row per epoch, indexed by it; float64."""
    files = sorted(folder.glob("plots/metrics/*.tsv"))
    return pd.concat([pd.read_csv(file, sep="\t", index_col="step") for file in files], axis=1).rename_axis("epoch")


def draw_curves(axes: Axes, epochs: pd.DataFrame) -> None:
    for name, colour in (("train_loss", TRAIN_COLOUR), ("eval_loss", EVAL_COLOUR)):
        axes.plot(epochs.index, epochs[name], color=colour, marker=".", label=name.replace("_", " "))
    axes.set(xlabel="epoch", ylabel="cross-entropy", ylim=(0, None), title="Learning")
    right = axes.twinx()
    right.plot(epochs.index, epochs["eval_accuracy"], color="black", linestyle="--", marker=".", label="eval accuracy")
    right.set(ylabel="accuracy", ylim=(0, 1))
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(handles=[*axes.lines, *right.lines], loc="center right")


def draw_confusion(axes: Axes, actual: np.ndarray, predicted: np.ndarray, labels: list[str]) -> None:
    """actual, predicted: label ids, int64 (clips,)."""
    counts = confusion_matrix(actual, predicted, labels=range(len(labels)))
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="predicted", ylabel="actual", title=f"The {len(actual)} test clips")
    axes.set_xticks(range(len(labels)), labels, rotation=45, ha="right")
    axes.set_yticks(range(len(labels)), labels)
    for row, column in zip(*counts.nonzero()):
        shade = "white" if shares[row, column] > 0.5 else "black"
        axes.text(column, row, counts[row, column], ha="center", va="center", color=shade, fontsize=8)


def draw_reliability(axes: Axes, rows: list[dict[str, float | int | None]]) -> None:
    """rows: as `scores.reliability` gives them; the larger a dot, the more clips."""
    points = [(row["confidence"], row["accuracy"], row["n"]) for row in rows if row["n"]]
    confidence, accuracy, n = np.array(points).T
    axes.plot([0, 1], [0, 1], color="grey", linestyle=":")
    axes.vlines(confidence, confidence, accuracy, color=EVAL_COLOUR)
    axes.scatter(confidence, accuracy, s=20 + 300 * n / n.sum(), color=TRAIN_COLOUR, zorder=3)
    axes.set(xlim=(0, 1.03), ylim=(0, 1.03), aspect="equal", title="Reliability")
    axes.set(xlabel="probability of the answer", ylabel="share that is right")


def save_result(
    file: Path,
    epochs: pd.DataFrame,
    actual: np.ndarray,
    predicted: np.ndarray,
    labels: list[str],
    reliability: list[dict[str, float | int | None]],
    title: str,
) -> None:
    """Write all three as one PNG; the same bytes for the same numbers."""
    figure, axes = plt.subplots(1, 3, figsize=(15, 4.8), layout="constrained")
    draw_curves(axes[0], epochs)
    draw_confusion(axes[1], actual, predicted, labels)
    draw_reliability(axes[2], reliability)
    figure.suptitle(title)
    figure.savefig(file, format="png", dpi=100, metadata={"Software": None})
    plt.close(figure)
