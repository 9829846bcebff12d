"""Settings of the process that must be made before torch starts to work."""

import ctypes
import os
import sys

# Parameters of glibc's mallopt, from malloc.h.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
KEPT = 2**31 - 1  # bytes, the largest int
# Variables that torchrun, Accelerate, MPI and clusters set for the processes that they start.
LAUNCHERS = (
    "ACCELERATE_",
    "FSDP_",
    "MPI_LOCAL",
    "MV2_COMM_WORLD_",
    "OMPI_COMM_WORLD_",
    "PARALLELISM_CONFIG_",
    "PMI_",
    "SM_HP_",
    "SMDATAPARALLEL_",
    "TORCHELASTIC_",
)
RANKS = {
    "FORK_LAUNCHED",
    "GROUP_RANK",
    "LOCAL_RANK",
    "LOCAL_WORLD_SIZE",
    "MASTER_ADDR",
    "MASTER_PORT",
    "RANK",
    "ROLE_RANK",
    "WORLD_SIZE",
}


def use_first_gpu() -> None:
    """Expose only the first GPU, because the Trainer would multiply the batch size by their number."""
    os.environ["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]


def ignore_launchers() -> None:
    """Remove the variables of launchers: with those that a cluster left over, Accelerate waits for other processes."""
    found = [name for name in os.environ if name in RANKS or name.startswith(LAUNCHERS)]
    for name in found:
        del os.environ[name]
    if found:
        print(f"ignored, because a stage runs in one process: {', '.join(sorted(found))}", file=sys.stderr)


def keep_freed_memory() -> None:
    """Let glibc keep freed memory, because the next training step needs the same amount.

    By default it returns large blocks to Linux, which then has to clear each page again. That took a tenth of the time
    of the demo's training. Other C libraries are left as they are.
    """
    if sys.platform == "linux" and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)):
        # Older versions refuse more than 32 MiB.
        if mallopt(M_MMAP_THRESHOLD, KEPT) or mallopt(M_MMAP_THRESHOLD, 32 * 2**20):
            mallopt(M_TRIM_THRESHOLD, KEPT)
