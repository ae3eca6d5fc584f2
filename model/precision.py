"""Half precision where it pays: bf16 is many times slower than float32 where a device only emulates it."""

from __future__ import annotations

import torch


def is_bf16_fast(device: str = "cpu") -> bool:
    """Whether the device multiplies bf16 in hardware, as far as torch can say; elsewhere float32 is quicker."""
    if torch.device(device).type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", None)  # not in every torch that may be installed
    return supported is not None and bool(supported())


def mixed_precision(device: str = "cpu", *, wanted: bool = True) -> torch.autocast:
    """Matrix products in bf16 where that is wanted and fast, else in float32; for training, so not exact."""
    return torch.autocast(torch.device(device).type, torch.bfloat16, enabled=wanted and is_bf16_fast(device))
