"""Decodes a picture file as a worker prepares it for the classifier; resizes for a network, and keeps nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from model.records import IMAGE_EDGE_PX, Pixels

# Pillow's ways to refuse a file
IMAGE_ERRORS = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)


def read_image(path: Path, max_edge_px: int = IMAGE_EDGE_PX) -> Pixels:
    """RGB pixels, down-scaled to at most `max_edge_px` on the long edge, and turned, as a worker prepares them."""
    with Image.open(path) as image:
        rgb = _to_rgb(_upright(image))
        rgb.thumbnail((max_edge_px, max_edge_px))
        return np.array(rgb)


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # broken metadata is no reason to lose the picture; broken pixels are told when they are read
        return image


def _to_rgb(image: Image.Image) -> Image.Image:
    """Transparency on white; of 16 bits the upper eight."""
    if image.mode.startswith("I;16"):
        return image.convert("I").point(lambda value: value * (1 / 256)).convert("L").convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    rgba = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")


def square(pixels: Pixels, size_px: int) -> Pixels:
    """Squeezed to a square with a sharp filter."""
    return np.asarray(Image.fromarray(pixels).resize((size_px, size_px), Image.Resampling.BICUBIC))
