"""Scales images of any size to one square where the network computes, many at a time; blanks before it scales."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from model.patches import BLANK, edges
from model.records import Pixels

Filter = Literal["bilinear", "bicubic"]
_STEP_PX = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageStack:
    """Images on the device, padded below and to the right, with what scales each of them.

    Scaling is linear along each side, so a side's filter is a matrix: `across` (B, W, S), `down` (B, S, H).
    """

    pixels: Tensor  # (B, H, W, 3) uint8
    across: Tensor
    down: Tensor
    cell_rows: Tensor  # (B, H) which row of the patch grid a pixel row belongs to
    cell_cols: Tensor  # (B, W)
    grid: tuple[int, int]  # rows, cols

    @classmethod
    def of(
        cls, images: Sequence[Pixels], *, size_px: int, grid: tuple[int, int], kind: Filter, device: str
    ) -> ImageStack:
        """Stacks at least one image (H, W, 3); `kind` is Pillow's filter of that name, widened to scale down."""
        heights, widths = [image.shape[0] for image in images], [image.shape[1] for image in images]
        B, H, W = len(images), _rounded(max(heights)), _rounded(max(widths))
        on_gpu = torch.device(device).type == "cuda"
        pixels = torch.empty(B, H, W, 3, dtype=torch.uint8, pin_memory=on_gpu)
        view = pixels.numpy()
        for index, image in enumerate(images):
            height, width = image.shape[:2]
            view[index, :height, :width] = image
            view[index, height:] = view[index, :height, width:] = 0  # its filter is zero, but zero of nothing known
        return cls(
            pixels=pixels.to(device, non_blocking=True),
            across=torch.stack([_filter(width, W, size_px, kind, device).T for width in widths]),
            down=torch.stack([_filter(height, H, size_px, kind, device) for height in heights]),
            cell_rows=torch.stack([_cells(height, grid[0], H, device) for height in heights]),
            cell_cols=torch.stack([_cells(width, grid[1], W, device) for width in widths]),
            grid=grid,
        )

    def kept(self, patches: Sequence[Sequence[int]]) -> Tensor:
        """A mask (B, P) of each image's patches, for `scaled`; on the CPU."""
        mask = torch.zeros(len(patches), self.grid[0] * self.grid[1], dtype=torch.bool)
        for row, own in zip(mask.numpy(), patches, strict=True):
            row[list(own)] = True
        return mask

    def scaled(self, keep: Tensor | None = None) -> Tensor:
        """(B, 3, S, S), whole grey levels 0..255 in float; patches outside `keep` (B, P) bool are mid grey first.

        Rounds after each side, as Pillow does, and is within one grey level of it.
        """
        pixels = self.pixels.permute(0, 3, 1, 2).to(self.down.dtype)  # (B, 3, H, W)
        if keep is not None:
            cells = keep.view(-1, *self.grid)
            kept_rows = cells.gather(1, self.cell_rows[:, :, None].expand(-1, -1, self.grid[1]))  # (B, H, cols)
            kept = kept_rows.gather(2, self.cell_cols[:, None, :].expand(-1, kept_rows.shape[1], -1))  # (B, H, W)
            pixels = torch.where(kept[:, None], pixels, float(BLANK))
        narrow = _levels(pixels @ self.across[:, None])  # (B, 3, H, S)
        return _levels(self.down[:, None] @ narrow)


def _levels(values: Tensor) -> Tensor:
    return values.clamp_(0.0, 255.0).round_()


def _rounded(side: int) -> int:
    """Few different paddings, so that filters are found again."""
    return -(-side // _STEP_PX) * _STEP_PX


@lru_cache(maxsize=1024)
def _filter(side: int, padded: int, size_px: int, kind: Filter, device: str) -> Tensor:
    """What scaling makes of each single pixel of a side, (S, padded), zero on the padding."""
    impulses = torch.eye(side)[None, None]  # (1, 1, side, side)
    weights = F.interpolate(impulses, size=(size_px, side), mode=kind, align_corners=False, antialias=True)[0, 0]
    dtype = torch.half if torch.device(device).type == "cuda" else torch.float32  # 0..255 is exact in both
    return F.pad(weights, (0, padded - side)).to(device, dtype)


@lru_cache(maxsize=1024)
def _cells(side: int, n_cells: int, padded: int, device: str) -> Tensor:
    """The cell of each pixel along a side, (padded,); padding goes to the last."""
    borders = torch.tensor(edges(side, n_cells)[1:])
    return torch.bucketize(torch.arange(padded), borders, right=True).clamp(max=n_cells - 1).to(device)
