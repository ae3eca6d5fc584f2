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
    """

    weight: Tensor
    scale: Tensor
    bias: Tensor | None

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        rows = linear.weight.detach().float()  # (out, in)
        scale = (rows.abs().amax(1) / _LIMIT).clamp(min=1e-12)
        self.register_buffer("weight", torch.round(rows / scale[:, None]).to(torch.int8).t().contiguous())
        self.register_buffer("scale", scale)
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach().float())

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])  # (N, in)
        scale = rows.abs().amax(1, keepdim=True).clamp_(min=1e-12).mul_(1 / _LIMIT)
        sums = torch._int_mm((rows / scale).round_().to(torch.int8), self.weight)  # (N, out) int32
        out = sums.float().mul_(scale).mul_(self.scale)
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
