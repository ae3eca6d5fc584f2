"""Linear layers in int8: exact integer sums, so a row's result never depends on what shares its batch."""

from __future__ import annotations

from functools import cache
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)

_LIMIT = 127.0  # steps of an input to either side
_MIDDLE = 128  # of a byte
_MIN_FEATURES = 256


class Int8Linear(nn.Module):
    """A frozen linear layer: weights with one scale per output, inputs with one per row (symmetric).

    Products are summed as integers, which is exact in any order: batch, threads and blocking change nothing.
    A CPU without instructions for int8 takes minutes for what takes it seconds in float32, so there the same whole
    numbers are multiplied as floats: as exact up to sums of 2^24, which needs over 1,040 inputs to be passed.
    """

    limit: ClassVar[float] = _LIMIT  # steps of a weight to either side
    weight: Tensor
    scale: Tensor
    bias: Tensor | None

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        rows = linear.weight.detach().float()  # (out, in)
        scale = (rows.abs().amax(1) / self.limit).clamp(min=1e-12)
        self.register_buffer("weight", torch.round(rows / scale[:, None]).to(self._kind()).t().contiguous())
        self.register_buffer("scale", scale)
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach().float())

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])  # (N, in)
        scale = rows.abs().amax(1, keepdim=True).clamp_(min=1e-12).mul_(1 / _LIMIT)
        sums = self._multiply((rows / scale).round_())  # (N, out)
        out = sums.mul_(scale).mul_(self.scale)
        if self.bias is not None:
            out.add_(self.bias)
        return out.view(*x.shape[:-1], -1)

    def _kind(self) -> torch.dtype:
        return torch.int8 if is_fast() else torch.float32

    def _multiply(self, steps: Tensor) -> Tensor:
        if self.weight.dtype == torch.int8:
            return torch._int_mm(steps.to(torch.int8), self.weight).float()
        return steps @ self.weight


class PairedInt8Linear(Int8Linear):
    """For x86 CPUs that add products of bytes in pairs, in 16 bits: with weights of 63 steps no pair is cut short.

    255 * 63 * 2 = 32,130, and 16 bits hold 32,767. By oneDNN's product of bytes, which torch's compiler uses.
    """

    limit: ClassVar[float] = 63.0
    _packed: Tensor | None = None

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear)
        n_outputs = linear.out_features
        self.register_buffer("_ones", torch.ones(n_outputs), persistent=False)
        self.register_buffer("_zeros", torch.zeros(n_outputs, dtype=torch.int32), persistent=False)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_packed": None}  # it cannot be copied, and is packed again when it is used

    def _kind(self) -> torch.dtype:
        return torch.int8

    def _multiply(self, steps: Tensor) -> Tensor:
        if self._packed is None:
            self._packed = torch.ops.onednn.qlinear_prepack(self.weight.t().contiguous(), None)
        bytes_ = steps.add_(_MIDDLE).to(torch.uint8)
        sums: Tensor = torch.ops.onednn.qlinear_pointwise(
            bytes_, 1.0, _MIDDLE, self._packed, self._ones, self._zeros, None, 1.0, 0, torch.float32, "none", [], ""
        )
        return sums


def is_fast() -> bool:
    """Whether this CPU multiplies int8 in hardware (VNNI)."""
    return torch.cpu._is_vnni_supported()


@cache
def pairs_are_exact() -> bool:
    """Whether `PairedInt8Linear` works on this CPU and with this torch: its largest sums come out as they should."""
    if not torch.backends.cpu.get_cpu_capability().startswith("AVX"):
        return False
    linear = nn.Linear(_MIN_FEATURES, _MIN_FEATURES, bias=False)
    nn.init.constant_(linear.weight, PairedInt8Linear.limit)
    x = torch.full((3, _MIN_FEATURES), _LIMIT)
    x[1].neg_()
    try:
        made = PairedInt8Linear(linear)(x)
    except (AttributeError, RuntimeError):  # oneDNN is not built in, or has another signature
        return False
    return torch.equal(made, x @ linear.weight.detach().t())


def quickest() -> type[Int8Linear] | None:
    """The layers to serve with on this CPU; None where float32 is quicker."""
    if is_fast():
        return Int8Linear
    return PairedInt8Linear if pairs_are_exact() else None


def to_int8(module: M, kind: type[Int8Linear] = Int8Linear) -> M:
    """The module itself, with its large linear layers replaced; class and score heads stay exact. Inference only."""
    for name, child in module.named_children():
        if isinstance(child, nn.Linear) and min(child.in_features, child.out_features) >= _MIN_FEATURES:
            setattr(module, name, kind(child))
        else:
            to_int8(child, kind)
    return module
