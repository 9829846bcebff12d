"""A report of a result to look at and listen to: one HTML file that needs no network, no script and no other file."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
import soundfile
from matplotlib import colormaps
from matplotlib.ticker import MaxNLocator
from PIL import Image
from sklearn.metrics import confusion_matrix

from stages.common import audio
from stages.common.tables import read_table

TEMPLATE = "report.html"  # beside this file
WORST = 12  # errors to listen to
SHOWN = 5  # probabilities of each, at most, from LEAST up
LEAST = 0.01
SECONDS = 12.0  # of each, from the clip's start
SAMPLING_RATE = 22_050  # Hz, GTZAN's own
# libsndfile's scale from 0, the best, to 1: this is 56 kbit/s here. MP3, not OGG, whose streams have a random number.
COMPRESSION = 0.7
FFT = 2048  # samples, 93 ms
LOWEST = 50  # Hz, the bottom of a spectrogram
SHADES = 32  # more look the same and take up to five times the bytes
PICTURE_SIZE = (360, 112)  # moments, frequencies


def encode_mp3(samples: np.ndarray) -> bytes:
    """samples: float32 (samples,), mono at SAMPLING_RATE."""
    file = io.BytesIO()
    soundfile.write(
        file,
        samples,
        SAMPLING_RATE,
        format="MP3",
        subtype="MPEG_LAYER_III",
        bitrate_mode="CONSTANT",
        compression_level=COMPRESSION,
    )
    return file.getvalue()


def draw_spectrogram(samples: np.ndarray) -> bytes:
    """A PNG of PICTURE_SIZE: power in dB from 80 below the loudest, frequencies from LOWEST up, evenly by octaves.

    samples: float32 (samples,), mono at SAMPLING_RATE; what is shorter than FFT is padded with silence.
    """
    moments, rows = PICTURE_SIZE
    samples = np.pad(samples, (0, max(0, FFT - len(samples))))
    starts = np.linspace(0, len(samples) - FFT, moments).astype(int)
    frames = np.stack([samples[start : start + FFT] for start in starts]) * np.hanning(FFT)
    decibels = 10 * np.log10(np.abs(np.fft.rfft(frames)) ** 2 + 1e-10)
    wanted = np.geomspace(SAMPLING_RATE / 2, LOWEST, rows)
    image = np.stack([np.interp(wanted, np.fft.rfftfreq(FFT, 1 / SAMPLING_RATE), frame) for frame in decibels], axis=1)
    shades = np.round(np.clip((image - image.max()) / 80 + 1, 0, 1) * (SHADES - 1)).astype(np.uint8)
    picture = Image.fromarray(shades).convert("P")
    picture.putpalette(colormaps["magma"](np.linspace(0, 1, SHADES), bytes=True)[:, :3].tobytes())
    file = io.BytesIO()
    picture.save(file, "png", optimize=True)
    return file.getvalue()


def worst_errors(predictions: pd.DataFrame) -> pd.DataFrame:
    """The wrong predictions with the highest probability for the wrong label, the surest first."""
    wrong = predictions[predictions["label"] != predictions["prediction"]]
    order = np.argsort(-wrong.iloc[:, 3:].max(axis=1).to_numpy(), kind="stable")
    return wrong.iloc[order[:WORST]]


def describe_error(row: pd.Series, file: Path) -> dict[str, Any]:
    """What the report shows of one error. row: of predictions.csv; file: the clip's recording."""
    samples = audio.load(file, SAMPLING_RATE, SECONDS)
    probabilities = row.iloc[3:].astype(float).sort_values(ascending=False, kind="stable")
    most = probabilities[probabilities >= LEAST].iloc[:SHOWN].to_dict()
    return {
        "clip": row["clip"],
        "label": row["label"],
        "prediction": row["prediction"],
        "probabilities": most | {row["label"]: probabilities[row["label"]]},
        "seconds": len(samples) / SAMPLING_RATE,
        "mp3": base64.b64encode(encode_mp3(samples)).decode(),
        "png": base64.b64encode(draw_spectrogram(samples)).decode(),
    }


def curves(epochs: pd.DataFrame, names: list[str], top: float = 0.0) -> dict[str, Any]:
    """The points of learning curves, and round numbers for the axes, which start at zero and reach at least to top."""
    values = epochs[names].to_numpy(dtype=float)
    finite = np.isfinite(values)  # a loss that overflowed has no place in a picture
    return {
        "x": MaxNLocator(6, integer=True).tick_values(0, epochs.index[-1]).tolist(),
        "y": MaxNLocator(5).tick_values(0, values[finite].max(initial=top) or 1.0).tolist(),
        "lines": {
            name.replace("_", " "): list(zip(epochs.index[known], column[known]))
            for name, column, known in zip(names, values.T, finite.T)
        },
    }


def write_report(
    file: Path,
    metrics: dict[str, Any],
    split: dict[str, Any],
    epochs: pd.DataFrame,
    predictions: pd.DataFrame,
    raw: Path,
) -> None:
    """Write the report; the same bytes for the same content.

    Args:
        metrics: the content of metrics/metrics.json.
        split: the content of metrics/split.json.
        epochs: as `pictures.read_epochs` gives them.
        predictions: the content of metrics/predictions.csv: text clip, label, prediction; then float64, one
            probability column per label.
        raw: data/raw, with clips.csv, source.json and the recordings.
    """
    labels = list(predictions.columns[3:])
    paths = read_table(raw / "clips.csv").set_index("clip")["path"]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,  # clips and labels are named by people
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template(TEMPLATE).render(
        metrics=metrics,
        split=split,
        source=json.loads((raw / "source.json").read_text()),
        labels=labels,
        epochs=epochs.reset_index().to_dict("records"),
        best=epochs["eval_accuracy"].idxmax(),  # the first of equals, as in training
        losses=curves(epochs, ["train_loss", "eval_loss"]),
        accuracies=curves(epochs, ["eval_accuracy"], top=1.0),
        confusion=confusion_matrix(predictions["label"], predictions["prediction"], labels=labels).tolist(),
        confidence=predictions[labels].max(axis=1).mean(),
        wrong=int((predictions["label"] != predictions["prediction"]).sum()),
        lowest=LOWEST,
        highest=SAMPLING_RATE / 2,
        size=PICTURE_SIZE,
        errors=[describe_error(row, raw / paths[row["clip"]]) for _, row in worst_errors(predictions).iterrows()],
    )
    file.write_text(page, encoding="utf-8")
