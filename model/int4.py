"""Matrices in four bits at rest: two values a byte, one half-precision scale for each group of inputs."""

from __future__ import annotations

import torch
from torch import Tensor

from model.errors import CheckpointError

GROUP = 64  # neighbouring inputs that share a scale
_LIMIT = 7.0
_SHRINKS = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75)  # clipping the largest value often costs less than it saves


def pack(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """(out, in) as bytes (out, in / 2) and scales (out, in / GROUP), each group's scale of least squared error.

    Further dimensions, all of length 1, are kept on the bytes.
    """
    groups = matrix.float().view(len(matrix), -1, GROUP)  # (out, G, GROUP)
    largest = (groups.abs().amax(2) / _LIMIT).clamp(min=1e-8)  # (out, G)
    best, least = largest, torch.full_like(largest, torch.inf)
    for shrink in _SHRINKS:
        scale = (largest * shrink).half().float().clamp(min=1e-7)
        error = (_round(groups, scale) * scale[:, :, None] - groups).square().sum(2)
        best = torch.where(error < least, scale, best)
        least = torch.minimum(error, least)
    steps = (_round(groups, best) + 8).to(torch.uint8).flatten(1)  # 1 to 15
    paired = steps[:, 0::2] | (steps[:, 1::2] << 4)
    return paired.view(*paired.shape, *matrix.shape[2:]), best.half()


def unpack(packed: Tensor, scale: Tensor) -> Tensor:
    """The float32 matrix that `pack` stored, up to rounding."""
    fits = packed.dtype == torch.uint8 and packed.ndim >= 2 and scale.ndim == 2 and packed[0].numel() == packed.shape[1]
    if not fits or scale.shape[1] * GROUP != packed.shape[1] * 2:
        raise CheckpointError(f"four-bit bytes {tuple(packed.shape)} and scales {tuple(scale.shape)} do not fit")
    flat = packed.flatten(1)
    steps = torch.stack([flat & 15, flat >> 4], dim=2).flatten(1).float() - 8
    grouped = steps.view(len(packed), -1, GROUP) * scale.float()[:, :, None]
    return grouped.view(len(packed), -1, *packed.shape[2:])


def _round(groups: Tensor, scale: Tensor) -> Tensor:
    return torch.round(groups / scale[:, :, None]).clamp(-_LIMIT, _LIMIT)
