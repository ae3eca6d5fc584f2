"""Draws rescue and relief: tents, parcels, a stretcher; nobody in the pictures exists."""

from __future__ import annotations

import numpy as np
from PIL import Image

from deploy.samples.damage import CONCRETE, sky
from deploy.samples.figures import person, rubble, windows
from deploy.samples.paint import WIDTH, Canvas, noise, smooth
from deploy.samples.people import GREEN_VEST, VEST, clothes, ground, hills


def tents(seed: int) -> Image.Image:
    """Rows of white relief tents stand on a plain."""
    canvas = Canvas(seed)
    rng = canvas.rng
    sky(canvas, (0.44, 0.58, 0.76), (0.82, 0.86, 0.88), 230, clouds=0.5)
    hills(canvas, 205, (0.46, 0.46, 0.44))
    ground(canvas, 225, (0.60, 0.52, 0.40))
    for row in range(6):
        depth = (row / 5) ** 1.5
        y, size = 250 + depth * 215, 40 + depth * 150
        step = size * 1.9
        for column in range(int(WIDTH / step) + 2):
            x = (column - 0.4 + 0.3 * (row % 2)) * step + rng.uniform(-6, 6)
            if abs(x - 384) < 30 + depth * 90:
                continue
            white = np.asarray((0.90, 0.89, 0.85)) * rng.uniform(0.86, 1.04)
            canvas.ellipse(x + size * 0.5, y + 3, size * 0.85, size * 0.08, (0.2, 0.17, 0.13), blur=4, alpha=0.6)
            canvas.polygon([(x, y), (x + size * 0.42, y - size * 0.62), (x + size * 0.84, y)], white * 0.82, rough=0.15)
            canvas.polygon(
                [
                    (x + size * 0.42, y - size * 0.62),
                    (x + size * 1.15, y - size * 0.60),
                    (x + size * 1.5, y - size * 0.06),
                    (x + size * 0.84, y),
                ],
                white,
                rough=0.15,
            )
            canvas.polygon(
                [(x + size * 0.32, y), (x + size * 0.42, y - size * 0.42), (x + size * 0.54, y)],
                (0.16, 0.15, 0.14),
                blur=1,
            )
            canvas.line([(x, y), (x - size * 0.22, y + size * 0.06)], (0.4, 0.38, 0.34), 1)
            canvas.polygon(
                [
                    (x + size * 0.86, y - size * 0.42),
                    (x + size * 1.02, y - size * 0.42),
                    (x + size * 1.06, y - size * 0.28),
                    (x + size * 0.9, y - size * 0.28),
                ],
                (0.15, 0.40, 0.66),
            )
    for depth in np.sort(rng.random(16)):
        person(
            canvas,
            384 + rng.normal(0, 24 + depth * 60),
            258 + depth * 215,
            30 + depth * 105,
            VEST if rng.random() < 0.3 else clothes(canvas),
        )
    return canvas.photograph(warmth=0.03)


