"""Linear layers in int8: exact integer sums, so a row's result never depends on what shares its batch."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)

_LIMIT = 127.0
_MIN_FEATURES = 256


class Int8Linear(nn.Module):
    """A frozen linear layer: weights with one scale per output, inputs with one per row (symmetric).

    Products are summed as integers, which is exact in any order: batch, threads and blocking change nothing.
    A CPU without instructions for int8 takes minutes for what takes it seconds in float32, so there the same whole
    numbers are multiplied as floats: as exact up to sums of 2^24, which needs over 1,040 inputs to be passed.
    """

    weight: Tensor
    scale: Tensor
    bias: Tensor | None

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        rows = linear.weight.detach().float()  # (out, in)
        scale = (rows.abs().amax(1) / _LIMIT).clamp(min=1e-12)
        kind = torch.int8 if is_fast() else torch.float32
        self.register_buffer("weight", torch.round(rows / scale[:, None]).to(kind).t().contiguous())
        self.register_buffer("scale", scale)
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach().float())

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])  # (N, in)
        scale = rows.abs().amax(1, keepdim=True).clamp_(min=1e-12).mul_(1 / _LIMIT)
        steps = (rows / scale).round_()
        if self.weight.dtype == torch.int8:
            sums = torch._int_mm(steps.to(torch.int8), self.weight).float()  # (N, out)
        else:
            sums = steps @ self.weight
        out = sums.mul_(scale).mul_(self.scale)
        if self.bias is not None:
            out.add_(self.bias)
        return out.view(*x.shape[:-1], -1)


def is_fast() -> bool:
    """Whether this CPU multiplies int8 in hardware (VNNI); elsewhere float32 is quicker."""
    return torch.cpu._is_vnni_supported()


def to_int8(module: M) -> M:
    """The module itself, with its large linear layers replaced; class and score heads stay exact. Inference only."""
    for name, child in module.named_children():
        if isinstance(child, nn.Linear) and min(child.in_features, child.out_features) >= _MIN_FEATURES:
            setattr(module, name, Int8Linear(child))
        else:
            to_int8(child)
    return module
