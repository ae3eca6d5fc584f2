"""From an image to an encoder's pixels; blanks the original, so that nothing leaks over a patch's border."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from model.joint.config import EncoderConfig
from model.joint.states import Grid
from model.patches import BLANK, edges
from model.records import Pixels


def grid_of(height: int, width: int, config: EncoderConfig) -> Grid:
    """Rows and columns of patches of an image; the long edge is cut short where the aspect is kept."""
    side = config.size_px // config.patch_px
    if config.fit == "square":
        return side, side
    scale = min(config.size_px / min(height, width), config.max_edge_px / max(height, width))
    rows, cols = (max(1, int(edge * scale + 0.5) // config.patch_px) for edge in (height, width))
    return rows, cols


def to_pixel_values(image: Pixels, grid: Grid, config: EncoderConfig) -> Tensor:
    """Resized so that each cell of the grid is one patch, and normalised: (3, rows * patch_px, cols * patch_px)."""
    rows, cols = grid
    size = (cols * config.patch_px, rows * config.patch_px)
    resized = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC), dtype=np.float32)
    mean, std = (np.array(triple, dtype=np.float32) for triple in (config.mean, config.std))
    values = (resized / 255.0 - mean) / std
    return torch.from_numpy(np.ascontiguousarray(values.transpose(2, 0, 1)))


def fade_others(image: Pixels, grid: Grid, weights: Sequence[float]) -> Pixels:
    """A copy in which each patch keeps its weight of itself, the rest being mid grey; 0 is all grey, 1 untouched."""
    rows, cols = grid
    ys, xs = np.diff(edges(image.shape[0], rows)), np.diff(edges(image.shape[1], cols))
    share = np.asarray(weights, dtype=np.float32).reshape(rows, cols)
    share = np.repeat(np.repeat(share, ys, axis=0), xs, axis=1)[:, :, None]
    faded: Pixels = np.rint(BLANK + share * (image.astype(np.float32) - BLANK)).astype(np.uint8)
    return faded
