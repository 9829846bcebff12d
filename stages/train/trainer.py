"""Train the model with the Trainer of Transformers, adapted to clips of different lengths."""

import shutil
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from dvc.scm import SCMError, map_scm_exception
from dvclive import Live
from torch.utils.data import DataLoader
from transformers import EarlyStoppingCallback, PreTrainedModel, Trainer, TrainingArguments
from transformers.trainer_callback import PrinterCallback, ProgressCallback, TrainerState
from transformers.trainer_utils import EvalLoopOutput

from stages.common.architectures import use_cached_part
from stages.common.device import find_device, has_bf16
from stages.common.encoded_clips import EncodedClips, collate, select_split
from stages.common.errors import UserError
from stages.common.windows import ClipDataset, equal_length_batches, window_length
from stages.train.callbacks import Bar, EpochLog, EventLog
from stages.train.loss import compute_metrics, make_loss
from stages.train.params import TrainParams


class ClipTrainer(Trainer):
    """A Trainer that evaluates as the stage evaluate does: in fp32, and clips of the same length together.

    Padding, and bf16 or fp16, would change their results.
    """

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader:
        """Batch clips of the same length."""
        dataset = eval_dataset or self.eval_dataset
        batches = equal_length_batches([array.shape for array in dataset.clips.features], self.args.eval_batch_size)
        return DataLoader(dataset, batch_sampler=batches, collate_fn=self.data_collator)

    def floating_point_ops(self, inputs: Any) -> int:
        """Return 0. The count is not used, and computing it adds up the sizes of all weights at each step."""
        return 0

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> EvalLoopOutput:
        """Keep all predictions.

        The Trainer's default, gather_for_metrics, cuts batches to the remainder of the training clips' last batch.
        """
        self.gather_function = self.accelerator.gather
        mixed = self.model.forward
        self.model.forward = getattr(self.model, "_original_forward", mixed)  # accelerate keeps it
        try:
            return super().evaluation_loop(*args, **kwargs)
        finally:
            self.model.forward = mixed


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
        warmup_steps=params.warmup_ratio,  # below 1, it is a share of the steps
        weight_decay=params.weight_decay,
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=1,
        save_only_model=True,
        load_best_model_at_end=True,
        metric_for_best_model="rank",
        logging_steps=params.logging_steps,
        report_to=params.report_to,
        run_name=Path.cwd().name,
        remove_unused_columns=False,
        dataloader_pin_memory=torch.cuda.is_available(),
        use_cpu=find_device() == "cpu",  # otherwise the Trainer rejects bf16 on the CPU
        seed=params.seed,
        bf16=precision == "bf16",
        fp16=precision == "fp16",
    )


def fit(
    model: PreTrainedModel,
    params: TrainParams,
    micro_batch: int,
    encoded: EncodedClips,
    splits: pd.DataFrame,
    folder: Path,
    metrics: Path,
    runs: Path,
) -> TrainerState:
    """Train the model in place, and load its best epoch.

    Args:
        micro_batch: clips that are processed at once. splits: columns clip and split.
        folder: for checkpoints while training. metrics: for DVCLive. runs: for TensorBoard.

    Raises:
        UserError: a window or SpecAugment's masks do not fit the clips.
        RuntimeError: micro_batch is too large for the memory.
    """
    for leftover in (folder, metrics, runs):
        shutil.rmtree(leftover, ignore_errors=True)
    window = window_length(encoded, model, params.window_seconds, "train.window_seconds")
    loss = make_loss(params)
    stopping = [EarlyStoppingCallback(params.early_stopping)] if params.early_stopping else []
    live = _open_live(metrics)
    with use_cached_part(model, encoded.cached_part), closing(EventLog(runs)) as events:
        trainer = ClipTrainer(
            model,
            training_arguments(params, micro_batch, folder / "checkpoints"),
            data_collator=partial(collate, encoded),
            train_dataset=ClipDataset(select_split(encoded, splits, "train"), window),
            eval_dataset=ClipDataset(select_split(encoded, splits, selection_split(splits))),
            compute_metrics=compute_metrics,
            compute_loss_func=loss,
            callbacks=[Bar(), EpochLog(live, loss.pop_mean), events, *stopping],
        )
        trainer.remove_callback(ProgressCallback)
        trainer.remove_callback(PrinterCallback)
        _train(trainer)
    shutil.rmtree(folder / "checkpoints")
    return trainer.state


def _train(trainer: Trainer) -> None:
    try:
        trainer.train()
    except ValueError as error:
        if "mask_length" not in str(error):
            raise
        raise UserError(
            "masks longer than a window; make windows longer, or set mask_time_length and mask_feature_length lower",
            key="train.spec_augment",
        ) from None


def _open_live(folder: Path) -> Live:
    try:
        with map_scm_exception():
            return Live(str(folder), save_dvc_exp=False, dvcyaml=False)
    except SCMError:
        raise UserError("the git repo has no commit yet, and DVCLive needs one; run git commit") from None


def selection_split(splits: pd.DataFrame) -> str:
    """Return the split that selects the best epoch: validation if it has clips, else test, as in the course."""
    return "validation" if (splits["split"] == "validation").any() else "test"


def best_evaluation(state: TrainerState) -> dict[str, float]:
    """Return what was measured after the epoch whose weights were restored, e.g. epoch and eval_accuracy."""
    return next(row for row in state.log_history if row.get("eval_rank") == state.best_metric)
