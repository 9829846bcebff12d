"""What the test clips are worth without the model: the commonest label, and a logistic regression on the spectrum."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.fft import rfft
from scipy.signal.windows import hann
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm
from transformers.audio_utils import mel_filter_bank

from stages.common import audio
from stages.common.stage import StageError

RATE = 16_000  # Hz
FRAME, HOP = 1024, 512  # samples: 64 ms, every 32 ms
BANDS = 64
QUIET = 1e-6  # added to the power before the logarithm, so that silence has one
MEL = mel_filter_bank(FRAME // 2 + 1, BANDS, 0.0, RATE / 2, RATE).astype(np.float32)
WINDOW = hann(FRAME, sym=False).astype(np.float32)


def spectrum(samples: np.ndarray) -> np.ndarray:
    """Mean and standard deviation over time of the log-mel spectrum: float32 (2 * BANDS,).

    samples: float32 (samples,) at RATE; zeros fill up a clip that is shorter than a frame.
    """
    samples = np.pad(samples, (0, max(0, FRAME - len(samples))))
    frames = np.lib.stride_tricks.sliding_window_view(samples, FRAME)[::HOP]
    bands = np.log(np.abs(rfft(frames * WINDOW)) ** 2 @ MEL + QUIET)
    return np.concatenate([bands.mean(axis=0), bands.std(axis=0)])


def spectra(paths: list[Path], seconds: float, threads: int | None) -> np.ndarray:
    """The `spectrum` of every file's first seconds: float32 (files, 2 * BANDS), the same for any number of threads."""
    with ThreadPoolExecutor(threads) as pool:
        rows = pool.map(lambda path: spectrum(audio.load(path, RATE, seconds)), paths)
        return np.stack(list(tqdm(rows, "baseline", len(paths), unit="clip")))


def baseline(
    raw: Path, clips: pd.DataFrame, splits: pd.DataFrame, seconds: float, threads: int | None
) -> dict[str, float]:
    """The test clips' accuracy by the commonest label and by the spectrum, both learnt from the train split alone.

    Args:
        raw: the folder to which the paths of clips refer.
        clips: clips.csv, with the columns clip, label and path; splits: splits.csv, with clip and split.
        seconds: of each clip, from its start; what the model hears of it.
        threads: None takes all.

    Raises:
        StageError: splits lists a clip that clips does not have.
    """
    clips = clips.set_index("clip")
    if lost := sorted(set(splits["clip"]) - set(clips.index)):
        raise StageError(f"data/splits.csv lists clip {lost[0]}, data/raw/clips.csv does not have it; run dvc repro")
    train, test = (clips.loc[splits.loc[splits["split"] == name, "clip"]] for name in ("train", "test"))
    features = spectra([raw / path for path in [*train["path"], *test["path"]]], seconds, threads)
    models = {
        "majority": DummyClassifier(strategy="most_frequent"),
        "spectrum": make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)),
    }
    return {
        name: float(model.fit(features[: len(train)], train["label"]).score(features[len(train) :], test["label"]))
        for name, model in models.items()
    }
