"""A function that fails in one of several processes. Each imports this module, so it imports little."""

import os
import signal

import torch

from stages.common.errors import UserError


def fail(how: str) -> int:
    """Fail in the second process; return 1 in the others."""
    if os.environ["RANK"] == "1":
        if how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if how == "memory":
            raise torch.OutOfMemoryError("CUDA out of memory")
        raise UserError("too large", key="train.spec_augment")
    return 1
