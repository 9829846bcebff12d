"""What the Trainer reports while it runs: a bar, one row per epoch for DVCLive, TensorBoard logs every few steps."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dvclive import Live
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard.summary import scalar
from tqdm import tqdm
from transformers import TrainerCallback
from transformers.trainer_callback import ProgressCallback

from stages.train.params import Metric

# The Trainer's names -> TensorBoard's.
TAGS = {
    "loss": "train/loss",
    "learning_rate": "train/learning_rate",
    "grad_norm": "train/grad_norm",
    "eval_cross_entropy": "eval/loss",
    "eval_accuracy": "eval/accuracy",
    "eval_macro_f1": "eval/macro_f1",
    "eval_balanced_accuracy": "eval/balanced_accuracy",
}


class Bar(ProgressCallback):
    """The Trainer's progress bar, without a line for every logged step."""

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        """Print nothing."""


class EpochLog(TrainerCallback):
    """One row per epoch: training loss, and loss and accuracy on the clips that select the best epoch.

    live: None in all processes but the first.
    pop_train_loss: returns the mean over the clips trained on since its last call.
    select_by: the metric that selects the best epoch, which the rows have besides accuracy.
    """

    def __init__(self, live: Live | None, pop_train_loss: Callable[[], float], select_by: Metric = "accuracy") -> None:
        self.live, self.pop_train_loss, self.select_by = live, pop_train_loss, select_by

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write the rows of the epochs before a checkpoint."""
        for row in state.log_history:
            if "eval_train_loss" in row:
                self._write(row)

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write a row."""
        history = state.log_history[-1]
        history["eval_train_loss"] = self.pop_train_loss()
        if not (row := self._write(history)):
            return
        line = "  ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in row.items())
        tqdm.write(f"epoch {round(history['epoch'])}/{round(args.num_train_epochs)}  {line}")

    def _write(self, history: dict[str, float]) -> dict[str, float]:
        """Write a row from a row of the Trainer's history, and return it. Without DVCLive, do nothing."""
        if self.live is None:
            return {}
        row = {
            "train_loss": history["eval_train_loss"],
            "eval_loss": history["eval_cross_entropy"],
            "eval_accuracy": history["eval_accuracy"],
            f"eval_{self.select_by}": history[f"eval_{self.select_by}"],
        }
        self.live.step = round(history["epoch"])
        for name, value in row.items():
            self.live.log_metric(name, round(value, 6))
        return row


class EventLog(TrainerCallback):
    """TensorBoard events whose time is the step, so that a repeated run writes the same bytes."""

    def __init__(self, folder: Path, rank: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.file = (folder / "events.out.tfevents.0").open("wb") if rank == 0 else io.BytesIO()
        self.writer = RecordWriter(self.file)
        self.writer.write(Event(wall_time=0, step=0, file_version="brain.Event:2").SerializeToString())

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write the events before a checkpoint."""
        for row in state.log_history:
            self._write(row["step"], row)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        """Write an event for each known number."""
        self._write(state.global_step, logs or {})

    def _write(self, step: int, logs: dict[str, float]) -> None:
        for key, tag in TAGS.items():
            if key in logs:
                event = Event(wall_time=step, step=step, summary=scalar(tag, float(logs[key])))
                self.writer.write(event.SerializeToString())
        self.writer.flush()

    def close(self) -> None:
        """Close the file."""
        self.file.close()
