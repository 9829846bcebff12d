"""Run a part of the base model that training does not change, so that its output can be cached."""

from collections.abc import Callable
from itertools import cycle, islice
from pathlib import Path
from queue import SimpleQueue

import numpy as np
import torch
from transformers import PreTrainedConfig
from transformers.utils import logging

from stages.common.architectures import average_layers, find_part
from stages.common.classifier import load_classifier
from stages.common.device import copy_to_devices, find_devices, is_bf16_chosen, make_deterministic
from stages.common.threads import borrow


def load_part(
    folder: Path, config: PreTrainedConfig, part: str, precision: str, workers: int
) -> Callable[[np.ndarray], np.ndarray]:
    """Load a part of the base model as a function, which uses all GPUs if several threads call it.

    Args:
        part: feature_encoder, base or layers. precision: auto, fp32 or bf16. workers: number of these threads.

    Returns:
        A function from the model's input, float32, to float32 (frames, channels); of the base, one frame, the mean; of
        the layers, what `average_layers` returns.

    Raises:
        UserError: weights are missing.
    """
    make_deterministic(0, threads=1)  # the clips already run on several threads
    logging.set_verbosity_error()
    config.return_dict = True
    model = load_classifier(folder, config, new_head=True).eval()
    found = find_part(model, part)
    assert found is not None  # ResampleEncodeParams.find_unsupported
    bf16, devices = is_bf16_chosen(precision), find_devices()
    free: SimpleQueue[tuple[torch.nn.Module, torch.device]] = SimpleQueue()
    copies = zip(copy_to_devices(getattr(*found), devices), map(torch.device, devices))
    for copy in islice(cycle(copies), max(workers, len(devices))):
        free.put(copy)

    @torch.inference_mode()
    def run_part(features: np.ndarray) -> np.ndarray:
        with borrow(free) as (module, device), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            batch = torch.from_numpy(features)[None].to(device)
            if part == "feature_encoder":
                output = module(batch)[0].T
            # The heads map each frame linearly and take the mean, so the mean alone gives the same result.
            elif part == "base":
                output = module(batch).last_hidden_state.mean(1)
            else:
                output = average_layers(module, batch)
        return output.float().cpu().numpy()

    return run_part
