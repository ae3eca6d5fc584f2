"""Image geometry: grids, boxes, blanking and scaling; it never looks at what a patch shows."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from model.errors import InvalidExample
from model.records import Pixels

BLANK = 127  # mid grey: zero after normalisation


def check_image(image: Pixels) -> Pixels:
    """The image itself, if it is a non-empty (H, W, 3) uint8 array."""
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
        raise InvalidExample(f"image is {image.dtype} {image.shape}; give RGB pixels (H, W, 3) in uint8")
    return image


def edges(size_px: int, n_cells: int) -> list[int]:
    """The n_cells + 1 pixel borders of a grid along one side; cells of a tiny image may be empty."""
    return [index * size_px // n_cells for index in range(n_cells + 1)]


@lru_cache(maxsize=1024)
def non_empty(height: int, width: int, rows: int, cols: int) -> Tensor:
    """Which cells hold at least one pixel, (rows * cols,) bool; only images smaller than the grid lack some."""
    filled_rows = torch.tensor(edges(height, rows)).diff() > 0
    filled_cols = torch.tensor(edges(width, cols)).diff() > 0
    return (filled_rows[:, None] & filled_cols[None, :]).flatten()


def boxes(
    height: int, width: int, rows: int, cols: int, selected: Sequence[int]
) -> tuple[tuple[float, float, float, float], ...]:
    """The selected patches as x0, y0, x1, y1 in fractions of the image, on exact pixel borders."""
    every = _all_boxes(height, width, rows, cols)
    return tuple(every[k] for k in selected)


@lru_cache(maxsize=1024)
def _all_boxes(height: int, width: int, rows: int, cols: int) -> tuple[tuple[float, float, float, float], ...]:
    ys, xs = edges(height, rows), edges(width, cols)
    return tuple(
        (xs[col] / width, ys[row] / height, xs[col + 1] / width, ys[row + 1] / height)
        for row in range(rows)
        for col in range(cols)
    )


def blank_others(image: Pixels, rows: int, cols: int, selected: Sequence[int]) -> Pixels:
    """A copy in which every pixel outside the selected patches is mid grey."""
    ys, xs = edges(image.shape[0], rows), edges(image.shape[1], cols)
    kept = np.full_like(image, BLANK)
    for k in selected:
        row, col = divmod(k, cols)
        window = np.s_[ys[row] : ys[row + 1], xs[col] : xs[col + 1]]
        kept[window] = image[window]
    return kept


def to_pixel_values(image: Pixels, size_px: int) -> Tensor:
    """Squeezed to a square and normalised, (3, size_px, size_px); aspect is given up so that boxes stay exact."""
    if image.shape[:2] != (size_px, size_px):
        resized = Image.fromarray(image).resize((size_px, size_px), Image.Resampling.BILINEAR)
        image = np.asarray(resized)
    values = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))).float()
    return (values - BLANK) / 128.0
