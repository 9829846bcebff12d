"""The Trainer of Transformers, adapted to clips of different lengths and to checkpoints at any step."""

import dataclasses
import json
import os
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object
from torch.utils.data import DataLoader
from transformers import EarlyStoppingCallback, Trainer
from transformers.trainer_utils import EvalLoopOutput, EvalPrediction

from stages.common import interrupts
from stages.common.windows import equal_length_batches
from stages.train.averaging import WeightAverage
from stages.train.batches import TrainingClips, load_batches
from stages.train.checkpoints import STATE, WEIGHTS, Writer, damaged_checkpoint, loading, to_cpu
from stages.train.gpu import capture_if_alike, keep_grouped_convolutions_in_fp32
from stages.train.loss import POINT, MeanLoss
from stages.train.model import set_head_learning_rate
from stages.train.params import TrainParams
from stages.train.ranks import agree_on_request

PROGRESS = "progress.json"
AVERAGE = "average.pt"


class ClipTrainer(Trainer):
    """A Trainer that evaluates as the stage evaluate does, and can go on from any step.

    It evaluates in fp32, and clips of the same length together: padding, and bf16 or fp16, would change the results.

    Args:
        clips: to train on. loss: the training loss.
        writer: of checkpoints; the Trainer's output folder is its folder.
        params: for what the Trainer has no argument.
    """

    control: Any

    def __init__(
        self, *args: Any, clips: TrainingClips, loss: MeanLoss, writer: Writer, params: TrainParams, **kwargs: Any
    ) -> None:
        super().__init__(*args, train_dataset=clips, compute_loss_func=loss, **kwargs)
        self.clips, self.loss, self.writer, self.params = clips, loss, writer, params
        self.epoch_steps = ceil(len(self.clips.batches) / self.args.gradient_accumulation_steps)
        self.interval = max(1, round(params.save_every * self.epoch_steps))
        self.saved_step = 0
        epochs = params.average_epochs
        self.average = WeightAverage(self.model, epochs, self.epoch_steps) if epochs else None
        if self.average:
            self.add_callback(self.average)

    def create_optimizer(self, *args: Any, **kwargs: Any) -> Any:
        """Make AdamW, with a learning rate of its own for the head if it has one."""
        made = self.optimizer is None
        optimizer = super().create_optimizer(*args, **kwargs)
        if made and self.params.head_learning_rate:
            set_head_learning_rate(optimizer, self.model, self.params.head_learning_rate)
        return optimizer

    def get_train_dataloader(self) -> DataLoader:
        """Return the batches of this process."""
        return load_batches(self.clips)

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader:
        """Batch clips of the same length; each process has its share of the batches."""
        dataset = eval_dataset or self.eval_dataset
        batches = equal_length_batches([array.shape for array in dataset.clips.features], self.args.eval_batch_size)
        mine = batches[self.args.process_index :: self.args.world_size]
        # A generator of its own, because the global one is left to the model's dropout.
        return DataLoader(dataset, batch_sampler=mine, collate_fn=self.data_collator, generator=torch.Generator())

    def _prepare_for_training(self, *args: Any, **kwargs: Any) -> Any:
        prepared = super()._prepare_for_training(*args, **kwargs)
        if self.args.device.type == "cuda":
            keep_grouped_convolutions_in_fp32(self.model)
            if self.params.records_step:
                capture_if_alike(self.model, self.args, self.clips, self._prepare_inputs)
        return prepared

    def floating_point_ops(self, inputs: Any) -> int:
        """Return 0. The count is not used, and computing it adds up the sizes of all weights at each step."""
        return 0

    @torch.no_grad()
    def evaluation_loop(
        self, dataloader: DataLoader, description: str, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any
    ) -> EvalLoopOutput:
        """Compute the metrics of all clips."""
        self.callback_handler.eval_dataloader = dataloader
        logits, labels = self._predict(dataloader)
        metrics = self.compute_metrics(EvalPrediction(predictions=logits, label_ids=labels))
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in metrics.items()}
        return EvalLoopOutput(predictions=logits, label_ids=labels, metrics=metrics, num_samples=len(labels))

    def _predict(self, dataloader: DataLoader) -> tuple[np.ndarray, np.ndarray]:
        """Return the logits and labels of all clips, in their order."""
        forward = getattr(self.model.eval(), "_original_forward", self.model.forward)  # accelerate keeps that of fp32
        outputs = []
        for inputs in dataloader:
            outputs.append((forward(**self._prepare_inputs(inputs)).logits.float(), inputs["labels"]))
            self.control = self.callback_handler.on_prediction_step(self.args, self.state, self.control)
            if self.args.world_size == 1:
                self._end_if_asked()
        arrays = [(logits.cpu().numpy(), labels.cpu().numpy()) for logits, labels in outputs]
        found = list(zip(dataloader.batch_sampler, arrays))
        found = gather_object(found) if self.args.world_size > 1 else found
        order = np.argsort(np.concatenate([batch for batch, _ in found]))
        logits, labels = (np.concatenate([parts[i] for _, parts in found])[order] for i in (0, 1))
        return logits, labels

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log the mean loss over the clips since the last point, which does not depend on where training started."""
        if "loss" in logs:
            logs["loss"] = self.loss.pop_mean(POINT)
        super().log(logs, start_time)

    def _run_epoch(self, *args: Any, epoch: int, **kwargs: Any) -> None:
        self._complete_epoch()
        # The counter of a training that goes on from the checkpoint of its last epoch.
        for callback in self._stopping():
            if callback.early_stopping_patience_counter >= callback.early_stopping_patience:
                self.control.should_training_stop = True
                return
        self.clips.batches.epoch = epoch
        super()._run_epoch(*args, epoch=epoch, **kwargs)

    def _finalize_training(self, *args: Any, **kwargs: Any) -> Any:
        self._complete_epoch()
        averaged = self._measure_average()
        self.writer.wait()
        output = super()._finalize_training(*args, **kwargs)
        if self.average and averaged and averaged["eval_rank"] > self.state.best_metric:
            self.average.apply()
            self.state.log_history.append(averaged)
            self.state.best_metric = averaged["eval_rank"]
        return output

    def _measure_average(self) -> dict[str, Any] | None:
        """Evaluate the mean of the last epochs' weights, as one more candidate for the best."""
        if self.average is None:
            return None
        if self.saved_step != self.state.global_step:
            self.save_step()  # whoever ends the stage now must not save the means as weights
        with self.average.applied():
            found = self.evaluation_loop(self.get_eval_dataloader(), "average").metrics
        last = round(self.args.num_train_epochs)
        return {**found, "epoch": last, "averaged_epochs": list(range(last - self.average.epochs + 1, last + 1))}

    def _complete_epoch(self) -> None:
        """Evaluate an epoch, if the checkpoint that training goes on from was saved before its evaluation ended."""
        if self.state.global_step and self.state.global_step % self.epoch_steps == 0 and not self._is_evaluated():
            self._determine_best_metric(self._evaluate(None, None), None)
            self._save_checkpoint(self.model, None)

    def _is_evaluated(self) -> bool:
        return any("eval_rank" in row and row["step"] == self.state.global_step for row in self.state.log_history)

    def _stopping(self) -> list[EarlyStoppingCallback]:
        return [one for one in self.callback_handler.callbacks if isinstance(one, EarlyStoppingCallback)]

    def _maybe_log_save_evaluate(self, *args: Any, **kwargs: Any) -> None:
        super()._maybe_log_save_evaluate(*args, **kwargs)
        self._end_if_asked()
        # At the end of an epoch, the checkpoint comes after the evaluation.
        if self.state.global_step % self.epoch_steps:
            self._save_if_due()

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Save the weights of an epoch that is the best so far, and a checkpoint if it is due."""
        if self.state.best_global_step == self.state.global_step:
            name = f"best-{self.state.global_step}"
            self.state.best_model_checkpoint = str(self.writer.folder / name)
            if self.args.should_save:
                self.writer.wait()
                self.writer.prepare(name)
                self.writer.write(name, {WEIGHTS: to_cpu(self.model.state_dict())}, {})
        self._save_if_due()

    def _save_if_due(self) -> None:
        if self.state.global_step - self.saved_step >= self.interval:
            self.save_step()

    def save_step(self) -> None:
        """Save all that is needed to go on from this step. All processes must call it."""
        self.saved_step = self.state.global_step
        name = f"checkpoint-{self.state.global_step}"
        self.writer.wait()
        if self.args.should_save:
            self.writer.prepare(name)
        self.accelerator.wait_for_everyone()
        self._save_rng_state(str(self.writer.folder / f".{name}.partial"))
        sums = self.loss.read_sums().tolist()
        self.accelerator.wait_for_everyone()
        if not self.args.should_save:
            return
        tensors = {WEIGHTS: self.model, "optimizer.pt": self.optimizer, "scheduler.pt": self.lr_scheduler}
        tensors |= {"scaler.pt": self.accelerator.scaler, AVERAGE: self.average}
        counters = [callback.early_stopping_patience_counter for callback in self._stopping()]
        texts = {STATE: dataclasses.asdict(self.state), PROGRESS: {"sums": sums, "counters": counters}}
        self.writer.write(
            name,
            {file: to_cpu(part.state_dict()) for file, part in tensors.items() if part is not None},
            {file: json.dumps(content) for file, content in texts.items()},
            keep=(Path(self.state.best_model_checkpoint or "").name,),
        )

    def _init_training_state(self, *args: Any, **kwargs: Any) -> Any:
        found = super()._init_training_state(*args, **kwargs)
        if self.state.best_global_step:  # by step, because the folder may have another path now
            best = self.writer.folder / f"best-{self.state.best_global_step}"
            if not (best / WEIGHTS).is_file():
                raise damaged_checkpoint(self.writer.folder, f"{best.name} is missing")
            self.state.best_model_checkpoint = str(best)
        return found

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        with loading(self.writer.folder):
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            progress = json.loads(Path(resume_from_checkpoint, PROGRESS).read_text(encoding="utf-8"))
            if self.average:
                self.average.load_state_dict(torch.load(Path(resume_from_checkpoint, AVERAGE), weights_only=True))
        if self.args.process_index == 0:  # the sums are those of all processes
            self.loss.sums = torch.tensor(progress["sums"])
        for callback, counter in zip(self._stopping(), progress["counters"]):
            callback.early_stopping_patience_counter = counter
        self.saved_step = int(Path(resume_from_checkpoint).name.partition("-")[2])

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        with loading(self.writer.folder):
            super()._load_optimizer_and_scheduler(checkpoint)

    def _end_if_asked(self) -> None:
        """Save a checkpoint and end, if a signal asked to."""
        number = agree_on_request(self.state.global_step, self.args.world_size, self.args.device)
        if number:
            if self.saved_step != self.state.global_step:
                self.save_step()
            self.writer.wait()
            self.accelerator.wait_for_everyone()
            if self.args.world_size > 1:  # the process that started them tells the user
                os._exit(1)
            epoch = f"{self.state.epoch:.3g} of {self.args.num_train_epochs:g} epochs"
            interrupts.end(number, f"a checkpoint was saved after {epoch}. Run dvc repro to go on from it")
