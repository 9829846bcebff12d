from types import SimpleNamespace
from typing import Any

import pytest
import torch

from stages.train.averaging import WeightAverage


def make_average() -> tuple[torch.nn.Module, WeightAverage]:
    model = torch.nn.Linear(2, 1)
    model.bias.requires_grad_(False)
    return model, WeightAverage(model, epochs=3, epoch_steps=4)


def train(model: Any, average: WeightAverage, steps: range) -> None:
    """Set the weights to the step; of five epochs of four steps, the last three end with 12, 16 and 20."""
    for step in steps:
        torch.nn.init.constant_(model.weight, step)
        average.on_step_end(SimpleNamespace(num_train_epochs=5.0), SimpleNamespace(global_step=step), None)


def test_mean_of_last_epochs() -> None:
    model, average = make_average()
    train(model, average, range(1, 21))
    with average.applied():
        assert model.weight.tolist() == [[16, 16]]  # type: ignore[union-attr]
    assert model.weight.tolist() == [[20, 20]]  # type: ignore[union-attr]
    assert set(average.means) == {"weight"}
    average.apply()
    assert model.weight.tolist() == [[16, 16]]  # type: ignore[union-attr]


@pytest.mark.parametrize("step", [3, 12, 13, 20])
def test_goes_on_from_a_checkpoint(step: int) -> None:
    model, average = make_average()
    train(model, average, range(1, step + 1))
    state = average.state_dict()
    model, again = make_average()
    again.load_state_dict(state)
    train(model, again, range(step + 1, 21))
    again.apply()
    assert model.weight.tolist() == [[16, 16]]  # type: ignore[union-attr]


def test_mean_keeps_the_buffers_that_were_measured() -> None:
    """The running means of batch normalisation are no weights, but decide what the model predicts."""
    model = torch.nn.BatchNorm1d(2)
    average = WeightAverage(model, epochs=3, epoch_steps=4)
    train(model, average, range(1, 21))
    model(torch.randn(8, 2))
    sample = torch.randn(3, 2)
    with average.applied():
        measured = model.eval()(sample)
    assert model.running_mean is not None
    model.running_mean.zero_()  # the best epoch is loaded
    average.apply()
    torch.testing.assert_close(model(sample), measured)
