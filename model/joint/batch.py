"""Pads encoded posts into one batch; whatever is padding is masked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from model.batches import padded
from model.joint.states import Grid, Inputs


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One encoded post; pixels, or what the encoder's `see` made of them, or no image."""

    input_ids: list[int]
    grid: Grid = (0, 0)
    pixel_values: Tensor | None = None  # (3, H, W)
    seen: Tensor | None = None  # (P, C)


def collate(items: Sequence[Item], *, pad_id: int, patch_px: int) -> Inputs:
    """All items must bring the same kind of image, pixels or seen patches, where they bring one."""
    B = len(items)
    text = padded([item.input_ids for item in items], pad_id)
    input_ids, attention_mask, lengths = text.input_ids, text.mask, text.lengths
    rows, cols = max(item.grid[0] for item in items), max(item.grid[1] for item in items)
    if rows * cols == 0:
        return Inputs(input_ids=input_ids, attention_mask=attention_mask, lengths=lengths)
    H, W = rows * patch_px, cols * patch_px
    pixel_mask = torch.zeros(B, H, W, dtype=torch.bool)
    pixel_values = seen = None
    if any(item.seen is not None for item in items):
        width = next(item.seen.shape[1] for item in items if item.seen is not None)
        seen = torch.zeros(B, rows * cols, width)
    else:
        pixel_values = torch.zeros(B, 3, H, W)
    for row, item in enumerate(items):
        pixel_mask[row, : item.grid[0] * patch_px, : item.grid[1] * patch_px] = True
        if item.seen is not None:
            assert seen is not None and len(item.seen) == rows * cols, "seen patches are of square images, all alike"
            seen[row] = item.seen.float()
        elif item.pixel_values is not None:
            assert pixel_values is not None
            pixel_values[row, :, : item.pixel_values.shape[1], : item.pixel_values.shape[2]] = item.pixel_values
    return Inputs(
        input_ids=input_ids,
        attention_mask=attention_mask,
        lengths=lengths,
        pixel_values=pixel_values,
        pixel_mask=pixel_mask,
        seen=seen,
    )
