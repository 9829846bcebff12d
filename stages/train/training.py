"""Train the model: in this process, or in one of several that share each batch."""

import re
import shutil
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from dvc.scm import SCMError, map_scm_exception
from dvclive import Live
from transformers import EarlyStoppingCallback, PreTrainedModel, TrainingArguments
from transformers.trainer_callback import PrinterCallback, ProgressCallback, TrainerState
from transformers.utils import logging

from stages.common import interrupts
from stages.common.architectures import use_cached_part
from stages.common.device import find_device, has_bf16, make_deterministic
from stages.common.encoded_clips import EncodedClips, collate, open_encoded_clips, select_split
from stages.common.errors import UserError
from stages.common.paths import BASE, ENCODED, SPLITS
from stages.common.tables import read_table
from stages.common.windows import ClipDataset, window_length
from stages.train.augment import make_augmenter
from stages.train.batches import EpochBatches, TrainingClips, choose_resident_device
from stages.train.callbacks import Bar, EpochLog, EventLog
from stages.train.checkpoints import Writer, find_last
from stages.train.limits import refuse_mask
from stages.train.lora import merge_lora
from stages.train.loss import EPOCH, compute_metrics, make_loss
from stages.train.model import build_model
from stages.train.params import TrainParams
from stages.train.selection import predict_selecting
from stages.train.trainer import ClipTrainer


class Folders(NamedTuple):
    """Where a training writes.

    model: the checkpoint. metrics: DVCLive. runs: TensorBoard. checkpoints: to go on from.
    """

    model: Path
    metrics: Path
    runs: Path
    checkpoints: Path

    def clear(self) -> None:
        """Remove what an attempt with larger batches left."""
        for folder in (self.model, self.metrics, self.runs):
            shutil.rmtree(folder, ignore_errors=True)


def train_model(params: TrainParams, micro_batch: int, folders: Folders) -> dict[str, Any]:
    """Train, and save the weights of the best epoch.

    Args:
        micro_batch: clips that are processed at once, by all processes together.

    Returns:
        What was measured after the best epoch, e.g. epoch and eval_accuracy; with averaged_epochs, a list of numbers,
        if the mean of their weights was better; `list_layer_weights`; and predictions, as `predict_selecting` returns
        them.

    Raises:
        UserError: a window or SpecAugment's masks do not fit the clips.
        RuntimeError: micro_batch is too large for the memory.
    """
    make_deterministic(params.seed, params.threads)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    encoded, splits = open_encoded_clips(ENCODED), read_table(SPLITS)
    model = build_model(BASE, encoded.labels, params)
    state, predictions = fit(model, params, micro_batch, encoded, splits, folders)
    if state.is_world_process_zero:
        if params.lora:
            merge_lora(model)
        model.save_pretrained(folders.model)
    return best_evaluation(state) | list_layer_weights(model) | {"predictions": predictions}


def fit(
    model: PreTrainedModel,
    params: TrainParams,
    micro_batch: int,
    encoded: EncodedClips,
    splits: pd.DataFrame,
    folders: Folders,
) -> tuple[TrainerState, pd.DataFrame]:
    """Train the model in place, from its last checkpoint if there is one, and load its best epoch.

    Return the state, and the predictions of the clips that selected the epoch.
    """
    window = window_length(encoded, model, params.window_seconds, "train.window_seconds")
    arguments = training_arguments(params, micro_batch, folders.checkpoints)
    clips, measured = select_split(encoded, splits, "train"), encoded.drop_background(splits)
    loss, rank = make_loss(params, clips.labels, len(encoded.labels)), arguments.process_index
    selecting = select_split(encoded, measured, selection_split(measured))
    recordings = selecting.number_recordings() if encoded.settings.get("segments") else None
    balance = clips.labels if params.sampler == "balanced" else None
    batches = EpochBatches(len(clips.labels), micro_batch, params.seed, rank, arguments.world_size, balance)
    augmenter = make_augmenter(params.augment, encoded)
    device = None if augmenter else choose_resident_device(arguments.device, clips.features)
    with use_cached_part(model, encoded.cached_part):
        trainer = ClipTrainer(
            model,
            arguments,
            data_collator=partial(collate, encoded),
            clips=TrainingClips(encoded, clips, window, batches, device, augmenter),
            eval_dataset=ClipDataset(selecting),
            compute_metrics=partial(compute_metrics, recordings=recordings, select_by=params.select_by),
            loss=loss,
            writer=Writer(folders.checkpoints),
            params=params,
            callbacks=[EarlyStoppingCallback(params.early_stopping)] if params.early_stopping else [],
        )
        trainer.remove_callback(ProgressCallback)
        trainer.remove_callback(PrinterCallback)
        with closing(EventLog(folders.runs, rank)) as events:
            # All processes have an EpochLog, because they sum the loss together.
            rows = EpochLog(_open_live(folders.metrics, rank), partial(loss.pop_mean, EPOCH), params.select_by)
            for callback in (rows, events, *([Bar()] if rank == 0 else [])):
                trainer.add_callback(callback)
            _train(trainer)
        return trainer.state, predict_selecting(trainer, selecting, encoded.labels, recordings)


