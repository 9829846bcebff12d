"""Choose the device and make torch deterministic."""

import copy
import os
import warnings
from collections.abc import Callable
from typing import TypeVar

from stages.common.environment import ignore_launchers, keep_freed_memory, use_all_gpus

keep_freed_memory()
ignore_launchers()
# It must be set before CUDA starts. cuBLAS is deterministic only with a fixed workspace.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

import torch
import transformers
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size

from stages.common.errors import UserError

M = TypeVar("M", bound=torch.nn.Module)
T = TypeVar("T")


def find_device() -> str:
    """Return "cuda", "mps" (Apple's GPUs) or "cpu", the first that is available."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def find_devices() -> list[str]:
    """Return all visible NVIDIA GPUs, or the one device that there is."""
    return [f"cuda:{index}" for index in range(torch.cuda.device_count())] or [find_device()]


def copy_to_devices(module: M, devices: list[str]) -> list[M]:
    """Return a copy of a module on each device; on the first, the module itself."""
    copies = [copy.deepcopy(module).to(device) for device in devices[1:]]
    return [module.to(devices[0]), *copies]


def count_gpus() -> int:
    """Return the number of NVIDIA GPUs that the user's environment exposes."""
    with use_all_gpus():
        return torch.cuda.device_count()


def describe_device() -> str:
    """Return the name of the GPU, or "mps" or "cpu"."""
    device = find_device()
    return torch.cuda.get_device_name() if device == "cuda" else device


def has_bf16() -> bool:
    """Return whether the device multiplies in bf16. If it only emulates bf16, as a T4 does, fp32 is faster."""
    device = find_device()
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device == "cpu" and torch.cpu._is_avx512_bf16_supported()


def is_bf16_chosen(precision: str) -> bool:
    """Return whether to run a model that is not trained in bf16: if asked, or with `auto` if the device has it."""
    return precision == "bf16" or (precision == "auto" and has_bf16())


def make_deterministic(seed: int, threads: int | None = None) -> None:
    """Seed Python, NumPy and torch, and choose deterministic algorithms.

    The same seed then gives the same bytes on one CPU model and, as far as CUDA allows, on one GPU model.

    Args:
        threads: CPU threads; sums depend on their number. None keeps torch's default.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    transformers.set_seed(seed)
    # Only warn: another architecture may use an operation that has no deterministic form.
    torch.use_deterministic_algorithms(True, warn_only=True)
    warnings.filterwarnings("ignore", ".* Attention defaults to a non-deterministic algorithm")  # docs/speed.md
    torch.utils.deterministic.fill_uninitialized_memory = False  # torch's layers never read such memory
    torch.backends.cuda.enable_cudnn_sdp(False)  # cuDNN's attention is never deterministic
    torch.backends.cudnn.benchmark = False


def with_smaller_batches(run: Callable[[int], T], batch_size: int, key: str, fix: str, *, divide: bool = False) -> T:
    """Return run(batch_size); if memory runs out, call it again with half of the batch.

    Args:
        run: gets the number of clips in a batch.
        divide: use only divisors of the batch size, so that accumulated batches have its size.
        key: of params.yaml, and how to fix it, for the error if even a single clip does not fit.

    Raises:
        UserError: a single clip does not fit into memory.
    """
    while True:
        try:
            return run(batch_size)
        except RuntimeError as error:
            # The CPU and Apple's GPUs report a lack of memory only in the message.
            if not isinstance(error, torch.OutOfMemoryError) and not should_reduce_batch_size(error):
                raise
            if batch_size == 1:
                raise UserError(f"a single clip does not fit into memory; {fix}", key=key) from None
        smaller = range(batch_size // 2, 0, -1)
        batch_size = next(size for size in smaller if not divide or batch_size % size == 0)
        print(f"out of memory: starting again with batches of {batch_size}", flush=True)
        # Outside the except block: inside, the error still references the tensors.
        clear_device_cache(garbage_collection=True)
