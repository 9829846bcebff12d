"""Settings of the process that must be made before torch starts to work."""

import ctypes
import os
import sys

# Parameters of glibc's mallopt, from malloc.h.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
KEPT = 2**31 - 1  # bytes, the largest int


def use_first_gpu() -> None:
    """Expose only the first GPU, because the Trainer would multiply the batch size by their number."""
    os.environ["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]


def keep_freed_memory() -> None:
    """Let glibc keep freed memory, because the next training step needs the same amount.

    By default it returns large blocks to Linux, which then has to clear each page again. That took a tenth of the time
    of the demo's training. Other C libraries are left as they are.
    """
    if sys.platform == "linux" and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)):
        # Older versions refuse more than 32 MiB.
        if mallopt(M_MMAP_THRESHOLD, KEPT) or mallopt(M_MMAP_THRESHOLD, 32 * 2**20):
            mallopt(M_TRIM_THRESHOLD, KEPT)
