"""Decodes a picture file as a worker prepares it for the classifier; resizes for a network, and keeps nothing."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
from PIL import ExifTags, Image, ImageOps

from model.records import IMAGE_EDGE_PX, Pixels

# Pillow's ways to refuse a file
IMAGE_ERRORS = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)


def read_image(path: Path, max_edge_px: int = IMAGE_EDGE_PX) -> Pixels:
    """RGB pixels, at most `max_edge_px` on the long edge, and turned: a worker's own, byte for byte.

    The rule is that of `stream.pixels.prepare_image`, which no model may import.
    """
    with Image.open(path) as image:
        scale = min(1.0, max_edge_px / max(image.size))
        width, height = (max(1, round(edge * scale)) for edge in image.size)
        image.draft(None, (width * 2, height * 2))  # JPEG only: skip detail while decoding
        image.load()
        orientation = _orientation(image)
        rgb = _to_rgb(image)
    if rgb.size != (width, height):
        rgb = rgb.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=3.0)
    if orientation != 1:
        rgb.getexif()[ExifTags.Base.Orientation] = orientation
        rgb = ImageOps.exif_transpose(rgb)
    return np.array(rgb)


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # broken metadata is no reason to lose the picture
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _to_rgb(image: Image.Image) -> Image.Image:
    """Transparency on white; of 16 bits the upper eight; of wider numbers, which have no known range, all there is."""
    if image.mode.startswith("I;16"):
        return image.convert("I").point(lambda value: value * (1 / 256)).convert("L").convert("RGB")
    if image.mode in ("I", "F"):
        low, high = cast("tuple[float, float]", image.getextrema())
        factor = 255 / ((high - low) or 1)
        return image.point(lambda value: value * factor - low * factor).convert("L").convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    rgba = image.convert("RGBA")
    flat = Image.new("RGB", rgba.size, "white")
    flat.paste(rgba, mask=rgba.getchannel("A"))
    return flat


def square(pixels: Pixels, size_px: int) -> Pixels:
    """Squeezed to a square with a sharp filter."""
    return np.asarray(Image.fromarray(pixels).resize((size_px, size_px), Image.Resampling.BICUBIC))
