"""Fine-tune the base model and keep its best epoch.

Reads   params.yaml: train; models/base/; data/encoded/; data/splits.csv (the best epoch is chosen on validation,
        or on test where there is no validation split)
Writes  models/finetuned/: a checkpoint for `pipeline("audio-classification")`, and TensorBoard logs in runs/
        metrics/train/: DVCLive, one row per epoch
Run     python -m stages.train; to watch, tensorboard --logdir models
"""

import shutil
from functools import partial
from pathlib import Path
from typing import Any, Literal

from stages.common.repeatable import repeat

# isort: split
import numpy as np
import pandas as pd
import torch
from dvc.scm import SCMError, map_scm_exception
from dvclive import Live
from pydantic import Field
from torch.nn.functional import cross_entropy
from transformers import EarlyStoppingCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback, ProgressCallback, TrainerState
from transformers.utils import logging

from stages.common import batches, classifier, frozen, processor, progress, scores
from stages.common.clip_trainer import ClipTrainer, MeanLoss
from stages.common.stage import Number, Section, StageError, load_params, need, run, whole
from stages.common.tables import read_table

BASE = Path("models/base")
ENCODED = Path("data/encoded")
SPLITS = Path("data/splits.csv")
FINETUNED = Path("models/finetuned")
METRICS = Path("metrics/train")

# What a part's cached output leaves to train: train.frozen must cover it.
COVERING = {"feature_encoder": ("feature_encoder", "base"), "base": ("base",)}


class SpecAugment(Section):
    """Masking of stretches of time and of channels in training (Park et al., arXiv:1904.08779)."""

    mask_time_prob: Number = Field(ge=0, lt=1)
    mask_time_length: int = Field(ge=1)
    mask_feature_prob: Number = Field(ge=0, lt=1)
    mask_feature_length: int = Field(ge=1)


class Params(Section):
    seed: int = Field(ge=0, lt=2**32)
    threads: int | None = Field(ge=1)  # CPU threads; null takes them all, a number repeats to the byte
    epochs: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    accumulation: int = Field(ge=1)  # batches to an optimizer step
    eval_batch_size: int = Field(ge=1)
    learning_rate: Number = Field(gt=0)
    warmup: Number = Field(ge=0, lt=1)  # share of the steps
    weight_decay: Number = Field(ge=0)
    precision: Literal["auto", "fp32", "bf16", "fp16"]
    window_seconds: Number | None = Field(gt=0)  # random crops in training; null trains on whole clips
    frozen: Literal["none", "feature_encoder", "base"]
    dropout: Number | None = Field(ge=0, lt=1)  # null keeps the base model's own
    # Likewise; with 0, attention never holds all pairs of frames in memory.
    attention_dropout: Number | None = Field(None, ge=0, lt=1)
    label_smoothing: Number = Field(ge=0, lt=1)
    spec_augment: SpecAugment | None  # null keeps the base model's own
    early_stopping: int | None = Field(ge=1)  # epochs without a better accuracy
    logging_steps: int = Field(ge=1)


def on_cpu() -> bool:
    return not (torch.cuda.is_available() or torch.backends.mps.is_available())


def choose_precision(asked: str) -> dict[str, bool]:
    """Trainer's bf16 and fp16 for the processor at hand.

    Raises:
        StageError: fp16 without a GPU.
    """
    cuda = torch.cuda.is_available()
    if asked == "fp16" and not cuda:
        raise StageError("params.yaml: train.precision: fp16 needs a GPU; set auto, or fp32")
    if asked == "auto" and processor.has_bf16():
        asked = "bf16" if cuda or on_cpu() else "fp32"
    elif asked == "auto":
        asked = "fp16" if cuda else "fp32"
    return {"bf16": asked == "bf16", "fp16": asked == "fp16"}


def training_arguments(params: Params, micro: int, folder: Path) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=params.epochs,
        per_device_train_batch_size=micro,
        # Where memory is short, it is so here too; the size of these batches changes no result.
        per_device_eval_batch_size=max(1, params.eval_batch_size * micro // params.batch_size),
        gradient_accumulation_steps=params.accumulation * params.batch_size // micro,
        learning_rate=params.learning_rate,
        warmup_steps=params.warmup,
        weight_decay=params.weight_decay,
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=1,
        save_only_model=True,
        load_best_model_at_end=True,
        metric_for_best_model="accuracy",
        logging_steps=params.logging_steps,
        remove_unused_columns=False,
        dataloader_pin_memory=torch.cuda.is_available(),
        use_cpu=on_cpu(),  # or bf16 would be refused there
        seed=params.seed,
        **choose_precision(params.precision),
    )


def score(outcome: Any) -> dict[str, float]:
    """Accuracy and mean cross-entropy of all clips; the Trainer's own loss weighs a small batch like a full one."""
    logits = outcome.predictions[0] if isinstance(outcome.predictions, tuple) else outcome.predictions
    accuracy = scores.Accuracy(keep_in_memory=True)
    return {
        **accuracy.compute(predictions=np.argmax(logits, axis=1), references=outcome.label_ids),
        "cross_entropy": float(cross_entropy(torch.tensor(logits).double(), torch.tensor(outcome.label_ids))),
    }


