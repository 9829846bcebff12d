"""The section `train` of params.yaml."""

import ctypes
import os
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator

from stages.common.errors import UserError
from stages.common.model_types import AVERAGED, refuse_windows_of_means
from stages.common.params import Number, Seconds, Section, Threads, find_window_conflicts
from stages.train.limits import find_unsupported, refuse_gain

# The parts of the model whose output is cached -> the values of train.freeze that do not train them.
FROZEN_BY = {"feature_encoder": ("feature_encoder", "base"), "base": ("base",), "layers": ("base",)}

Layers = Annotated[int, Field(ge=1, le=1000)]
Metric = Literal["accuracy", "macro_f1", "balanced_accuracy"]

# Keys that have no effect on the model.
WITHOUT_EFFECT = {"report_to", "save_every", "processes"}


def _check_span(span: list[float]) -> list[float]:
    if span[0] > span[1]:
        raise ValueError(f"the lowest value comes first, got {span}")
    return span


Span = Annotated[list[Number], Field(min_length=2, max_length=2), AfterValidator(_check_span)]


class SpecAugment(Section):
    """Masks time and channels in training (Park et al., arXiv:1904.08779)."""

    mask_time_prob: Number = Field(0.05, ge=0, lt=1, description="Share of the time that is masked.")
    mask_time_length: int = Field(10, ge=1, description="Frames in one mask.")
    mask_feature_prob: Number = Field(0.0, ge=0, lt=1, description="Share of the channels that is masked.")
    mask_feature_length: int = Field(10, ge=1, description="Channels in one mask.")


class Augment(Section):
    """Changes of the windows in training, drawn for each clip and epoch."""

    mixup: Number | None = Field(
        None, gt=0, description="Mix each clip with another one; this is alpha of mixup (Zhang et al., 2018), e.g. 0.2."
    )
    polarity: bool = Field(False, description="Change the sign of half of the windows.")
    time_shift: Number = Field(
        0.0, ge=0, le=1, description="Shift by up to this share of the window; its end comes in at its start."
    )
    gain: Span | None = Field(
        None,
        description="Lowest and highest gain in dB, e.g. [-6, 6]; not with do_normalize, which undoes it.",
    )
    noise: Span | None = Field(
        None, description="Lowest and highest ratio of the signal to added white noise, in dB, e.g. [10, 40]."
    )


class Lora(Section):
    """Low-rank adaptation (Hu et al., 2022): small matrices are trained beside frozen weights, and added at the end."""

    r: int = Field(8, ge=1, description="Rank of the matrices.")
    lora_alpha: int = Field(16, ge=1, description="The matrices count by lora_alpha / r.")
    lora_dropout: Number = Field(0.0, ge=0, lt=1, description="Dropout of their input.")
    target_modules: list[str] | None = Field(
        None, min_length=1, description="Names of linear layers; null: those of attention, in WavLM the feed-forward."
    )


