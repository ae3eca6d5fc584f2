"""Draws people after a disaster; nobody in the pictures exists."""

from __future__ import annotations

import numpy as np
from PIL import Image

from deploy.samples.damage import CONCRETE, sky
from deploy.samples.figures import person, rubble
from deploy.samples.paint import HEIGHT, WIDTH, Canvas, Colour, grid, noise, smooth

CLOTHES = (
    (0.55, 0.16, 0.15),
    (0.20, 0.30, 0.48),
    (0.62, 0.60, 0.55),
    (0.30, 0.38, 0.25),
    (0.70, 0.52, 0.22),
    (0.35, 0.22, 0.36),
    (0.22, 0.22, 0.24),
)
VEST = (0.95, 0.50, 0.10)
GREEN_VEST = (0.80, 0.92, 0.18)


def ground(canvas: Canvas, top: float, colour: Colour, rough: float = 0.5) -> None:
    """Paint the ground from row `top` down."""
    canvas.polygon([(0, top), (WIDTH, top), (WIDTH, HEIGHT), (0, HEIGHT)], colour, rough=rough, cells=60)


def clothes(canvas: Canvas) -> Colour:
    """Return the colour of somebody's clothes."""
    return np.asarray(CLOTHES[canvas.rng.integers(len(CLOTHES))]) * canvas.rng.uniform(0.8, 1.25)


def hills(canvas: Canvas, base: float, tone: Colour) -> None:
    """Paint a ridge of hills around row `base`."""
    _, y = grid()
    ridge = base - 70 * (noise(canvas.rng, 3)[0] - 0.3)
    canvas.fill(
        np.asarray(tone) * (0.7 + 0.6 * noise(canvas.rng, 40)[..., None]),
        smooth(0, 2, y * HEIGHT - ridge[None, :]),
    )


def evacuees(seed: int) -> Image.Image:
    """Families with bundles walk along a dusty road."""
    canvas = Canvas(seed)
    rng = canvas.rng
    sky(canvas, (0.62, 0.66, 0.70), (0.86, 0.84, 0.78), 260, clouds=0.6)
    hills(canvas, 225, (0.45, 0.44, 0.40))
    ground(canvas, 245, (0.55, 0.47, 0.35))
    canvas.polygon([(330, 245), (440, 245), (760, HEIGHT), (60, HEIGHT)], (0.62, 0.56, 0.46), rough=0.4, cells=50)
    rubble(canvas, -60, 210, 330, 60, 90, CONCRETE)
    rubble(canvas, 590, 820, 320, 50, 80, CONCRETE)
    for depth in np.sort(rng.random(30) ** 1.1):
        feet = 262 + depth * 225
        height = 34 + depth * 160
        x = 385 + rng.normal(0, 0.42) * (70 + depth * 330)
        child = rng.random() < 0.25
        person(canvas, x, feet, height * (0.62 if child else 1), clothes(canvas), lean=rng.uniform(-0.03, 0.03))
        if not child and rng.random() < 0.55:
            bundle = (0.16 * height, 0.13 * height)
            canvas.ellipse(x + 0.12 * height, feet - 0.72 * height, *bundle, clothes(canvas), blur=1.2)
    canvas.fill((0.80, 0.72, 0.58), smooth(0.45, 0.95, noise(rng, 3)) * 0.35)
    return canvas.photograph(warmth=0.04)


def shelter(seed: int) -> Image.Image:
    """People sit and lie on mats in a sports hall."""
    canvas = Canvas(seed)
    rng = canvas.rng
    canvas.gradient((0.42, 0.40, 0.37), (0.66, 0.63, 0.56), 0, 230)
    for beam in range(7):
        canvas.polygon(
            [
                (beam * 128 - 20, 0),
                (beam * 128, 0),
                (384 + (beam - 3) * 62, 120),
                (376 + (beam - 3) * 62, 120),
            ],
            (0.28, 0.27, 0.26),
        )
        canvas.polygon(
            [(beam * 116 + 6, 128), (beam * 116 + 82, 128), (beam * 116 + 82, 172), (beam * 116 + 6, 172)],
            (0.86, 0.90, 0.93),
            blur=2,
        )
    for lamp in range(4):
        canvas.ellipse(130 + lamp * 170, 56, 22, 7, (1.0, 0.98, 0.9), blur=4)
    canvas.polygon([(0, 228), (WIDTH, 228), (WIDTH, HEIGHT), (0, HEIGHT)], (0.62, 0.47, 0.30), rough=0.15, cells=30)
    for row in range(28):
        canvas.line([(384 + (row - 14) * 22, 228), (384 + (row - 14) * 92, HEIGHT)], (0.50, 0.37, 0.23), 2, alpha=0.5)
    for row in range(6):
        depth = row / 5
        y, size = 252 + depth * 215, 34 + depth * 78
        for column in range(9 - row):
            x = (column + 0.3 + 0.4 * rng.random()) * WIDTH / (9 - row)
            mat = np.asarray(
                ((0.25, 0.35, 0.55), (0.60, 0.58, 0.55), (0.50, 0.25, 0.22))[rng.integers(3)]
            ) * rng.uniform(0.8, 1.2)
            canvas.polygon(
                [
                    (x - size * 0.8, y - size * 0.16),
                    (x + size * 0.7, y - size * 0.18),
                    (x + size * 0.9, y + size * 0.16),
                    (x - size * 0.9, y + size * 0.18),
                ],
                mat,
                rough=0.4,
            )
            if rng.random() < 0.45:
                canvas.ellipse(x, y - size * 0.1, size * 0.62, size * 0.17, clothes(canvas), blur=1.5)
                canvas.ellipse(x - size * 0.62, y - size * 0.13, size * 0.12, size * 0.11, (0.60, 0.45, 0.35))
            else:
                cloth = np.asarray(clothes(canvas))
                canvas.polygon(
                    [
                        (x - size * 0.28, y),
                        (x + size * 0.32, y),
                        (x + size * 0.16, y - size * 0.55),
                        (x - size * 0.16, y - size * 0.55),
                    ],
                    cloth,
                    rough=0.4,
                    blur=1.5,
                )
                canvas.ellipse(x + size * 0.1, y - size * 0.05, size * 0.4, size * 0.12, cloth * 0.6, blur=1.5)
                canvas.ellipse(x, y - size * 0.68, size * 0.12, size * 0.15, (0.62, 0.46, 0.36))
                canvas.ellipse(x, y - size * 0.75, size * 0.13, size * 0.1, (0.10, 0.08, 0.07))
    for x, height in ((90, 150), (690, 165)):
        person(canvas, x, 300, height, clothes(canvas))
    return canvas.photograph(warmth=0.06)
