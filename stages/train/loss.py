"""The training loss, and what is measured after each epoch."""

import math
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch.nn.functional import cross_entropy

from stages.common.accuracy import Accuracy
from stages.train.params import TrainParams

EPOCH, POINT = 0, 1


class MeanLoss:
    """Cross-entropy averaged over the effective batch, with label smoothing in training only.

    The models' loss averages over each micro-batch, and the Trainer sums these means: with gradient accumulation, the
    gradient would be too large by the number of accumulation steps (seen in transformers 5.23).

    It also sums the losses of training: of an epoch, and since the last point of the TensorBoard logs. If several
    processes train, each sums its own.
    """

    def __init__(self, label_smoothing: float) -> None:
        self.label_smoothing = label_smoothing
        # Rows: epoch, point. Columns: sum of the losses, number of clips.
        self.sums = torch.zeros(2, 2)

    def __call__(
        self, outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the loss, as the Trainer calls it.

        Args:
            outputs: with logits, (batch, labels). labels: ids, int64 (batch,); those of -100 are left out.
            num_items_in_batch: number of labels in the effective batch; None in evaluation.
        """
        training = outputs.logits.requires_grad
        smoothing = self.label_smoothing if training else 0.0
        total = cross_entropy(outputs.logits.float(), labels, reduction="sum", label_smoothing=smoothing)
        count = labels.ne(-100).sum()
        if training:
            # Summed on the device: reading the number at each step would synchronise the GPU.
            self.sums = self.sums.to(total.device) + torch.stack([total.detach(), count])
        return total / (count if num_items_in_batch is None else num_items_in_batch)

    def read_sums(self) -> torch.Tensor:
        """Return the sums over all processes, float32 (2, 2), on the CPU. All processes must call it."""
        sums = self.sums.clone()
        if dist.is_initialized():
            dist.all_reduce(sums)
        return sums.cpu()

    def pop_mean(self, row: int) -> float:
        """Return the mean over all clips trained on since the last call. row: EPOCH or POINT."""
        total, count = self.read_sums()[row].tolist()
        self.sums[row] = 0.0
        return total / count


def make_loss(params: TrainParams) -> MeanLoss:
    """Return the training loss that params ask for."""
    return MeanLoss(params.label_smoothing)


def average_segments(logits: np.ndarray, recordings: np.ndarray) -> np.ndarray:
    """Average the probabilities of each recording's segments, as evaluate does.

    Args:
        logits: (segments, labels). recordings: their numbers, int64 (segments,), ascending.

    Returns:
        The logarithm of the probabilities, float64 (recordings, labels), in the order of the numbers.
    """
    logs = torch.tensor(logits).double().log_softmax(-1).numpy()
    _, first, counts = np.unique(recordings, return_index=True, return_counts=True)
    return np.logaddexp.reduceat(logs, first) - np.log(counts)[:, None]


def compute_metrics(outcome: Any, recordings: np.ndarray | None = None) -> dict[str, float]:
    """Compute accuracy and mean cross-entropy of all clips. The Trainer's loss gives each batch the same weight.

    The epoch with the highest rank is the best: the one with the highest accuracy and, of several, the lowest loss.

    Args:
        recordings: a number for each item, int64 (items,), the same for the segments of a clip; None without segments.
    """
    logits = outcome.predictions[0] if isinstance(outcome.predictions, tuple) else outcome.predictions
    labels = outcome.label_ids
    if recordings is not None:
        logits = average_segments(logits, recordings)
        labels = labels[np.unique(recordings, return_index=True)[1]]
    metric = Accuracy()
    accuracy = metric.compute(predictions=np.argmax(logits, axis=1), references=labels)["accuracy"]
    loss = float(cross_entropy(torch.tensor(logits).double(), torch.tensor(labels)))
    # Less than one more correct clip, and 0 if training diverged.
    bonus = math.exp(-loss) / (len(logits) + 1) if math.isfinite(loss) else 0.0
    return {"accuracy": accuracy, "cross_entropy": loss, "rank": accuracy + bonus}