def parcels(seed: int) -> Image.Image:
    """Volunteers in vests stand behind stacks of aid parcels and water."""
    canvas = Canvas(seed)
    rng = canvas.rng
    canvas.gradient((0.55, 0.56, 0.56), (0.74, 0.73, 0.70), 0, 330)
    for column in range(13):
        canvas.line([(column * 62, 0), (column * 62, 320)], (0.45, 0.46, 0.46), 3, alpha=0.6)
    canvas.polygon([(430, 60), (720, 60), (720, 300), (430, 300)], (0.86, 0.90, 0.92), blur=3)
    ground(canvas, 318, (0.50, 0.49, 0.47), 0.3)
    for index in range(7):
        person(
            canvas,
            80 + index * 104 + rng.uniform(-18, 18),
            372,
            rng.uniform(205, 238),
            VEST if index % 2 else GREEN_VEST,
            lean=rng.uniform(-0.05, 0.05),
        )
    for row, (top, size, n) in enumerate(((330, 62, 13), (385, 84, 10), (452, 112, 8))):
        for column in range(n):
            x = column * size * 1.02 - 30 + rng.uniform(-5, 5)
            for level in range(1 + int(rng.random() < 0.6)):
                y = top + 40 - level * size * 0.66
                card = np.asarray((0.74, 0.57, 0.37)) * rng.uniform(0.85, 1.12)
                canvas.polygon(
                    [(x, y), (x + size, y), (x + size, y + size * 0.66), (x, y + size * 0.66)],
                    card,
                    rough=0.2,
                )
                canvas.polygon(
                    [
                        (x, y),
                        (x + size * 0.14, y - size * 0.16),
                        (x + size * 1.1, y - size * 0.16),
                        (x + size, y),
                    ],
                    card * 1.15,
                    rough=0.15,
                )
                canvas.line([(x, y), (x + size, y)], card * 0.6, 2)
                canvas.polygon(
                    [
                        (x + size * 0.44, y - size * 0.15),
                        (x + size * 0.58, y - size * 0.15),
                        (x + size * 0.52, y + size * 0.66),
                        (x + size * 0.40, y + size * 0.66),
                    ],
                    (0.86, 0.80, 0.66),
                    alpha=0.7,
                )
                if (row + column) % 2:
                    cx, cy, arm = x + size * 0.24, y + size * 0.36, size * 0.11
                    for dx, dy in ((arm, arm * 0.36), (arm * 0.36, arm)):
                        canvas.polygon(
                            [(cx - dx, cy - dy), (cx + dx, cy - dy), (cx + dx, cy + dy), (cx - dx, cy + dy)],
                            (0.12, 0.36, 0.62),
                        )
    return canvas.photograph(warmth=0.04)


def rescue(seed: int) -> Image.Image:
    """Rescuers in helmets carry a stretcher over rubble."""
    canvas = Canvas(seed)
    rng = canvas.rng
    sky(canvas, (0.56, 0.60, 0.66), (0.80, 0.80, 0.79), 330, clouds=0.6)
    wall = [(430, 20), (790, 50), (790, 360), (440, 360)]
    canvas.polygon(wall, (0.60, 0.54, 0.46), rough=0.4)
    windows(canvas, wall, 5, 4)
    ground(canvas, 330, (0.50, 0.46, 0.41))
    rubble(canvas, -40, 800, 450, 120, 260, CONCRETE)
    stretcher = ((190, 318), (560, 306))
    for x, feet, height in (
        (120, 440, 230),
        (250, 424, 205),
        (505, 420, 208),
        (640, 436, 236),
        (380, 400, 176),
    ):
        person(canvas, x, feet, height, VEST if x != 380 else (0.18, 0.28, 0.50), lean=0.02)
        for level in (0.62, 0.72):
            canvas.line(
                [(x - 0.1 * height, feet - level * height), (x + 0.1 * height, feet - level * height)],
                (0.90, 0.92, 0.72),
                0.03 * height,
            )
        canvas.ellipse(
            x + 0.02 * height,
            feet - 0.955 * height,
            0.078 * height,
            0.06 * height,
            (0.92, 0.90, 0.86) if x != 380 else (0.85, 0.2, 0.12),
        )
    canvas.polygon([(175, 326), (570, 314), (570, 338), (175, 350)], (0.95, 0.46, 0.12), rough=0.3)
    canvas.polygon([(235, 300), (500, 290), (520, 322), (225, 332)], (0.74, 0.74, 0.72), rough=0.5, blur=2)
    canvas.ellipse(214, 312, 17, 14, (0.62, 0.45, 0.35))
    canvas.line([(stretcher[0][0] - 70, 342), (stretcher[1][0] + 80, 324)], (0.30, 0.30, 0.31), 6)
    rubble(canvas, -40, 800, 540, 60, 150, CONCRETE)
    canvas.fill((0.74, 0.69, 0.60), smooth(0.45, 0.95, noise(rng, 3)) * 0.28)
    return canvas.photograph(warmth=0.03)
