"""Paints procedural textures, shapes and figures on a canvas; knows nothing of what a picture shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

WIDTH: Final = 768
HEIGHT: Final = 512
SKIN: Final = ((0.80, 0.62, 0.50), (0.55, 0.38, 0.28), (0.36, 0.25, 0.20), (0.70, 0.52, 0.40))

Array: TypeAlias = NDArray[np.float64]
Point: TypeAlias = tuple[float, float]
Colour: TypeAlias = Sequence[float] | NDArray[np.float64]


def noise(rng: np.random.Generator, cells: float, *, stretch: float = 1.0, n_octaves: int = 5) -> Array:
    """Return fractal noise in [0, 1], `cells` bumps over the canvas' width; `stretch` > 1 flattens them."""
    total = np.zeros((HEIGHT, WIDTH))
    weight, weights = 1.0, 0.0
    for octave in range(n_octaves):
        columns = min(WIDTH, max(2, int(cells * 2**octave)))
        rows = min(HEIGHT, max(2, int(cells * stretch * 2**octave * HEIGHT / WIDTH)))
        cell = Image.fromarray(rng.random((rows, columns)).astype(np.float32))
        total += weight * np.asarray(cell.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC), dtype=np.float64)
        weights += weight
        weight *= 0.5
    return np.clip((total / weights - 0.5) * 1.9 + 0.5, 0, 1)


