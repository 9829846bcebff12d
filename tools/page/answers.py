"""Classify a recording, with the functions of tools.classify, and show the result."""

from pathlib import Path

import numpy as np
import soundfile

from stages.common.answers import NONE, Answering, is_answered
from stages.common.audio import open_audio, read_blocks
from stages.common.errors import UserError
from stages.common.extensions import UNDECODABLE
from stages.common.names import show_with_spaces
from stages.common.paths import TRAINING
from stages.common.tables import read_json
from stages.publish.space.app import (
    MAX_SECONDS,
    SOUND_RATE,
    WINDOW_SECONDS,
    Window,
    show_bars,
    show_clip,
    show_message,
    show_timeline,
)
from tools.classify.audio import Windows, read_stretches
from tools.classify.batches import BAD_FILE, classify
from tools.classify.model import Classifier

BATCH = 8  # windows
# One stretch for all of a recording, to play and draw it; a longer recording has a second stretch.
LIMIT = (MAX_SECONDS + 1) * SOUND_RATE
WHOLE = Windows(SOUND_RATE, LIMIT, LIMIT, LIMIT, 1)
TOO_LONG = f"longer than {MAX_SECONDS // 60} minutes; cut it, or use python -m tools.classify"


def require_short(file: Path) -> None:
    """Raise UserError if a file is longer than MAX_SECONDS. It decodes no more than that, whatever the header states.

    A broken file passes: what reads it next has a better message.
    """
    if file.suffix.lower() in UNDECODABLE:
        return
    try:
        with open_audio(file) as sound:
            most = (MAX_SECONDS + 1) * sound.samplerate
            frames = sum(map(len, read_blocks(sound, most)))
            if frames > MAX_SECONDS * sound.samplerate:
                raise UserError(TOO_LONG)
    except (*BAD_FILE[2:], BAD_FILE[0], ValueError):
        return


def read_sound(file: Path) -> np.ndarray:
    """Read a recording to play and draw it: float32, (samples,), mono at SOUND_RATE.

    Raises:
        UserError: it is too long.
        AudioError: it is broken, or needs FFmpeg, which is not installed.
    """
    require_short(file)
    samples = next(read_stretches(file, WHOLE)).samples
    if len(samples) > MAX_SECONDS * SOUND_RATE:
        raise UserError(TOO_LONG)
    return samples


class Answers:
    """Results of a model, as parts of the page.

    Attributes:
        window: seconds, of the timeline.
    """

    def __init__(self, classifier: Classifier, folder: Path, window: float | None) -> None:
        """Choose the windows.

        Args:
            folder: of the model. window: seconds; None: as in the training, or WINDOW_SECONDS.

        Raises:
            UserError: the window does not fit the model.
        """
        self.classifier = classifier
        rate, most = classifier.extractor.sampling_rate, classifier.max_seconds
        file = folder / TRAINING.name
        trained = read_json(file)["train"].get("window_seconds") if window is None and file.exists() else None
        self.window = window or min(trained or WINDOW_SECONDS, most)
        clip, length = round(most * rate), round(self.window * rate)
        if not classifier.shortest <= length <= clip:
            least = classifier.shortest / rate
            raise UserError(f"--window {self.window:g}: choose {least:.3g} to {most:g} s, as the model needs")
        self.clips = Windows(rate, clip, clip, clip, classifier.shortest)
        self.windows = Windows(rate, clip, length, length, classifier.shortest)

    def classify(self, file: Path) -> tuple[np.ndarray, list[Window]]:
        """Return the probabilities of a recording, as evaluate computes them without windows, and those of its windows.

        Raises:
            UserError: it cannot be classified.
        """
        found = []
        for windows in (self.clips, self.windows):
            [recording] = classify([str(file)], self.classifier, windows, BATCH, lambda seconds: None)
            if recording.reason:
                raise UserError(recording.reason)
            found.append(recording)
        clips, parts = found
        order = sorted(zip(parts.times, parts.probabilities), key=lambda part: part[0])
        return clips.mean, [Window(start, end, row) for (start, end), row in order]

    def show(self, file: Path, name: str, actual: str | None = None) -> str:
        """Return the result of a recording, or a message why it has none.

        Args:
            name: to show, in place of the path. actual: its label, if it is known.
        """
        try:
            samples = read_sound(file)
            probabilities, windows = self.classify(file)
        except BAD_FILE as error:
            return show_message(f"{name} cannot be used: {explain(error, file, name)}")
        labels = [show_with_spaces(label) for label in self.classifier.labels]
        title = make_title(probabilities, self.classifier.labels, self.classifier.answering, actual)
        actual = None if actual is None else show_with_spaces(actual)
        note = f"{show_with_spaces(name)}, {len(samples) / SOUND_RATE:.1f} s, windows of {self.window:g} s"
        bars, timeline = show_bars(labels, probabilities, actual), show_timeline(samples, labels, windows)
        return show_clip(title, note, samples, bars, timeline)


def make_title(probabilities: np.ndarray, labels: list[str], answering: Answering, actual: str | None) -> str:
    """Return the answer to a recording, and whether it is correct if its label is known.

    Args:
        probabilities: float, (labels,). actual: its label; NONE is the correct answer if it is the background.
    """
    answered, label = is_answered(probabilities, labels, answering), labels[int(np.argmax(probabilities))]
    prediction = show_with_spaces(label) if answered else NONE
    if actual is None:
        return prediction
    is_correct = actual == (label if answered else answering.background)
    return f"{prediction} – correct" if is_correct else f"{prediction} – wrong, the label is {show_with_spaces(actual)}"


def explain(error: Exception, file: Path, name: str) -> str:
    """Return why a file cannot be used, in one line without its path."""
    if isinstance(error, UserError):
        text = error.message
    elif isinstance(error, soundfile.LibsndfileError):
        text = error.error_string
    else:
        text = getattr(error, "strerror", None) or str(error)
    return text.replace(str(file.absolute()), name).replace(str(file.parent.absolute()), "")
