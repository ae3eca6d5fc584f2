"""Draws ruins: collapsed and cracked houses that never stood."""

from __future__ import annotations

import numpy as np
from PIL import Image

from deploy.samples.damage import CONCRETE, sky
from deploy.samples.figures import crack, quad, rubble, windows
from deploy.samples.paint import HEIGHT, WIDTH, Canvas, noise, smooth


def collapsed_house(seed: int) -> Image.Image:
    """A heap of concrete where a house stood, a torn house behind it."""
    canvas = Canvas(seed)
    rng = canvas.rng
    sky(canvas, (0.55, 0.66, 0.80), (0.82, 0.85, 0.86), 330, clouds=0.35)
    canvas.polygon([(0, 330), (WIDTH, 330), (WIDTH, HEIGHT), (0, HEIGHT)], (0.55, 0.50, 0.43), rough=0.5, cells=60)
    mirror = seed % 2 == 0

    def at(px: float) -> float:
        return WIDTH - px if mirror else px

    for x0, x1, top, tone in ((-10, 190, 70, (0.66, 0.56, 0.44)), (600, 790, 110, (0.56, 0.55, 0.54))):
        wall = [(at(x0), top), (at(x1), top + 14), (at(x1), 360), (at(x0), 372)]
        canvas.polygon(wall, tone, rough=0.4)
        windows(canvas, wall, 3, 4)
        crack(canvas, at(x0 + 110), top + 20, 210, 1.4, width=4)
    for floor in range(4):
        y0 = 92 + floor * 62
        reach = 440 - 42 * floor + rng.uniform(-30, 25)
        room = [(at(190), y0), (at(reach), y0 + 6), (at(reach - 12), y0 + 62), (at(190), y0 + 62)]
        canvas.polygon(
            room,
            np.asarray(((0.50, 0.60, 0.60), (0.66, 0.60, 0.48), (0.58, 0.50, 0.50), (0.50, 0.52, 0.46))[floor]) * 0.55,
            rough=0.6,
        )
        canvas.polygon(
            [(at(190), y0 - 7), (at(reach + 22), y0 + 4), (at(reach + 16), y0 + 15), (at(190), y0 + 6)],
            (0.66, 0.64, 0.60),
            rough=0.4,
        )
        for _ in range(6):
            px = reach + rng.uniform(0, 22)
            canvas.line(
                [(at(px), y0 + 8), (at(px + rng.uniform(5, 34)), y0 + rng.uniform(4, 44))],
                (0.24, 0.16, 0.12),
                2,
            )
    slab = [(at(360), 190), (at(440), 176), (at(590), 380), (at(520), 400)]
    canvas.polygon(slab, (0.58, 0.56, 0.52), rough=0.5)
    canvas.polygon(
        [
            slab[0],
            slab[3],
            (slab[3][0] - (8 if not mirror else -8), slab[3][1] + 14),
            (slab[0][0], slab[0][1] + 16),
        ],
        (0.28, 0.27, 0.25),
        rough=0.4,
    )
    rubble(canvas, at(150), at(710), 470, 175, 330, CONCRETE)
    rubble(canvas, 0, WIDTH, 520, 60, 130, CONCRETE)
    for _ in range(16):
        px, py = rng.uniform(180, 600), rng.uniform(310, 450)
        canvas.line(
            [
                (px, py),
                (px + rng.uniform(-30, 30), py - rng.uniform(20, 60)),
                (px + rng.uniform(-50, 50), py - rng.uniform(30, 70)),
            ],
            (0.25, 0.16, 0.11),
            2,
        )
    canvas.fill((0.72, 0.67, 0.58), smooth(0.45, 0.9, noise(rng, 3)) * 0.35)
    return canvas.photograph(warmth=0.03)


def cracked_house(seed: int) -> Image.Image:
    """A front wall with broken windows is crossed by deep cracks."""
    canvas = Canvas(seed)
    rng = canvas.rng
    sky(canvas, (0.48, 0.60, 0.78), (0.80, 0.85, 0.90), 445, clouds=0.3)
    canvas.polygon([(0, 440), (WIDTH, 430), (WIDTH, HEIGHT), (0, HEIGHT)], (0.48, 0.46, 0.43), rough=0.5, cells=70)
    front = [(70, 62), (650, 30), (672, 462), (58, 452)]
    plaster = np.asarray((0.80, 0.70, 0.55) if seed % 2 else (0.70, 0.73, 0.72))
    canvas.polygon(front, plaster, rough=0.30, cells=30)
    canvas.polygon([(650, 30), (760, 84), (770, 440), (672, 462)], plaster * 0.62, rough=0.3)
    canvas.polygon([(52, 62), (668, 26), (662, 48), (56, 84)], (0.45, 0.26, 0.20), rough=0.5)
    windows(canvas, front, 5, 3, (0.20, 0.24, 0.28))
    stain = smooth(0.55, 0.85, noise(rng, 7, stretch=0.5)) * canvas.mask(front)
    canvas.fill(plaster * 0.55, stain * 0.6)
    for u, v, size in ((0.42, 0.55, 74), (0.78, 0.22, 56), (0.14, 0.83, 62), (0.60, 0.90, 48)):
        cx, cy = quad(front, u, v)
        hole = [
            (
                cx + size * rng.uniform(0.6, 1.15) * np.cos(t),
                cy + 0.8 * size * rng.uniform(0.55, 1.1) * np.sin(t),
            )
            for t in np.linspace(0, 6.28, 18)[:-1]
        ]
        canvas.polygon(hole, (0.55, 0.30, 0.22), rough=0.5, cells=90)
        for row in range(int(cy - size), int(cy + size), 9):
            canvas.fill(
                (0.70, 0.62, 0.55),
                canvas.mask([(cx - size, row), (cx + size, row), (cx + size, row + 2), (cx - size, row + 2)])
                * canvas.mask(hole)
                * 0.7,
            )
    outside = canvas.pixels.copy()
    for px, py, length, angle, width in (
        (330, 60, 440, 1.35, 8),
        (110, 190, 250, 0.6, 5),
        (590, 80, 330, 1.9, 6),
    ):
        crack(canvas, px, py, length, angle, width=width, branch=0.09)
    canvas.fill(outside, 1 - canvas.mask(front))
    rubble(canvas, 40, 620, 500, 66, 150, ((0.55, 0.32, 0.24), *CONCRETE))
    return canvas.photograph(warmth=0.03)
