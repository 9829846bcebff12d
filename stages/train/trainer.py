"""What the Trainer of transformers does otherwise for clips: its loss, and how it batches them for evaluation."""

from typing import Any

import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader
from transformers import Trainer
from transformers.trainer_utils import EvalLoopOutput

from stages.common.batches import alike


class MeanLoss:
    """Cross-entropy averaged over the whole effective batch, smoothed in training only.

    The models' own loss averages each micro-batch, and the Trainer then sums those means: with accumulation, the
    gradient would come out that many times too large (seen on transformers 5.23).
    """

    def __init__(self, label_smoothing: float):
        self.label_smoothing = label_smoothing
        self.total, self.count = torch.zeros(()), 0

    def __call__(
        self, outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor | None = None
    ) -> torch.Tensor:
        training = outputs.logits.requires_grad
        smoothing = self.label_smoothing if training else 0.0
        total = cross_entropy(outputs.logits.float(), labels, reduction="sum", label_smoothing=smoothing)
        if training:
            # Summed on the device: asking for the number at each step would stop a GPU's queue.
            self.total = self.total.to(total.device) + total.detach()
            self.count += len(labels)
        return total / (len(labels) if num_items_in_batch is None else num_items_in_batch)

    def take(self) -> float:
        """The mean over all clips trained on since the last call."""
        mean = float(self.total) / self.count
        self.total, self.count = torch.zeros(()), 0
        return mean


class ClipTrainer(Trainer):
    """A Trainer that evaluates clips of one length together: with padding, a result would depend on the batch."""

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader:
        clips = eval_dataset or self.eval_dataset
        batches = alike(clips, self.args.eval_batch_size)
        return DataLoader(clips, batch_sampler=batches, collate_fn=self.data_collator)

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> EvalLoopOutput:
        # gather_for_metrics, the Trainer's choice, cuts batches to the remainder of the training clips' last batch.
        self.gather_function = self.accelerator.gather
        return super().evaluation_loop(*args, **kwargs)
