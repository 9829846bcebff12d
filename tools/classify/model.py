"""Load a fine-tuned model, from a folder, the Hub or an ONNX file, and classify batches of windows with it.

An ONNX file runs on ONNX Runtime, and nothing on its way imports torch.
"""

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedConfig

from stages.common.answers import Answering, read_answering, to_probabilities
from stages.common.configs import load_config, receptive_field
from stages.common.errors import UserError
from stages.common.paths import TRAINING
from stages.common.tables import read_json
from stages.resample_encode.features import encode_samples, extract_features, find_min_samples
from tools.classify.audio import Stretch
from tools.classify.extractors import load_extractor
from tools.classify.find import ONNX, find_configs

MAX_SECONDS = 30.0  # of a clip, for models without training.json; the default of resample_encode
# Runs the model: input of windows of the same shape, float16 (windows, ...) -> logits, float64 (windows, labels).
# It raises MemoryError if they do not fit into memory.
Run = Callable[[np.ndarray], np.ndarray]


@dataclass
class Classifier:
    """A model with its feature extractor.

    Attributes:
        max_seconds: of a clip, as it was trained and evaluated.
        shortest: clip that the model can use, in samples.
        takes_samples: whether its input has a value for each sample, as that of HuBERT, and is no spectrogram.
        answering: the temperature of the probabilities, and what counts as an answer.
    """

    run: Run
    config: PreTrainedConfig
    extractor: Any
    max_seconds: float
    shortest: int
    takes_samples: bool
    answering: Answering

    @property
    def labels(self) -> list[str]:
        """The names of the labels, in the order of ids."""
        return [str(label) for _, label in sorted(self.config.id2label.items())]

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

    def predict(self, features: list[np.ndarray]) -> np.ndarray:
        """Return the probabilities of windows of the same shape, after the temperature: float64 (windows, labels).

        Raises:
            UserError: they do not fit into memory.
        """
        try:
            logits = self.run(np.stack(features))
        except MemoryError:
            raise UserError(
                f"{len(features)} windows do not fit into memory; lower --batch-size, or make --window shorter"
            ) from None
        if self.config.problem_type == "multi_label_classification":
            return np.exp(-np.logaddexp(0, -logits))  # the sigmoid, without overflow
        return to_probabilities(logits, self.answering.temperature)

    def find_used_seconds(self, seconds: float) -> float:
        """Return how much of a clip is in the model's input: AST's feature extractor cuts it at its own length."""
        rate = self.extractor.sampling_rate
        noise = np.random.default_rng(0).uniform(-0.5, 0.5, round(seconds * rate)).astype(np.float32)
        if self.takes_samples:
            return seconds
        complete = extract_features(noise, self.extractor)

        def is_all(samples: int) -> bool:
            return np.array_equal(extract_features(noise[:samples], self.extractor), complete)

        if len(noise) - rate // 100 <= self.shortest or not is_all(len(noise) - rate // 100):
            return seconds
        return bisect_left(range(len(noise)), True, lo=self.shortest, key=is_all) / rate


def load_model(model: Path, precision: str, threads: int | None = None) -> Classifier:
    """Load a model for classification.

    Args:
        model: folder of a PyTorch model, or ONNX file, as `find_model` returns it.
        precision: fp32, bf16, or auto, which is bf16 if the device has it. ONNX files have their own.
        threads: CPU threads of the model; None: all.

    Raises:
        UserError: a file is missing or damaged.
    """
    folder = find_configs(model)
    config = load_config(folder)
    if model.suffix == ONNX:
        from tools.classify.onnx_model import load_onnx

        run = load_onnx(model, precision, threads)
    else:
        from tools.classify.torch_model import load_torch

        run = load_torch(model, config, precision, threads)
    extractor = load_extractor(folder)
    shortest = find_min_samples(extractor, receptive_field(config))
    second = np.zeros(max(shortest, extractor.sampling_rate), np.float32)
    takes_samples = extract_features(second, extractor).shape == second.shape
    answering = read_answering(read_json(folder / "config.json"), folder / "config.json")
    return Classifier(run, config, extractor, read_max_seconds(folder), shortest, takes_samples, answering)


def read_training(folder: Path) -> dict[str, Any]:
    """Return the section resample_encode of training.json, with which the clips were made; empty if there is none."""
    file = folder / TRAINING.name
    section: dict[str, Any] = read_json(file).get("resample_encode", {}) if file.exists() else {}
    return section


def read_max_seconds(folder: Path) -> float:
    """Return the length in seconds to which the clips of the training were cut, or MAX_SECONDS if it is not known."""
    return float(read_training(folder).get("max_seconds", MAX_SECONDS))