def grid() -> tuple[Array, Array]:
    """Return x and y of every pixel, in [0, 1]."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    return x / (WIDTH - 1), y / (HEIGHT - 1)


def smooth(edge0: float, edge1: float, value: Array) -> Array:
    """Return 0 below `edge0`, 1 above `edge1`, and a smooth step between."""
    t = np.clip((value - edge0) / (edge1 - edge0), 0, 1)
    return np.asarray(t * t * (3 - 2 * t))


class Canvas:
    """A picture in the making, 768 x 512, colours in [0, 1]; coordinates are in pixels."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.pixels: Array = np.zeros((HEIGHT, WIDTH, 3))
        self._textures: dict[float, Array] = {}

    def fill(self, colour: Any, mask: Array | float = 1.0) -> None:
        """Blend a colour, or a picture of colours, where the mask is."""
        alpha = np.asarray(mask, dtype=np.float64)
        alpha = alpha[..., None] if alpha.ndim else alpha
        self.pixels = self.pixels * (1 - alpha) + np.asarray(colour, dtype=np.float64) * alpha

    def gradient(self, top: Colour, bottom: Colour, y0: float = 0, y1: float = HEIGHT) -> None:
        """Fill rows y0 to y1 with a vertical gradient."""
        rows = np.arange(HEIGHT)
        t = np.clip((rows - y0) / max(1.0, y1 - y0), 0, 1)[:, None, None]
        colours = np.asarray(top) * (1 - t) + np.asarray(bottom) * t
        inside = ((rows >= y0) & (rows <= y1)).astype(np.float64)
        self.fill(np.broadcast_to(colours, self.pixels.shape), np.broadcast_to(inside[:, None], (HEIGHT, WIDTH)))

    def mask(self, points: Sequence[Point], blur: float = 0.7) -> Array:
        """Return the mask of a polygon over the whole canvas."""
        image = Image.new("L", (WIDTH, HEIGHT))
        ImageDraw.Draw(image).polygon([(float(x), float(y)) for x, y in points], fill=255)
        return np.asarray(image.filter(ImageFilter.GaussianBlur(blur)), dtype=np.float64) / 255

    def polygon(
        self,
        points: Sequence[Point],
        colour: Colour,
        *,
        rough: float = 0.0,
        cells: float = 40,
        blur: float = 0.7,
        alpha: float = 1.0,
    ) -> None:
        """Paint a polygon; `rough` is the strength of its texture."""
        box, draw, image = self._local(points, 3 * blur + 2)
        if image.width and image.height:
            draw.polygon([(float(x) - box[0], float(y) - box[1]) for x, y in points], fill=255)
            self._stamp(box, image, colour, blur=blur, alpha=alpha, rough=rough, cells=cells)

    def ellipse(
        self,
        x: float,
        y: float,
        rx: float,
        ry: float,
        colour: Colour,
        *,
        blur: float = 0.7,
        alpha: float = 1.0,
    ) -> None:
        """Paint an ellipse around (x, y)."""
        turns = np.linspace(0, 2 * np.pi, 60 if max(rx, ry) > 50 else 24, endpoint=False)
        outline = [(x + rx * float(np.cos(t)), y + ry * float(np.sin(t))) for t in turns]
        self.polygon(outline, colour, blur=blur, alpha=alpha)

    def line(
        self,
        points: Sequence[Point],
        colour: Colour,
        width: float = 2,
        *,
        blur: float = 0.6,
        alpha: float = 1.0,
    ) -> None:
        """Paint a polyline."""
        box, draw, image = self._local(points, width + 3 * blur + 2)
        if image.width and image.height:
            local = [(float(x) - box[0], float(y) - box[1]) for x, y in points]
            draw.line(local, fill=255, width=max(1, round(width)), joint="curve")
            self._stamp(box, image, colour, blur=blur, alpha=alpha)

    def _local(
        self, points: Sequence[Point], margin: float
    ) -> tuple[tuple[int, int], ImageDraw.ImageDraw, Image.Image]:
        """Return the corner of the part of the canvas around the points, and a mask to draw it on."""
        xs, ys = [p[0] for p in points], [p[1] for p in points]
        x0, x1 = (int(np.clip(v, 0, WIDTH)) for v in (min(xs) - margin, max(xs) + margin + 1))
        y0, y1 = (int(np.clip(v, 0, HEIGHT)) for v in (min(ys) - margin, max(ys) + margin + 1))
        image = Image.new("L", (x1 - x0, y1 - y0))
        return (x0, y0), ImageDraw.Draw(image), image

    def _stamp(
        self,
        corner: tuple[int, int],
        image: Image.Image,
        colour: Colour,
        *,
        blur: float,
        alpha: float,
        rough: float = 0.0,
        cells: float = 40,
    ) -> None:
        x, y = corner
        part = np.s_[y : y + image.height, x : x + image.width]
        mask = np.asarray(image.filter(ImageFilter.GaussianBlur(blur)), dtype=np.float64)[..., None] / 255 * alpha
        paint = np.asarray(colour, dtype=np.float64)
        if rough:
            paint = np.clip(paint * (1 + rough * (self._texture(cells)[part][..., None] - 0.5)), 0, 1)
        self.pixels[part] = self.pixels[part] * (1 - mask) + paint * mask

    def _texture(self, cells: float) -> Array:
        if cells not in self._textures:
            self._textures[cells] = noise(self.rng, cells, n_octaves=4)
        return np.roll(self._textures[cells], tuple(self.rng.integers(0, HEIGHT, 2)), (0, 1))

    def photograph(
        self, *, warmth: float = 0.0, contrast: float = 1.1, vignette: float = 0.35, blur: float = 0.9
    ) -> Image.Image:
        """Return the picture as a camera would give it: vignette, cast, grain, 384 pixels wide."""
        x, y = grid()
        edge = 1 - vignette * ((x - 0.5) ** 2 + (y - 0.5) ** 2)[..., None] * 1.7
        light = 1 + 0.10 * (noise(self.rng, 2.5, n_octaves=2) - 0.5)[..., None]
        pixels = np.clip((self.pixels * edge * light - 0.5) * contrast + 0.5, 0, 1)
        pixels = pixels * np.asarray([1 + warmth, 1, 1 - warmth])
        image = Image.fromarray((np.clip(pixels, 0, 1) * 255).astype(np.uint8))
        small = image.filter(ImageFilter.GaussianBlur(blur)).resize((WIDTH // 2, HEIGHT // 2), Image.Resampling.LANCZOS)
        grain = self.rng.normal(0, 4.0, (HEIGHT // 2, WIDTH // 2, 1)) + self.rng.normal(
            0, 1.5, (HEIGHT // 2, WIDTH // 2, 3)
        )
        return Image.fromarray(np.clip(np.asarray(small, dtype=np.float64) + grain, 0, 255).astype(np.uint8))
