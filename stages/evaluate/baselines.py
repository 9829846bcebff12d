"""Measure two baselines that need no model: the most frequent label, and a logistic regression on the spectrum.

Clips of the background are left out.

Reads   params.yaml: resample_encode.max_seconds and segments; data/raw/; data/splits.csv
Writes  metrics/baselines.json: accuracy of each baseline
Run     python -m stages.evaluate.baselines
"""

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from threadpoolctl import threadpool_limits
from tqdm import tqdm

import stages.common.interrupts  # noqa: F401  # first, so that Ctrl-C is handled while the rest is imported
from stages.common.audio import load_audio, power_spectrogram
from stages.common.outputs import atomic_outputs, require_files
from stages.common.params import Number, load_params
from stages.common.paths import BASELINES, CLIPS, DATASET_SOURCE, RAW, SPLITS
from stages.common.segments import read_segments
from stages.common.stage import run_stage
from stages.common.threads import map_in_threads

if TYPE_CHECKING:
    from pandas import DataFrame

SAMPLING_RATE = 16_000  # Hz
FRAME, HOP = 1024, 512  # samples: 64 ms, every 32 ms
BANDS = 64
FRAMES = 1 << 13  # frames whose spectra are in memory at a time: four minutes
MIN_POWER = 1e-6  # added before the logarithm, for silence


@cache
def mel_filters() -> np.ndarray:
    """Return the mel filter bank: float32, shape (FRAME // 2 + 1, BANDS)."""
    from transformers.audio_utils import mel_filter_bank

    return mel_filter_bank(FRAME // 2 + 1, BANDS, 0.0, SAMPLING_RATE / 2, SAMPLING_RATE).astype(np.float32)


def summarize_spectrum(samples: np.ndarray) -> np.ndarray:
    """Compute mean and standard deviation over time of the log-mel spectrum.

    Args:
        samples: float32, shape (samples,), at SAMPLING_RATE.

    Returns:
        float32, shape (2 * BANDS,).
    """
    starts = range(0, max(1, 1 + (len(samples) - FRAME) // HOP), FRAMES)
    parts = (samples[start * HOP : (start + FRAMES - 1) * HOP + FRAME] for start in starts)
    powers = [power_spectrogram(part, FRAME, slice(None, None, HOP)) @ mel_filters() for part in parts]
    bands = np.log(np.concatenate(powers) + MIN_POWER)
    return np.concatenate([bands.mean(axis=0), bands.std(axis=0)])


def summarize_segments(file: Path, seconds: float) -> np.ndarray:
    """Average the summaries of all segments of a file: float32, shape (2 * BANDS,)."""
    total, count = np.zeros(2 * BANDS, np.float32), 0
    for segment in read_segments(file, SAMPLING_RATE, seconds):
        total, count = total + summarize_spectrum(segment.samples), count + 1
    return total / count


def summarize_files(files: list[tuple[Path, str]], seconds: float, segments: bool = False) -> np.ndarray:
    """Summarize the spectrum of each file's first seconds, or of all: float32, shape (files, 2 * BANDS).

    Args:
        files: path and SHA-256 of each. segments: use all segments of these seconds, as the model does.
    """
    from stages.common.tables import require_intact

    def summarize(file: tuple[Path, str]) -> np.ndarray:
        require_intact(*file)
        if segments:
            return summarize_segments(file[0], seconds)
        return summarize_spectrum(load_audio(file[0], SAMPLING_RATE, seconds))

    # Or each thread would multiply matrices in a further thread for each core, whose number changes the rounding.
    with threadpool_limits(1, "blas"):
        return np.stack(list(tqdm(map_in_threads(summarize, files), "baselines", len(files), unit="clip")))


def measure_baselines(
    raw: Path, clips: "DataFrame", splits: "DataFrame", seconds: float, segments: bool = False
) -> dict[str, float]:
    """Measure the accuracy of the baselines on the test clips, fitted to the train clips.

    Args:
        raw: the folder to which the paths of clips refer.
        clips: columns clip, label, path and sha256. splits: columns clip, label and split.
        seconds: use at most the first seconds of each clip, as the model does. segments: use all of it, as the model
            does, in segments of these seconds.

    Returns:
        Accuracy of `majority` (the most frequent label) and `spectrum` (logistic regression).

    Raises:
        UserError: clips lacks a clip of splits, or has another label for it, or its recording is damaged.
    """
    from sklearn.dummy import DummyClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from stages.common.tables import require_same_labels

    require_same_labels(clips, splits)
    clips = clips.set_index("clip")
    train, test = (clips.loc[splits.loc[splits["split"] == name, "clip"]] for name in ("train", "test"))
    both = [*zip(train["path"], train["sha256"]), *zip(test["path"], test["sha256"])]
    features = summarize_files([(raw / path, sha256) for path, sha256 in both], seconds, segments)
    models = {
        "majority": DummyClassifier(strategy="most_frequent"),
        "spectrum": make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)),
    }
    return {
        name: float(model.fit(features[: len(train)], train["label"]).score(features[len(train) :], test["label"]))
        for name, model in models.items()
    }


def main() -> None:
    """Write the accuracies."""
    from stages.common.tables import read_json, read_table, write_json

    seconds = load_params("resample_encode.max_seconds", Number)
    segments = load_params("resample_encode.segments", bool)
    require_files(CLIPS, SPLITS, DATASET_SOURCE)
    splits = read_table(SPLITS)
    measured = splits[splits["label"] != read_json(DATASET_SOURCE).get("background")]
    accuracies = measure_baselines(RAW, read_table(CLIPS), measured, seconds, segments)
    with atomic_outputs(BASELINES) as [file]:
        write_json(file, accuracies)  # not rounded, since a model may be exactly as good
    print(f"{BASELINES}: " + ", ".join(f"{name} {value:.3f}" for name, value in accuracies.items()))


if __name__ == "__main__":
    run_stage(main)
