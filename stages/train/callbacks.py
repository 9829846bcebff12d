"""What the Trainer tells while it runs: a bar, one row per epoch for DVCLive, TensorBoard logs of every few steps."""

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

# What the Trainer logs, by TensorBoard's name for it.
TAGS = {
    "loss": "train/loss",
    "learning_rate": "train/learning_rate",
    "grad_norm": "train/grad_norm",
    "eval_cross_entropy": "eval/loss",
    "eval_accuracy": "eval/accuracy",
}


class Bar(ProgressCallback):
    """The Trainer's own bar, without a line for every logged step."""

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        pass


class EpochLog(TrainerCallback):
    """One row per epoch: loss in training, and loss and accuracy on the clips that choose the epoch.

    take_train_loss: gives the mean over the clips trained on since it was last called.
    """

    def __init__(self, live: Live, take_train_loss: Callable[[], float]):
        self.live, self.take_train_loss = live, take_train_loss

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict[str, float], **kwargs: Any) -> None:
        row = {
            "train_loss": self.take_train_loss(),
            "eval_loss": metrics["eval_cross_entropy"],
            "eval_accuracy": metrics["eval_accuracy"],
        }
        self.live.step = round(state.epoch)
        for name, value in row.items():
            self.live.log_metric(name, round(value, 6))
        self.live.make_summary()
        told = "  ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in row.items())
        tqdm.write(f"epoch {self.live.step}/{round(args.num_train_epochs)}  {told}")


class EventLog(TrainerCallback):
    """TensorBoard events without a date: their clock is the step, so that a repeated run writes the same bytes."""

    def __init__(self, folder: Path):
        folder.mkdir(parents=True)
        self.writer = RecordWriter((folder / "events.out.tfevents.0").open("wb"))
        self.writer.write(Event(wall_time=0, step=0, file_version="brain.Event:2").SerializeToString())

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        step = state.global_step
        for key, tag in TAGS.items():
            if key in logs:
                event = Event(wall_time=step, step=step, summary=scalar(tag, float(logs[key])))
                self.writer.write(event.SerializeToString())
        self.writer.flush()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.writer.close()
