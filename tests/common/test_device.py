import gc
import os
import platform
import subprocess
import sys
import weakref
from pathlib import Path

import pytest
import torch
from helpers import ROOT, simulate_t4, user_error

from stages.common import device


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "visible"), [("train", "2"), ("evaluate", "2,3")])
def test_first_of_several_gpus(tmp_path: Path, stage: str, visible: str) -> None:
    """With more than one, the Trainer would multiply the batch size. Evaluation uses all."""
    tmp_path.joinpath("sitecustomize.py").write_text(
        "import atexit, os, sys\natexit.register(lambda: print(os.environ['CUDA_VISIBLE_DEVICES'], file=sys.stderr))\n"
    )
    env = os.environ | {"CUDA_VISIBLE_DEVICES": "2,3", "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-m", f"stages.{stage}", "--help"]
    found = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=True)
    assert found.stderr.strip() == visible


@pytest.mark.slow
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


def test_memory_of_a_failed_attempt_is_free_in_the_next() -> None:
    """Also that in cycles, such as those of a model and its Trainer."""
    failed: list[weakref.ref[torch.nn.Module]] = []

    def run(size: int) -> None:
        assert all(model() is None for model in failed)
        if size > 2:
            model = torch.nn.Linear(1, 1)
            model.forward = model.__call__
            failed.append(weakref.ref(model))
            raise torch.OutOfMemoryError("out of memory")

    gc.disable()
    try:
        device.with_smaller_batches(run, 8, "train.batch_size", "fix")
    finally:
        gc.enable()
    assert len(failed) == 2


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
