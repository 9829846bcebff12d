"""Classify windows of recordings with a fine-tuned model, in batches of one length."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile
import torch
from accelerate.utils.memory import should_reduce_batch_size
from transformers import PreTrainedModel

from stages.common.architectures import receptive_field
from stages.common.classifier import load_classifier, load_config, load_extractor
from stages.common.containers import AudioError
from stages.common.device import find_device, is_bf16_chosen
from stages.common.errors import UserError
from stages.common.hub_id import read_id
from stages.common.paths import TRAINING
from stages.common.tables import read_json
from stages.common.threads import map_in_threads
from stages.resample_encode.features import encode_samples, extract_features, find_min_samples
from tools.classify_audio import Stretch, Windows, read_stretches

MAX_SECONDS = 30.0  # of a clip, for models without training.json; the default of resample_encode
MAX_WAITING = 4  # batches of windows that wait for others of the same length
BAD_FILE = (AudioError, UserError, soundfile.LibsndfileError, OSError)


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


@dataclass
class Classifier:
    """A model with its feature extractor.

    Attributes:
        labels: their names, in the order of ids.
        max_seconds: of a clip, as it was trained and evaluated.
        shortest: clip that the model can use, in samples.
        takes_samples: whether its input has a value for each sample, as that of HuBERT, and is no spectrogram.
        bf16: compute in bf16.
    """

    model: PreTrainedModel
    extractor: Any
    max_seconds: float
    shortest: int
    takes_samples: bool
    bf16: bool

    @property
    def labels(self) -> list[str]:
        """The names of the labels, in the order of ids."""
        return [str(label) for _, label in sorted(self.model.config.id2label.items())]

    def encode(self, stretch: Stretch, file: Path, length: int) -> list[np.ndarray]:
        """Return the model's input for each window of a stretch, float16.

        The feature extractor normalises samples over the stretch, as it did for the clips of the training; a
        spectrogram has a fixed length, so each window gets one.
        """
        if not self.takes_samples:
            cut = (stretch.samples[start : start + length] for start in stretch.starts)
            return [encode_samples(samples, file, self.extractor) for samples in cut]
        array = encode_samples(stretch.samples, file, self.extractor)
        return [array[start : start + length] for start in stretch.starts]

    @torch.inference_mode()
    def predict(self, features: list[np.ndarray]) -> np.ndarray:
        """Return the probabilities of windows of the same shape: float64 (windows, labels).

        Raises:
            UserError: they do not fit into memory.
        """
        device = self.model.device
        inputs = torch.from_numpy(np.stack(features)).to(device).float()
        try:
            with torch.autocast(device.type, torch.bfloat16, enabled=self.bf16):
                logits = self.model(inputs).logits.cpu().double()
        except RuntimeError as error:
            if not isinstance(error, torch.OutOfMemoryError) and not should_reduce_batch_size(error):
                raise
            raise UserError(
                f"{len(features)} windows do not fit into memory; lower --batch-size, or make --window shorter"
            ) from None
        several = self.model.config.problem_type == "multi_label_classification"
        return (logits.sigmoid() if several else logits.softmax(-1)).numpy()

    def find_used_seconds(self, seconds: float) -> float:
        """Return how much of a clip is in the model's input: AST's feature extractor cuts it at its own length."""
        rate = self.extractor.sampling_rate
        noise = np.random.default_rng(0).uniform(-0.5, 0.5, round(seconds * rate)).astype(np.float32)
        step = rate // 100
        if self.takes_samples or len(noise) <= 10 * step:
            return seconds
        complete = extract_features(noise, self.extractor)
        low, high = 0, len(noise) // step  # in hundredths of a second: the first is not enough, the second is
        while high - low > 1:
            middle = (low + high) // 2
            same = np.array_equal(extract_features(noise[: middle * step], self.extractor), complete)
            low, high = (low, middle) if same else (middle, high)
        return min(seconds, high / 100)


def find_folder(model: str) -> Path:
    """Return the folder of a model, or download it from the Hub into its cache. model: folder, or id on the Hub."""
    folder = Path(model).expanduser()
    if folder.exists() or model.startswith((".", "/", "~", "models/")):
        if not (folder / "config.json").is_file():
            raise UserError("no config.json; run dvc repro, or choose a folder of save_pretrained", file=folder)
        return folder
    from stages.common import hub

    try:
        name = read_id(model)
    except ValueError as error:
        raise UserError(f"--model: neither a folder nor an id on the Hub: {error}") from None
    patterns = ["config.json", "preprocessor_config.json", TRAINING.name, "*.safetensors*"]
    return hub.fetch_files("model", name, "main", patterns)[0]


def load_model(folder: Path, precision: str) -> Classifier:
    """Load a model for classification. precision: fp32, bf16, or auto, which is bf16 if the device has it.

    Raises:
        UserError: a file is missing or damaged, or no such model is on the Hub.
    """
    config, extractor = load_config(folder), load_extractor(folder)
    model = load_classifier(folder, config, new_head=False).to(find_device()).eval()
    settings = read_json(folder / TRAINING.name) if (folder / TRAINING.name).exists() else {}
    max_seconds = float(settings.get("resample_encode", {}).get("max_seconds", MAX_SECONDS))
    shortest = find_min_samples(extractor, receptive_field(config))
    second = np.zeros(max(shortest, extractor.sampling_rate), np.float32)
    takes_samples = extract_features(second, extractor).shape == second.shape
    return Classifier(model, extractor, max_seconds, shortest, takes_samples, is_bf16_chosen(precision))


def classify(
    files: Iterable[str], classifier: Classifier, windows: Windows, batch_size: int, report: Callable[[float], object]
) -> Iterator[Recording]:
    """Yield recordings with their predictions, each as soon as it is complete, so not always in the order of the files.

    A thread for each core decodes and encodes the first stretch of a file, and checks the file to its end. Memory holds
    a few stretches for each thread, whatever the length of the recordings.

    Args:
        report: gets the seconds of each window that was classified.
    """
    waiting: dict[tuple[int, ...], list[Window]] = {}
    recordings: list[Recording] = []
    for recording, stretches in map_in_threads(lambda file: _open(file, classifier, windows), files):
        recordings.append(recording)
        for window in _add_windows(recording, stretches, windows):
            waiting.setdefault(window.features.shape, []).append(window)
            held = sum(map(len, waiting.values()))
            if len(waiting[window.features.shape]) == batch_size or held == MAX_WAITING * batch_size:
                # The first key is that of the windows that wait longest.
                full = len(waiting[window.features.shape]) == batch_size
                _predict(waiting.pop(window.features.shape if full else next(iter(waiting))), classifier, report)
        yield from _take_complete(recordings)
    for batch in waiting.values():
        _predict(batch, classifier, report)
    yield from _take_complete(recordings)


Stretches = Iterator[tuple[Stretch, list[np.ndarray]]]


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


def _add_windows(recording: Recording, stretches: Stretches, windows: Windows) -> Iterator[Window]:
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
