"""What the Trainer tells while it runs: a bar, one row per epoch for DVCLive, TensorBoard logs of every few steps."""

from pathlib import Path
from typing import Any

import numpy as np
from dvclive import Live
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard.summary import scalar
from tqdm import tqdm
from transformers import TrainerCallback
from transformers.trainer_callback import ProgressCallback


class Bar(ProgressCallback):
    """The Trainer's own bar, without a line for every logged step."""

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        pass


class EpochLog(TrainerCallback):
    """One row per epoch: loss in training (the mean of its logged steps), and loss and accuracy on the other clips."""

    def __init__(self, live: Live):
        self.live, self.losses = live, []

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        if "loss" in logs:
            self.losses.append(logs["loss"])

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict[str, float], **kwargs: Any) -> None:
        row = {
            "train_loss": float(np.mean(self.losses)),
            "eval_loss": metrics["eval_loss"],
            "eval_accuracy": metrics["eval_accuracy"],
        }
        self.losses = []
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
        for tag in ("loss", "learning_rate", "grad_norm", "eval_loss", "eval_accuracy"):
            if tag in logs:
                name = f"eval/{tag[5:]}" if tag.startswith("eval_") else f"train/{tag}"
                event = Event(wall_time=step, step=step, summary=scalar(name, float(logs[tag])))
                self.writer.write(event.SerializeToString())
        self.writer.flush()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.writer.close()
