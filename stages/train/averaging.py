"""Average the weights after each of the last epochs (Izmailov et al., 2018, arXiv:1803.05407)."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.optim.swa_utils import get_swa_multi_avg_fn
from transformers import TrainerCallback


class WeightAverage(TrainerCallback):
    """The mean of the trained weights over the last epochs, each with the same share.

    Args:
        model: whose weights are averaged; they stay where they are.
        epochs: how many, to the end of the training. epoch_steps: steps of the optimizer in each.
    """

    def __init__(self, model: torch.nn.Module, epochs: int, epoch_steps: int) -> None:
        self.epochs, self.epoch_steps = epochs, epoch_steps
        self.buffers = dict(model.named_buffers())
        self.measured: dict[str, torch.Tensor] = {}
        self.weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
        self.means: dict[str, torch.Tensor] = {}
        self.count = 0

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Add the weights at the end of an epoch: before its evaluation, so that each checkpoint has them once."""
        epoch, rest = divmod(state.global_step, self.epoch_steps)
        if rest or epoch <= round(args.num_train_epochs) - self.epochs:
            return
        if not self.means:
            self.means = {name: weight.detach().clone() for name, weight in self.weights.items()}
        else:
            current = [weight.detach() for weight in self.weights.values()]
            get_swa_multi_avg_fn()(list(self.means.values()), current, self.count)
        self.count += 1

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint needs."""
        return {"means": self.means, "count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.means = {name: mean.to(self.weights[name].device) for name, mean in state["means"].items()}
        self.count = state["count"]

    @torch.no_grad()
    def apply(self) -> None:
        """Give the model the means, and the buffers with which they were measured, if they were."""
        for name, mean in self.means.items():
            self.weights[name].copy_(mean)
        for name, buffer in self.measured.items():  # of batch normalisation
            self.buffers[name].copy_(buffer)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Give the model the means inside the block."""
        before = {name: weight.detach().clone() for name, weight in self.weights.items()}
        self.apply()
        self.measured = {name: buffer.detach().clone() for name, buffer in self.buffers.items()}
        try:
            yield
        finally:
            with torch.no_grad():
                for name, weight in before.items():
                    self.weights[name].copy_(weight)
