"""Settings of the process that must be made before torch starts to work."""

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

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


GPUS = "CUDA_VISIBLE_DEVICES"
# The ID of the process that started the training processes.
LAUNCHER = "STAGE_LAUNCHER"
_visible = os.environ.get(GPUS)


def is_rank() -> bool:
    """Return whether this process is one of several that a stage started, see `use_all_gpus` and `mark_rank`."""
    return os.environ.get(LAUNCHER) == str(os.getppid())


def mark_rank() -> None:
    """Make `is_rank` true, in a process that a cluster started for a stage. It keeps the launcher's variables."""
    os.environ[LAUNCHER] = str(os.getppid())


def use_first_gpu() -> None:
    """Expose only the first GPU, because the Trainer would multiply the batch size by their number."""
    if not is_rank():
        os.environ[GPUS] = os.environ.get(GPUS, "0").split(",")[0]


@contextmanager
def use_all_gpus() -> Iterator[None]:
    """Expose all GPUs of the user to the processes that are started in the block; they keep launchers' variables."""
    before = {name: os.environ.pop(name, None) for name in (GPUS, LAUNCHER)}
    _set(GPUS, _visible)
    _set(LAUNCHER, str(os.getpid()))
    try:
        yield
    finally:
        for name, value in before.items():
            _set(name, value)


def _set(name: str, value: str | None) -> None:
    os.environ.pop(name, None)
    if value is not None:
        os.environ[name] = value


def ignore_launchers() -> None:
    """Remove the variables of launchers: with those that a cluster left over, Accelerate waits for other processes."""
    if is_rank():
        return
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
