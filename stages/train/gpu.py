"""Make training steps faster on an NVIDIA GPU: with a small model, starting the kernels takes longer than they run."""

import sys
import warnings
from collections.abc import Callable
from typing import Any

import torch
from accelerate.utils.memory import should_reduce_batch_size
from transformers import PreTrainedModel, TrainingArguments
from transformers.modeling_outputs import SequenceClassifierOutput

from stages.train.batches import TrainingClips

# Architectures whose training step does not depend on its numbers, except for the keys below.
GRAPHED = ("hubert", "wav2vec2")


def keep_grouped_convolutions_in_fp32(model: torch.nn.Module) -> None:
    """Leave convolutions with groups out of mixed precision.

    In bf16 and fp16, cuDNN runs the positional convolution of HuBERT (128 wide, 16 groups) without tensor cores. On an
    H100, it took half of the GPU's time; in fp32 it takes a tenth of that.
    """
    for module in model.modules():
        if isinstance(module, torch.nn.Conv1d) and module.groups > 1:
            module.forward = _in_fp32(module.forward)


def _in_fp32(forward: Any) -> Any:
    def run(states: torch.Tensor) -> torch.Tensor:
        with torch.autocast(states.device.type, enabled=False):
            return forward(states.float())

    return run


def can_be_captured(model: PreTrainedModel) -> bool:
    """Return whether a step of the model is the same each time: no layers that are left out, no masks."""
    config = model.config
    varying = getattr(config, "layerdrop", 0) or getattr(config, "apply_spec_augment", False)
    return config.model_type in GRAPHED and not varying


class _Logits(torch.nn.Module):
    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        forward = getattr(self.model, "_original_forward", self.model.forward)  # without accelerate's autocast
        return forward(features).logits


def capture_training(model: PreTrainedModel, input_name: str, sample: torch.Tensor, dtype: torch.dtype | None) -> None:
    """Record the kernels of a training step in a CUDA graph; batches of the sample's shape then run it at once.

    Other batches, and evaluation, run as before. If the step cannot be recorded, nothing changes.

    Args:
        sample: a batch on the GPU. dtype: of mixed precision; None for fp32.

    Raises:
        RuntimeError: out of memory.
    """
    random_state, forward = torch.cuda.get_rng_state(), model.forward
    logits = _Logits(model.train())
    torch.autograd.graph.set_warn_on_accumulate_grad_stream_mismatch(False)
    try:
        # PyTorch warns that cuBLAS starts CUDA in the thread of the backward pass, which is right.
        with (
            warnings.catch_warnings(action="ignore"),
            torch.autocast("cuda", dtype, enabled=dtype is not None, cache_enabled=False),
        ):
            torch.cuda.make_graphed_callables(logits, (sample.clone(),), allow_unused_input=True)
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError) or should_reduce_batch_size(error):
            raise
        print(f"trains without a CUDA graph, which could not be recorded: {error}", file=sys.stderr)
        return
    torch.cuda.set_rng_state(random_state)

    def run(**inputs: Any) -> Any:
        features = inputs.get(input_name)
        if not model.training or features is None or features.shape != sample.shape or "attention_mask" in inputs:
            return forward(**inputs)
        return SequenceClassifierOutput(logits=logits(features).float())

    model.forward = run


def capture_if_alike(
    model: PreTrainedModel, arguments: TrainingArguments, clips: TrainingClips, prepare: Callable[[Any], Any]
) -> None:
    """Record the training step, if all steps are alike. prepare: moves a batch to the GPU."""
    batch = prepare(clips.__getitems__(list(range(min(clips.batches.size, len(clips))))))
    name = clips.encoded.input_name
    dtype = torch.bfloat16 if arguments.bf16 else torch.float16 if arguments.fp16 else None
    single = arguments.world_size == arguments.gradient_accumulation_steps == 1
    if single and can_be_captured(model) and "attention_mask" not in batch:
        capture_training(model, name, batch[name], dtype)
