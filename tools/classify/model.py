"""Load a fine-tuned model, from a folder or the Hub, and classify batches of windows with it."""

from bisect import bisect_left
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils.memory import should_reduce_batch_size
from transformers import PreTrainedModel

from stages.common.answers import Answering, read_answering, to_probabilities
from stages.common.architectures import receptive_field
from stages.common.classifier import load_classifier, load_config, load_extractor
from stages.common.device import find_device, is_bf16_chosen
from stages.common.errors import UserError
from stages.common.hub_id import read_id
from stages.common.paths import TRAINING
from stages.common.tables import read_json
from stages.download.model.checkpoint_sources import CONFIGS, OLD_WEIGHTS, WEIGHTS
from stages.resample_encode.features import encode_samples, extract_features, find_min_samples
from tools.classify.audio import Stretch

MAX_SECONDS = 30.0  # of a clip, for models without training.json; the default of resample_encode


@dataclass
class Classifier:
    """A model with its feature extractor.

    Attributes:
        labels: their names, in the order of ids.
        max_seconds: of a clip, as it was trained and evaluated.
        shortest: clip that the model can use, in samples.
        takes_samples: whether its input has a value for each sample, as that of HuBERT, and is no spectrogram.
        bf16: compute in bf16.
        answering: the temperature of the probabilities, and what counts as an answer.
    """

    model: PreTrainedModel
    extractor: Any
    max_seconds: float
    shortest: int
    takes_samples: bool
    bf16: bool
    answering: Answering

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
        """Return the probabilities of windows of the same shape, after the temperature: float64 (windows, labels).

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
        return logits.sigmoid().numpy() if several else to_probabilities(logits.numpy(), self.answering.temperature)

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
    snapshot, commit = hub.fetch_files("model", name, "main", [*CONFIGS, TRAINING.name, *WEIGHTS])
    if not list(snapshot.glob(WEIGHTS[0])):
        snapshot, _ = hub.fetch_files("model", name, commit, [*CONFIGS, *OLD_WEIGHTS])
    return snapshot


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
    answering = read_answering(read_json(folder / "config.json"), folder / "config.json")
    return Classifier(model, extractor, max_seconds, shortest, takes_samples, is_bf16_chosen(precision), answering)
