"""The training loss, and what is measured after each epoch."""

import math
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from stages.common.accuracy import Accuracy
from stages.train.params import TrainParams


class MeanLoss:
    """Cross-entropy averaged over the effective batch, with label smoothing in training only.

    The models' loss averages over each micro-batch, and the Trainer sums these means: with gradient accumulation, the
    gradient would be too large by the number of accumulation steps (seen in transformers 5.23).
    """

    def __init__(self, label_smoothing: float) -> None:
        self.label_smoothing = label_smoothing
        self.total, self.count = torch.zeros(()), 0

    def __call__(
        self, outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the loss, as the Trainer calls it.

        Args:
            outputs: with logits, (batch, labels). labels: ids, int64 (batch,).
            num_items_in_batch: number of labels in the effective batch; None in evaluation.
        """
        training = outputs.logits.requires_grad
        smoothing = self.label_smoothing if training else 0.0
        total = cross_entropy(outputs.logits.float(), labels, reduction="sum", label_smoothing=smoothing)
        if training:
            # Summed on the device: reading the number at each step would synchronise the GPU.
            self.total = self.total.to(total.device) + total.detach()
            self.count += len(labels)
        return total / (len(labels) if num_items_in_batch is None else num_items_in_batch)

    def pop_mean(self) -> float:
        """Return the mean over all clips trained on since the last call."""
        mean = float(self.total) / self.count
        self.total, self.count = torch.zeros(()), 0
        return mean


def make_loss(params: TrainParams) -> MeanLoss:
    """Return the training loss that params ask for."""
    return MeanLoss(params.label_smoothing)


def compute_metrics(outcome: Any) -> dict[str, float]:
    """Compute accuracy and mean cross-entropy of all clips. The Trainer's loss gives each batch the same weight.

    The epoch with the highest rank is the best: the one with the highest accuracy and, of several, the lowest loss.
    """
    logits = outcome.predictions[0] if isinstance(outcome.predictions, tuple) else outcome.predictions
    metric = Accuracy()
    accuracy = metric.compute(predictions=np.argmax(logits, axis=1), references=outcome.label_ids)["accuracy"]
    loss = float(cross_entropy(torch.tensor(logits).double(), torch.tensor(outcome.label_ids)))
    # Less than one more correct clip, and 0 if training diverged.
    bonus = math.exp(-loss) / (len(logits) + 1) if math.isfinite(loss) else 0.0
    return {"accuracy": accuracy, "cross_entropy": loss, "rank": accuracy + bonus}
