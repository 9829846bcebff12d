"""Run a model with PyTorch, on a GPU if there is one."""

from pathlib import Path

import numpy as np
import torch
from accelerate.utils.memory import should_reduce_batch_size
from transformers import PreTrainedConfig

from stages.common.classifier import load_classifier
from stages.common.device import find_device, is_bf16_chosen
from tools.classify.model import Run


def load_torch(folder: Path, config: PreTrainedConfig, precision: str, threads: int | None) -> Run:
    """Load a model, as `load_model` describes it."""
    if threads:
        torch.set_num_threads(threads)
    model = load_classifier(folder, config, new_head=False).to(find_device()).eval()
    bf16 = is_bf16_chosen(precision)

    @torch.inference_mode()
    def run(inputs: np.ndarray) -> np.ndarray:
        tensor = torch.from_numpy(inputs).to(model.device).float()
        try:
            with torch.autocast(model.device.type, torch.bfloat16, enabled=bf16):
                logits: np.ndarray = model(tensor).logits.cpu().double().numpy()
                return logits
        except RuntimeError as error:
            if not isinstance(error, torch.OutOfMemoryError) and not should_reduce_batch_size(error):
                raise
            raise MemoryError from None

    return run
