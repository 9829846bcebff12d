"""The training loss, and what is measured after each epoch."""

import math
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from sklearn.metrics import f1_score, recall_score
from sklearn.utils.class_weight import compute_class_weight
from torch.nn.functional import cross_entropy

from stages.common.accuracy import Accuracy
from stages.train.params import Metric, TrainParams

EPOCH, POINT = 0, 1


class MeanLoss:
    """Cross-entropy averaged over the effective batch, with label smoothing and class weights in training only.

    The sum is divided by the number of clips, not by the sum of their weights, so that micro-batches and processes add
    up to the same gradient. Over all training clips the mean weight is 1.

    The models' loss averages over each micro-batch, and the Trainer sums these means: with gradient accumulation, the
    gradient would be too large by the number of accumulation steps (seen in transformers 5.23).

    It also sums the losses of training: of an epoch, and since the last point of the TensorBoard logs. If several
    processes train, each sums its own.
    """

    def __init__(self, label_smoothing: float, class_weights: torch.Tensor | None = None) -> None:
        self.label_smoothing, self.class_weights = label_smoothing, class_weights
        # Rows: epoch, point. Columns: sum of the losses, number of clips.
        self.sums = torch.zeros(2, 2)

    def __call__(
        self, outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the loss, as the Trainer calls it.

        Args:
            outputs: with logits, (batch, labels). labels: ids, int64 (batch,), or after mixup the share of each label,
                float32 (batch, labels); those of -100 are left out.
            num_items_in_batch: number of values in the labels of the effective batch; None in evaluation.
        """
        training, logits = outputs.logits.requires_grad, outputs.logits.float()
        smoothing = self.label_smoothing if training else 0.0
        if self.class_weights is not None:
            self.class_weights = self.class_weights.to(logits.device)
        weights = self.class_weights if training else None
        if labels.is_floating_point():
            kept = labels[:, 0].ne(-100)
            losses = cross_entropy(logits, labels.clamp(min=0), weights, reduction="none", label_smoothing=smoothing)
            total, count = (losses * kept).sum(), kept.sum()
            num_items_in_batch = None if num_items_in_batch is None else num_items_in_batch / labels.shape[1]
        else:
            total = cross_entropy(logits, labels, weights, reduction="sum", label_smoothing=smoothing)
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


def make_loss(params: TrainParams, labels: np.ndarray, number: int) -> MeanLoss:
    """Return the training loss that params ask for.

    Args:
        labels: ids of the training clips, int64 (clips,). number: of all labels.
    """
    return MeanLoss(params.label_smoothing, balance_classes(labels, number) if params.class_weights else None)


def balance_classes(labels: np.ndarray, number: int) -> torch.Tensor:
    """Return scikit-learn's balanced weight of each label, float32 (number,); 1 for a label without clips."""
    present, weights = np.unique(labels), torch.ones(number)
    balanced = compute_class_weight("balanced", classes=present, y=labels)
    weights[torch.from_numpy(present)] = torch.from_numpy(balanced).float()
    return weights


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


def score(metric: Metric, actual: np.ndarray, predicted: np.ndarray) -> float:
    """Compute the metric that selects the best epoch. actual, predicted: label ids, int64 (clips,)."""
    if metric == "accuracy":
        return float(Accuracy().compute(predictions=predicted, references=actual)["accuracy"])
    # Only labels that occur, as evaluate does. Balanced accuracy is the mean of the labels' recall.
    function = f1_score if metric == "macro_f1" else recall_score
    return float(function(actual, predicted, labels=np.unique(actual), average="macro"))


def compute_metrics(
    outcome: Any, recordings: np.ndarray | None = None, select_by: Metric = "accuracy"
) -> dict[str, float]:
    """Compute accuracy and mean cross-entropy of all clips. The Trainer's loss gives each batch the same weight.

    The epoch with the highest rank is the best: the one with the highest metric and, of several, the lowest loss.

    Args:
        recordings: a number for each item, int64 (items,), the same for the segments of a clip; None without segments.
        select_by: the metric, which is computed besides accuracy.
    """
    logits = outcome.predictions[0] if isinstance(outcome.predictions, tuple) else outcome.predictions
    labels = outcome.label_ids
    if recordings is not None:
        logits = average_segments(logits, recordings)
        labels = labels[np.unique(recordings, return_index=True)[1]]
    predicted = np.argmax(logits, axis=1)
    scores: dict[str, float] = {
        metric: score(metric, labels, predicted) for metric in dict.fromkeys(("accuracy", select_by))
    }
    loss = float(cross_entropy(torch.tensor(logits).double(), torch.tensor(labels)))
    # 0 if training diverged. Less than one more correct clip; other metrics also differ by less than that.
    bonus = math.exp(-loss) if math.isfinite(loss) else 0.0
    bonus *= 1 / (len(logits) + 1) if select_by == "accuracy" else 1e-9
    return {**scores, "cross_entropy": loss, "rank": scores[select_by] + bonus}
