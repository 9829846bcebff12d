"""Environment variables that must be set before CUDA starts."""

import os


def use_first_gpu() -> None:
    """Expose only the first GPU, because the Trainer would multiply the batch size by their number."""
    os.environ["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