class TrainParams(Section):
    """Training with the Trainer of Transformers."""

    seed: int = Field(42, ge=0, lt=2**32, description="Another seed gives another head, order and windows.")
    threads: Threads | None = Field(
        None, description="CPU threads; null: all. A fixed number gives byte-identical results."
    )
    epochs: int = Field(
        10, ge=1, description="Passes over the training clips. The weights of the best epoch are restored."
    )
    batch_size: int = Field(8, ge=1, description="Clips in a batch; halved automatically if memory runs out.")
    gradient_accumulation_steps: int = Field(1, ge=1, description="Batches before each step of the optimizer.")
    eval_batch_size: int = Field(8, ge=1, description="Clips in a batch of the evaluation after each epoch.")
    learning_rate: Number = Field(5e-5, gt=0, description="Peak of the learning rate, with AdamW.")
    head_learning_rate: Number | None = Field(
        None, gt=0, description="Peak of the learning rate of the head; null: learning_rate."
    )
    lr_scheduler_type: Literal["linear", "cosine"] = Field(
        "linear", description="Decay of the learning rate after the warm-up: linear or cosine."
    )
    warmup_ratio: Number = Field(0.1, ge=0, lt=1, description="Warm-up share of all steps, before the decay.")
    weight_decay: Number = Field(0.0, ge=0, description="Weight decay of AdamW.")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto", description="auto: bf16 or fp16 if the device supports it, else fp32. fp16 needs a GPU."
    )
    window_seconds: Seconds | None = Field(
        None, description="Length of random training crops; null: complete clips, as Whisper and AST need."
    )
    freeze: Literal["none", "feature_encoder", "base"] = Field(
        "none", description="Part that is not trained: none, feature_encoder, or base (all but the head)."
    )
    lora: Lora | None = Field(
        None, description="Train small matrices and the head only, e.g. {r: 8}; needs the extra lora; null: no."
    )
    layers: Literal["last", "weighted"] | Layers | None = Field(
        None,
        description="Layers that the head gets: last, weighted (sum of all), or the n-th, without those after it; "
        "null: the base model's.",
    )
    dropout: Number | None = Field(None, ge=0, lt=1, description="Dropout of the model; null: the base model's.")
    attention_dropout: Number | None = Field(
        None, ge=0, lt=1, description="Dropout of attention; null: the base model's. 0 saves memory and, in bf16, time."
    )
    label_smoothing: Number = Field(0.0, ge=0, lt=1, description="Label smoothing of the training loss.")
    class_weights: Literal["balanced"] | None = Field(
        None,
        description="balanced: weights in the training loss, inverse to a label's number of clips; null: none.",
    )
    sampler: Literal["random", "balanced"] = Field(
        "random", description="random: each clip once in an epoch; balanced: each label equally often."
    )
    augment: Augment | None = Field(
        None, description="Random changes of the windows, e.g. {mixup: 0.2, noise: [10, 40]}; null: none."
    )
    spec_augment: SpecAugment | None = Field(
        None, description="Masks for training (SpecAugment), e.g. {mask_time_prob: 0.05}; null: the base model's."
    )
    select_by: Metric = Field(
        "accuracy", description="Metric that selects the best epoch; among equals, the lowest loss."
    )
    average_epochs: int | None = Field(
        None, ge=2, description="Also average the weights after each of the last epochs, and keep the better; null: no."
    )
    early_stopping: int | None = Field(
        None, ge=1, description="Stop after this many epochs without a better one; null: train all epochs."
    )
    save_every: Number = Field(
        1.0, gt=0, description="Epochs between two checkpoints, from which an interrupted training goes on."
    )
    processes: Annotated[int, Field(ge=1, le=1024)] | Literal["auto"] = Field(
        "auto", description="Processes that share each batch; auto: one for each visible GPU."
    )
    cuda_graph: bool = Field(
        True, description="On an NVIDIA GPU, record the step of a HuBERT or Wav2Vec2 once and replay it: faster."
    )
    logging_steps: int = Field(5, ge=1, description="Steps between two points of the TensorBoard logs.")
    report_to: list[Literal["wandb", "mlflow", "trackio"]] = Field(
        [], description="Trackers that the Trainer reports to, besides the TensorBoard logs."
    )

    @property
    def records_step(self) -> bool:
        """Whether to record the training step in a CUDA graph; with LoRA or a weighted sum, this was not tried."""
        return self.cuda_graph and self.lora is None and self.layers != "weighted"

    @field_validator("report_to")
    @classmethod
    def _check_trackers(cls, trackers: list[str]) -> list[str]:
        if len(set(trackers)) < len(trackers):
            raise ValueError("lists a tracker twice; keep one")
        return trackers

    def find_conflicts(self, sections: dict[str, Any]) -> Iterator[UserError]:
        """Check the keys against each other, and the windows and the frozen part against the encoded clips."""
        yield from find_window_conflicts("train.window_seconds", self.window_seconds, sections)
        yield from self._find_contradictions()
        if encode := sections.get("resample_encode"):
            yield from self.find_cache_conflicts(encode.cache)
            if encode.feature_extractor.get("do_normalize") and self.augment and self.augment.gain:
                yield refuse_gain()

    def _find_contradictions(self) -> Iterator[UserError]:
        if self.class_weights and self.sampler == "balanced":
            message = "the balanced sampler already shows each label equally often; set null, or train.sampler: random"
            yield UserError(message, key="train.class_weights")
        if self.average_epochs and self.early_stopping:
            message = "early stopping does not know which epochs are the last; set it, or early_stopping, to null"
            yield UserError(message, key="train.average_epochs")
        if self.average_epochs and self.average_epochs > self.epochs:
            yield UserError(f"{self.average_epochs}, but there are {self.epochs} epochs", key="train.average_epochs")
        if self.lora and self.average_epochs:
            message = "the mean of LoRA's matrices is not that of the weights; set it, or train.lora, to null"
            yield UserError(message, key="train.average_epochs")
        if self.lora and self.freeze == "base":
            yield UserError(
                "it adapts the base model, which is frozen; set it to null, or train.freeze: none", key="train.lora"
            )

    def find_cache_conflicts(self, part: str | None) -> Iterator[UserError]:
        """Yield an error for each key that the cached output of a part of the model does not allow."""
        if part not in FROZEN_BY:
            return
        if self.freeze not in FROZEN_BY[part]:
            yield UserError(
                f"the output of the {part} is cached, so it cannot be trained; set {FROZEN_BY[part][0]}, or "
                "resample_encode.cache: input",
                key="train.freeze",
            )
        if self.augment:
            message = f"it changes the input of the {part}, whose output is cached; set it to null, or "
            yield UserError(message + "resample_encode.cache: input", key="train.augment")
        if part not in AVERAGED:
            return
        if self.window_seconds:
            yield refuse_windows_of_means("train.window_seconds")
        # The cached output was computed without dropout.
        for key in ("dropout", "attention_dropout", "spec_augment"):
            if getattr(self, key):
                yield UserError(
                    "the cached output of the base model was computed without it; set it to null", key=f"train.{key}"
                )
        if self.layers and part == "base":
            message = "only the last layer's output is cached; set it to null, or resample_encode.cache: layers"
            yield UserError(message, key="train.layers")

    def find_unsupported(self, config: dict[str, Any]) -> Iterator[UserError]:
        """Check the keys against the base model."""
        yield from find_unsupported(self, config)

    def find_obstacles(self) -> Iterator[UserError]:
        """Check that there is a GPU for fp16, and a package for each tracker."""
        if self.precision == "fp16" and not has_nvidia_gpu():
            yield UserError("fp16 needs a GPU; set auto or fp32", key="train.precision")
        if self.lora and find_spec("peft") is None:
            message = "peft is not installed; pip install --constraint constraints.txt --editable '.[lora]'"
            yield UserError(message, key="train.lora")
        for tracker in self.report_to:
            spec = find_spec(tracker)
            if spec is None or spec.origin is None:  # without an origin, it is only a folder of this name
                message = f"{tracker} is not installed; pip install --constraint constraints.txt {tracker}"
                yield UserError(message, key="train.report_to")


def has_nvidia_gpu() -> bool:
    """Return whether CUDA's driver finds a GPU. Importing torch to ask it would take seconds."""
    try:
        cuda = ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
    except OSError:
        return False
    count = ctypes.c_int()
    return cuda.cuInit(0) == 0 and cuda.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0
