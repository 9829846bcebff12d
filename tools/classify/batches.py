"""Decode recordings on threads, and classify their windows in batches of one length, in bounded memory."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile

from stages.common.containers import AudioError
from stages.common.errors import UserError
from stages.common.threads import map_in_threads
from tools.classify.audio import Stretch, Windows, read_stretches
from tools.classify.model import Classifier

MAX_WAITING = 4  # batches of windows that wait for others of the same length
BAD_FILE = (AudioError, UserError, soundfile.LibsndfileError, OSError)
Stretches = Iterator[tuple[Stretch, list[np.ndarray]]]


@dataclass
class Recording:
    """A recording and the predictions of its windows.

    file: as it is named in the results. times: start and end of each window, seconds.
    probabilities: of each window, float64 (labels,). left_out: seconds at the end that no window has.
    reason: why the recording cannot be classified; None if it can.
    """

    file: str
    times: list[tuple[float, float]] = field(default_factory=list)
    probabilities: list[np.ndarray] = field(default_factory=list)
    left_out: float = 0.0
    reason: str | None = None
    waiting: int = 0
    is_read: bool = False

    @property
    def mean(self) -> np.ndarray:
        """The mean of the windows' probabilities, float64 (labels,)."""
        return np.mean(self.probabilities, axis=0)


class Window(NamedTuple):
    """A window that waits for its batch. row: in the recording. features: float16, the model's input."""

    recording: Recording
    row: int
    features: np.ndarray


def classify(
    files: Iterable[str], classifier: Classifier, windows: Windows, batch_size: int, report: Callable[[float], object]
) -> Iterator[Recording]:
    """Yield recordings with their predictions, each as soon as it is complete, so not always in the order of the files.

    A thread for each core decodes and encodes the first stretch of a file, and checks the file to its end. Memory holds
    a few stretches for each thread, whatever the length of the recordings.

    Args:
        report: gets the seconds of each window that was classified.
    """
    waiting: dict[tuple[int, ...], list[Window]] = {}  # by shape, those first that wait longest
    recordings: list[Recording] = []
    for recording, stretches in map_in_threads(lambda file: _open(file, classifier, windows), files):
        recordings.append(recording)
        for window in _list_windows(recording, stretches, windows):
            shape = window.features.shape
            waiting.setdefault(shape, []).append(window)
            if len(waiting[shape]) == batch_size:
                _predict(waiting.pop(shape), classifier, report)
            elif sum(map(len, waiting.values())) > MAX_WAITING * batch_size:
                _predict(waiting.pop(next(iter(waiting))), classifier, report)
        yield from _take_complete(recordings)
    for batch in waiting.values():
        _predict(batch, classifier, report)
    yield from _take_complete(recordings)


def _open(file: str, classifier: Classifier, windows: Windows) -> tuple[Recording, Stretches]:
    """Read the first stretch of a recording; the iterator reads the others later."""
    recording = Recording(file)
    encoded = (
        (stretch, classifier.encode(stretch, Path(file), windows.length))
        for stretch in read_stretches(Path(file), windows)
    )
    try:
        return recording, chain([next(encoded)], encoded)
    except BAD_FILE as error:
        recording.reason = _reason(error)
        return recording, iter(())


def _list_windows(recording: Recording, stretches: Stretches, windows: Windows) -> Iterator[Window]:
    """Yield the windows of a recording, and note their times, and why it cannot be read further."""
    rate = windows.sampling_rate
    try:
        for stretch, features in stretches:
            recording.left_out = stretch.left_out / rate
            for start, array in zip(stretch.starts, features):
                begin = stretch.first + start
                end = min(begin + windows.length, stretch.first + len(stretch.samples))
                recording.times.append((begin / rate, end / rate))
                recording.probabilities.append(np.empty(0))
                recording.waiting += 1
                yield Window(recording, len(recording.times) - 1, array)
    except BAD_FILE as error:
        recording.reason = _reason(error)
    recording.is_read = True


def _predict(batch: list[Window], classifier: Classifier, report: Callable[[float], object]) -> None:
    for window, row in zip(batch, classifier.predict([window.features for window in batch])):
        recording = window.recording
        recording.probabilities[window.row] = row
        recording.waiting -= 1
        start, end = recording.times[window.row]
        report(end - start)
        if not np.isfinite(row).all():
            recording.reason = "the predictions are not numbers; is the model intact?"


def _take_complete(recordings: list[Recording]) -> Iterator[Recording]:
    """Remove the complete recordings from a list, and yield them."""
    for recording in list(recordings):
        if recording.is_read and (recording.reason or not recording.waiting):
            recordings.remove(recording)
            yield recording


def _reason(error: Exception) -> str:
    """Return why a file cannot be read, without its name."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return error.message if isinstance(error, UserError) else str(error)
