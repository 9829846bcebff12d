"""Write the report of a result: one HTML file that needs no network, no script and no other file."""

import base64
import io
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
import soundfile

from stages.common.audio import load_audio
from stages.common.names import show_with_spaces
from stages.common.tables import read_json, read_table, require_intact, select_scores
from stages.evaluate.figures import (
    FIGURES,
    MAX_LABELS,
    MIN_HZ,
    SPECTROGRAM_SIZE,
    Result,
    count_confusions,
    draw_spectrogram,
    render_svg,
)

TEMPLATE = "report.html"  # beside this file
MAX_ERRORS = 12  # errors that are shown
MAX_PROBABILITIES = 5  # of each error, if at least MIN_PROBABILITY
MIN_PROBABILITY = 0.01
CLIP_SECONDS = 12.0  # of each error, from the clip's start
SAMPLING_RATE = 22_050  # Hz, that of GTZAN
# libsndfile's scale from 0, the best, to 1: this is 56 kbit/s. MP3, because OGG streams have a random number.
COMPRESSION = 0.7


def encode_mp3(samples: np.ndarray) -> bytes:
    """Encode as MP3. samples: float32, shape (samples,), mono at SAMPLING_RATE."""
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


def show_text(value: Any) -> Any:
    """Return a text as the page should show it; other values, and what the template marks as HTML, as they are."""
    return show_with_spaces(value) if type(value) is str else value


def list_confusions(result: Result) -> list[tuple[str, str, int]]:
    """Return (actual label, predicted label, number of clips) of all errors, the most frequent first."""
    counts = count_confusions(result)
    np.fill_diagonal(counts, 0)
    rows = [(result.labels[i], result.labels[j], int(counts[i, j])) for i, j in zip(*counts.nonzero())]
    return sorted(rows, key=lambda row: -row[2])


def select_errors(predictions: pd.DataFrame) -> pd.DataFrame:
    """Return the wrong predictions with the highest probabilities, the most confident first."""
    wrong = predictions[predictions["label"] != predictions["prediction"]]
    order = np.argsort(-wrong.iloc[:, 3:].max(axis=1).to_numpy(), kind="stable")
    return wrong.iloc[order[:MAX_ERRORS]]


def describe_error(row: pd.Series, file: Path) -> dict[str, Any]:
    """Return what the report shows of one error. row: of predictions.csv; file: the clip's recording."""
    samples = load_audio(file, SAMPLING_RATE, CLIP_SECONDS)
    probabilities = row.iloc[3:].astype(float).sort_values(ascending=False, kind="stable")
    highest = probabilities[probabilities >= MIN_PROBABILITY].iloc[:MAX_PROBABILITIES].to_dict()
    return {
        "clip": row["clip"],
        "label": row["label"],
        "prediction": row["prediction"],
        "probabilities": highest | {row["label"]: probabilities[row["label"]]},
        "seconds": len(samples) / SAMPLING_RATE,
        "mp3": base64.b64encode(encode_mp3(samples)).decode(),
        "png": base64.b64encode(draw_spectrogram(samples, SAMPLING_RATE)).decode(),
    }


def find_recording(raw: Path, clip: pd.Series) -> Path:
    """Return the file of a clip, a row of clips.csv; raise UserError if it is damaged."""
    require_intact(raw / clip["path"], clip["sha256"])
    return raw / clip["path"]


def write_report(file: Path, metrics: dict[str, Any], split: dict[str, Any], result: Result, raw: Path) -> None:
    """Write the report, the same bytes for the same content.

    Args:
        metrics: the content of metrics/metrics.json.
        split: the content of metrics/split.json.
        result: what the figures show.
        raw: data/raw, with clips.csv, source.json and the recordings.
    """
    predictions = result.predictions
    clips = read_table(raw / "clips.csv").set_index("clip")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,  # users choose the names of clips and labels
        finalize=show_text,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template(TEMPLATE).render(
        metrics=metrics,
        numbers=select_scores(metrics),
        split=split,
        source=read_json(raw / "source.json"),
        epochs=result.epochs.reset_index().to_dict("records"),
        best_epoch=result.best_epoch,
        select_by=result.select_by.replace("_", " "),
        averaged_epochs=result.averaged_epochs,
        figures={name: base64.b64encode(render_svg(draw, result)).decode() for name, draw in FIGURES.items()},
        labels=result.labels,
        confusion=count_confusions(result).tolist() if len(result.labels) <= MAX_LABELS else None,
        confusions=list_confusions(result),
        confidence=predictions[result.labels].max(axis=1).mean(),
        wrong=int((predictions["label"] != predictions["prediction"]).sum()),
        min_hz=MIN_HZ,
        max_hz=SAMPLING_RATE / 2,
        size=SPECTROGRAM_SIZE,
        errors=[
            describe_error(row, find_recording(raw, clips.loc[row["clip"]]))
            for _, row in select_errors(predictions).iterrows()
        ],
    )
    file.write_text(page, encoding="utf-8")
