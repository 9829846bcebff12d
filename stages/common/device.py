"""What the processor at hand can do."""

import torch


def device() -> str:
    """Where a model runs: a GPU if there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def has_bf16() -> bool:
    """Whether it multiplies in bf16; without such instructions, as on a T4, bf16 is emulated and slower than fp32."""
    if device() == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_avx512_bf16_supported()
