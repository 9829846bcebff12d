import importlib
import os
import platform
import subprocess
import sys

import pytest
import torch
from helpers import ROOT, simulate_t4, user_error

from stages.common import device


def test_first_of_several_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """With more than one, the Trainer would multiply the batch size."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    importlib.reload(device)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "2"


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_freed_memory_is_used_again() -> None:
    """Without the setting, Linux has to clear the pages of each array again."""
    code = (
        "import resource, sys, numpy as np\n"
        "from stages.common.environment import keep_freed_memory\n"
        "if sys.argv[1] == 'keep': keep_freed_memory()\n"
        "for _ in range(100): np.ones(50_000_000, np.int8)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)"
    )
    keep, default = (
        int(subprocess.run([sys.executable, "-c", code, how], cwd=ROOT, capture_output=True, check=True).stdout)
        for how in ("keep", "default")
    )
    assert keep < default / 2


def test_t4_has_no_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    simulate_t4(monkeypatch)
    assert device.find_device() == "cuda"
    assert not device.has_bf16()
    assert not device.is_bf16_chosen("auto")
    assert device.is_bf16_chosen("bf16")


@pytest.mark.parametrize(
    ("batch_size", "fitting", "tried"),
    [(8, 8, [8]), (8, 3, [8, 4, 2]), (6, 3, [6, 3]), (9, 4, [9, 3]), (7, 6, [7, 1])],
)
def test_smaller_batches_divide_the_batch(batch_size: int, fitting: int, tried: list[int]) -> None:
    sizes = []

    def run(size: int) -> int:
        sizes.append(size)
        if size > fitting:
            raise torch.OutOfMemoryError("out of memory")
        return size

    assert device.with_smaller_batches(run, batch_size, "train.batch_size", "fix", divide=True) == tried[-1]
    assert sizes == tried


def test_smaller_batches_halve_the_batch() -> None:
    sizes = []

    def run(size: int) -> None:
        sizes.append(size)
        if size > 2:
            raise torch.OutOfMemoryError("out of memory")

    device.with_smaller_batches(run, 17, "evaluate.window_seconds", "fix")
    assert sizes == [17, 8, 4, 2]


def test_single_clip_too_large() -> None:
    def run(size: int) -> None:
        raise torch.OutOfMemoryError("out of memory")

    error = user_error(lambda: device.with_smaller_batches(run, 4, "train.batch_size", "use shorter clips"))
    assert error.key == "train.batch_size"
    assert "use shorter clips" in str(error)


def test_memory_of_the_cpu_counts_too() -> None:
    """Here torch raises a RuntimeError."""
    sizes = []

    def run(size: int) -> int:
        sizes.append(size)
        return torch.empty(1 << 60 if size > 2 else 1, dtype=torch.int8).numel()

    assert device.with_smaller_batches(run, 8, "train.batch_size", "fix") == 1
    assert sizes == [8, 4, 2]


def test_other_errors_are_raised() -> None:
    def run(size: int) -> None:
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        device.with_smaller_batches(run, 8, "train.batch_size", "fix")