def _train(trainer: ClipTrainer) -> None:
    last = find_last(trainer.writer.folder)
    if last and trainer.is_world_process_zero():
        print(f"goes on after step {last.name.partition('-')[2]}, from the checkpoint in {last.parent}", flush=True)
    try:
        with interrupts.defer_signals():
            trainer.train(resume_from_checkpoint=str(last) if last else None)
    except ValueError as error:
        numbers = re.findall(r"\d+", str(error))
        if "mask_length" not in str(error) or len(numbers) != 2:
            raise
        raise refuse_mask(trainer.params, "time", *map(int, numbers)) from None  # build_model checks those of features


def _open_live(folder: Path, rank: int) -> Live | None:
    if rank > 0:
        return None
    shutil.rmtree(folder, ignore_errors=True)
    try:
        with map_scm_exception():
            return Live(str(folder), save_dvc_exp=False, dvcyaml=False)
    except SCMError:
        raise UserError("the git repo has no commit yet, and DVCLive needs one; run git commit") from None


def training_arguments(params: TrainParams, micro_batch: int, folder: Path) -> TrainingArguments:
    """Translate params for the Trainer. `micro_batch` divides the batch size; more accumulation makes up for it."""
    precision = choose_precision(params.precision)
    return TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=params.epochs,
        per_device_train_batch_size=micro_batch,
        # If memory is short in training, it is also short here. The size of these batches changes no result.
        per_device_eval_batch_size=max(1, params.eval_batch_size * micro_batch // params.batch_size),
        gradient_accumulation_steps=params.gradient_accumulation_steps * params.batch_size // micro_batch,
        learning_rate=params.learning_rate,
        lr_scheduler_type=params.lr_scheduler_type,
        warmup_steps=params.warmup_ratio,  # below 1, it is a share of the steps
        weight_decay=params.weight_decay,
        eval_strategy="epoch",
        save_strategy="epoch",
        load_best_model_at_end=True,
        metric_for_best_model="rank",
        logging_steps=params.logging_steps,
        logging_nan_inf_filter=False,  # it would synchronise the GPU at each step
        report_to=params.report_to,
        run_name=Path.cwd().name,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        use_cpu=find_device() == "cpu",  # otherwise the Trainer rejects bf16 on the CPU
        seed=params.seed,
        bf16=precision == "bf16",
        fp16=precision == "fp16",
    )


def choose_precision(precision: str) -> str:
    """Return fp32, bf16 or fp16 for train.precision on this device.

    Raises:
        UserError: fp16 without a GPU.
    """
    cuda = find_device() == "cuda"
    if precision == "fp16" and not cuda:
        raise UserError("fp16 needs a GPU; set auto or fp32", key="train.precision")
    if precision != "auto":
        return precision
    if has_bf16():
        return "bf16"
    return "fp16" if cuda else "fp32"


def selection_split(splits: pd.DataFrame) -> str:
    """Return the split that selects the best epoch: validation if it has clips, else test, as in the course."""
    return "validation" if (splits["split"] == "validation").any() else "test"


def list_layer_weights(model: PreTrainedModel) -> dict[str, list[float]]:
    """Return the key layer_weights if the head gets a weighted sum: shares of the first layer's input, and of each."""
    if not getattr(model.config, "use_weighted_layer_sum", False):
        return {}
    return {"layer_weights": [round(weight, 4) for weight in model.layer_weights.detach().softmax(-1).tolist()]}


def best_evaluation(state: TrainerState) -> dict[str, Any]:
    """Return what was measured after the epoch whose weights were restored, e.g. epoch and eval_accuracy."""
    return next(row for row in state.log_history if row.get("eval_rank") == state.best_metric)
