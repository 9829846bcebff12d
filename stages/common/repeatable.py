"""The same seed gives the same bytes: on one kind of processor and, as far as CUDA allows, on one kind of GPU."""

import os

# Before torch starts: cuBLAS repeats its sums only with a workspace of its own, and on a machine with several
# GPUs the Trainer would multiply the batch size by their number.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
os.environ["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]

import torch
import transformers


def repeat(seed: int, threads: int | None = None) -> None:
    """Seed Python, NumPy and torch, and choose deterministic algorithms.

    Args:
        threads: CPU threads; sums depend on their number, so a fixed one repeats on any machine of a kind.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    transformers.set_seed(seed)
    # Warn only: a model of another architecture may use an operation that has no deterministic form.
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # a guard against reads that torch's layers never do
    torch.backends.cudnn.benchmark = False
