"""Draws a picture's rationale over it: heat from the patch scores, outlines around the selected patches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from PIL import Image, ImageDraw

from stream.records import ImageRationale, PreparedImage

MAX_EDGE: Final = 1_280

_HEAT: Final = (255, 59, 20)
_MAX_ALPHA: Final = 150
_OUTLINE: Final = (255, 221, 51)
_HALO: Final = (20, 20, 20)


def picture_of(prepared: PreparedImage) -> Image.Image:
    """Return a prepared image as a picture."""
    return Image.frombytes("RGB", (prepared.width, prepared.height), prepared.pixels)


def draw_overlay(picture: Image.Image, rationale: ImageRationale) -> Image.Image:
    """Return a copy of the picture, at most `MAX_EDGE` long, with the rationale over it.

    The picture may be any down-scaling of the original that the rationale's boxes refer to.
    """
    shown = picture.convert("RGB")
    shown.thumbnail((MAX_EDGE, MAX_EDGE))
    shown.paste(Image.new("RGB", shown.size, _HEAT), mask=_heat_mask(rationale, shown.size))
    draw = ImageDraw.Draw(shown)
    x_scale, y_scale = shown.width / rationale.width, shown.height / rationale.height
    line = max(2, max(shown.size) // 220)
    boxes = [
        (
            round(box.x0 * x_scale),
            round(box.y0 * y_scale),
            max(round(box.x0 * x_scale), round(box.x1 * x_scale) - 1),
            max(round(box.y0 * y_scale), round(box.y1 * y_scale) - 1),
        )
        for box in rationale.boxes
    ]
    for colour, width in ((_HALO, line + 2), (_OUTLINE, line)):
        for corners in boxes:
            draw.rectangle(corners, outline=colour, width=width)
    return shown


def relative(scores: Sequence[float]) -> list[float]:
    """Return the scores stretched to 0..1, so that faint differences show; all equal means none stands out."""
    if not scores:
        return []
    low, high = min(scores), max(scores)
    if high - low < 1e-9:
        return [0.0] * len(scores)
    return [(score - low) / (high - low) for score in scores]


def _heat_mask(rationale: ImageRationale, size: tuple[int, int]) -> Image.Image:
    cells = Image.new("L", (rationale.cols, rationale.rows))
    alphas = [round(_MAX_ALPHA * score**1.5) for score in relative(rationale.scores)]
    n_cells = rationale.rows * rationale.cols
    cells.putdata((alphas + [0] * n_cells)[:n_cells])
    return cells.resize(size, Image.Resampling.BILINEAR)