def next_micro_batch(micro: int) -> int:
    """The largest smaller batch of which a whole number make the one that did not fit.

    Raises:
        StageError: a single clip does not fit.
    """
    if micro == 1:
        raise StageError(
            "params.yaml: train.batch_size: a single clip does not fit into memory; set train.window_seconds, "
            "or make it or resample_encode.max_seconds smaller"
        )
    return next(size for size in range(micro // 2, 0, -1) if micro % size == 0)


def check_cached(params: Params, part: str | None) -> None:
    """Raises StageError where params ask for what a part's cached output leaves no room for."""
    if part and params.frozen not in COVERING[part]:
        raise StageError(
            f"params.yaml: train.frozen: {params.frozen} cannot train the {part} behind its cached output; "
            f"set {part}, or resample_encode.representation: input"
        )
    # No dropout is what the cached output has.
    inside = [key for key in ("dropout", "attention_dropout", "spec_augment") if getattr(params, key)]
    if part == "base" and inside:
        raise StageError(f"params.yaml: train.{inside[0]}: the base model's cached output knows none; set it to null")


def fit(
    model: torch.nn.Module,
    params: Params,
    micro: int,
    encoded: batches.Encoded,
    splits: pd.DataFrame,
    folder: Path,
    metrics: Path,
) -> TrainerState:
    """Train the model in place, up to its best epoch; `micro` clips at a time make the effective batch.

    Raises:
        StageError: a window or SpecAugment's masks that do not fit the clips.
        torch.OutOfMemoryError: `micro` is too large.
    """
    for leftover in (folder, metrics):
        shutil.rmtree(leftover, ignore_errors=True)
    window = batches.window_length(encoded, model, params.window_seconds, "train.window_seconds")
    split = batches.selection_split(splits)
    loss = MeanLoss(params.label_smoothing)
    try:
        with map_scm_exception():
            live = Live(str(metrics), save_dvc_exp=False, dvcyaml=False)
    except SCMError:
        raise StageError("the git repo has no commit yet, and DVCLive needs one; run git commit") from None
    callbacks = [progress.Bar(), progress.EpochLog(live, loss.take), progress.EventLog(folder / "runs")]
    if params.early_stopping:
        callbacks.append(EarlyStoppingCallback(params.early_stopping))
    with frozen.stand_in(model, encoded.key):
        trainer = ClipTrainer(
            model,
            training_arguments(params, micro, folder / "checkpoints"),
            data_collator=partial(batches.collate, encoded),
            train_dataset=batches.Clips(batches.take(encoded, splits, "train"), encoded.key, window),
            eval_dataset=batches.Clips(batches.take(encoded, splits, split), encoded.key),
            compute_metrics=score,
            compute_loss_func=loss,
            callbacks=callbacks,
        )
        trainer.remove_callback(ProgressCallback)
        trainer.remove_callback(PrinterCallback)
        try:
            trainer.train()
        except ValueError as error:
            if "mask_length" not in str(error):
                raise
            raise StageError(
                "params.yaml: train.spec_augment: masks longer than a window's frames; make the windows longer, "
                "or set mask_time_length and mask_feature_length lower"
            ) from None
    shutil.rmtree(folder / "checkpoints")
    return trainer.state


def main() -> None:
    params = load_params("train", Params)
    need(BASE / "config.json", ENCODED, SPLITS)
    logging.set_verbosity_error()
    logging.disable_progress_bar()  # of writing each epoch's checkpoint
    encoded = batches.open_encoded(ENCODED)
    check_cached(params, encoded.part)
    splits = read_table(SPLITS)
    split = batches.selection_split(splits)
    with whole(FINETUNED) as folder, whole(METRICS) as metrics:
        micro = params.batch_size
        while True:
            repeat(params.seed, params.threads)
            rates = {key: getattr(params, key) for key in classifier.DROPOUTS}
            masks = params.spec_augment and params.spec_augment.model_dump()
            model = classifier.build(BASE, encoded.labels, rates, masks, params.frozen)
            try:
                state = fit(model, params, micro, encoded, splits, folder, metrics)
                break
            except torch.OutOfMemoryError:
                micro = next_micro_batch(micro)
                accumulation = params.accumulation * params.batch_size // micro
                print(f"out of memory: starting again with batches of {micro}, {accumulation} to a step", flush=True)
                torch.cuda.empty_cache()
        model.save_pretrained(folder)
        encoded.extractor.save_pretrained(folder)
    best = state.best_metric
    epoch = next(row["epoch"] for row in state.log_history if row.get("eval_accuracy") == best)
    print(f"{FINETUNED}: {split} accuracy {best:.3f}, of epoch {epoch:g} (the first of the best)")


if __name__ == "__main__":
    run(main, {"train": Params})
