"""Paints what several pictures share: walls with windows, cracks, rubble, people and cars."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from deploy.samples.paint import SKIN, Canvas, Colour, Point


def windows(
    canvas: Canvas, corners: Sequence[Point], columns: int, rows: int, colour: Colour = (0.13, 0.15, 0.18)
) -> None:
    """Paint a grid of windows on a wall."""
    for row in range(rows):
        for column in range(columns):
            u, v = (column + 0.25) / columns, (row + 0.2) / rows
            du, dv = 0.5 / columns, 0.58 / rows
            box = [quad(corners, u + a * du, v + b * dv) for a, b in ((0, 0), (1, 0), (1, 1), (0, 1))]
            light = 0.7 + 0.6 * canvas.rng.random()
            canvas.polygon([(x - 1.5, y - 1.5) for x, y in box], (0.62, 0.60, 0.56))
            canvas.polygon(box, [c * light for c in colour])


def crack(
    canvas: Canvas, x: float, y: float, length: float, angle: float, *, width: float = 3, branch: float = 0.12
) -> None:
    """Paint a branching crack from (x, y)."""
    points = [(x, y)]
    for _ in range(int(length / 9)):
        turn = angle + canvas.rng.normal(0, 0.6)
        x, y = x + 9 * np.cos(turn), y + 9 * np.sin(turn)
        points.append((x, y))
        if canvas.rng.random() < branch and width > 1.2:
            side = angle + canvas.rng.choice([-0.8, 0.8])
            crack(canvas, x, y, length * 0.3, side, width=width * 0.5, branch=branch * 0.4)
    canvas.line(points, (0.07, 0.06, 0.06), width, blur=0.5, alpha=0.92)


def rubble(canvas: Canvas, x0: float, x1: float, base: float, height: float, n: int, tones: Sequence[Colour]) -> None:
    """Paint a heap of slabs and blocks: small and dense, lit from the upper left."""
    x0, x1 = min(x0, x1), max(x0, x1)
    for index in range(n):
        depth = index / n
        centre = (x0 + x1) / 2
        x = canvas.rng.normal(centre, (x1 - x0) / 4.2)
        rise = height * np.exp(-(((x - centre) / ((x1 - x0) / 2.6)) ** 2))
        y = base - rise * (1 - depth) * canvas.rng.uniform(0.75, 1.0)
        size = min(26.0, canvas.rng.gamma(2.2, 6.5)) * (0.55 + 0.7 * depth) + 4
        turn = canvas.rng.uniform(-0.7, 0.7)
        w, h = size * canvas.rng.uniform(0.8, 2.4), size * canvas.rng.uniform(0.3, 0.8)
        cos, sin = np.cos(turn), np.sin(turn)
        corners = [
            (x + a * w * cos - b * h * sin, y + a * w * sin + b * h * cos)
            for a, b in ((-1, -1), (canvas.rng.uniform(0.5, 1), -1.1), (1, 1), (-0.9, 0.8))
        ]
        tone = np.asarray(tones[int(canvas.rng.integers(len(tones)))]) * canvas.rng.uniform(0.62, 1.1)
        shadow = [(px + size * 0.35, py + size * 0.5) for px, py in corners]
        canvas.polygon(shadow, (0.06, 0.055, 0.05), blur=1.8, alpha=0.55)
        canvas.polygon(corners, tone, blur=0.5)
        canvas.polygon(
            [
                corners[3],
                corners[2],
                (corners[2][0], corners[2][1] + h * 0.7),
                (corners[3][0], corners[3][1] + h * 0.7),
            ],
            tone * 0.52,
            blur=0.6,
        )


def person(canvas: Canvas, x: float, feet: float, height: float, colour: Colour, *, lean: float = 0.0) -> None:
    """Paint a standing or walking figure; small ones read best."""
    h, rng = height, canvas.rng
    stride = rng.uniform(0.03, 0.10) * h
    trousers = np.asarray((0.13, 0.14, 0.19)) * rng.uniform(0.7, 1.8)
    canvas.ellipse(x + 0.08 * h, feet, 0.2 * h, 0.035 * h, (0.05, 0.05, 0.05), blur=2.5, alpha=0.4)
    hip, shoulder = feet - 0.47 * h, feet - 0.82 * h
    top = x + lean * h
    for side in (-1, 1):
        canvas.line([(x + side * 0.04 * h, hip), (x + side * stride, feet)], trousers, 0.095 * h)
    torso = [
        (top - 0.115 * h, shoulder),
        (top + 0.115 * h, shoulder),
        (x + 0.09 * h, hip + 0.03 * h),
        (x - 0.09 * h, hip + 0.03 * h),
    ]
    canvas.polygon(torso, colour, rough=0.4, blur=1.0)
    for side in (-1, 1):
        elbow = (top + side * (0.15 + 0.05 * rng.random()) * h, shoulder + 0.19 * h)
        hand = (x + side * rng.uniform(0.06, 0.17) * h, hip + 0.02 * h)
        canvas.line(
            [(top + side * 0.10 * h, shoulder + 0.02 * h), elbow, hand],
            np.asarray(colour) * 0.8,
            0.062 * h,
        )
    skin = SKIN[rng.integers(len(SKIN))]
    canvas.ellipse(top, feet - 0.915 * h, 0.057 * h, 0.075 * h, skin)
    hair = np.asarray((0.10, 0.08, 0.07)) * rng.uniform(0.6, 2.2)
    canvas.ellipse(top, feet - 0.95 * h, 0.06 * h, 0.048 * h, hair)


def car(canvas: Canvas, x: float, y: float, length: float, colour: Colour) -> None:
    """Paint a car seen from the side, its wheels on row y."""
    s = length
    shape = (
        (0, -0.12),
        (0.02, -0.22),
        (0.2, -0.25),
        (0.32, -0.38),
        (0.68, -0.38),
        (0.82, -0.25),
        (0.98, -0.22),
        (1, -0.1),
        (0.97, -0.06),
        (0.03, -0.06),
    )
    body = [(x + a * s, y + b * s) for a, b in shape]
    canvas.ellipse(x + 0.5 * s, y, 0.52 * s, 0.05 * s, (0.03, 0.03, 0.03), blur=4, alpha=0.6)
    canvas.polygon(body, colour, rough=0.25, cells=12, blur=1.0)
    canvas.polygon(
        [(x + a * s, y + b * s) for a, b in ((0.02, -0.15), (0.99, -0.15), (0.97, -0.06), (0.03, -0.06))],
        np.asarray(colour) * 0.6,
        blur=2,
    )
    for glass in (
        ((0.25, -0.25), (0.34, -0.355), (0.49, -0.355), (0.49, -0.25)),
        ((0.52, -0.25), (0.52, -0.355), (0.66, -0.355), (0.76, -0.25)),
    ):
        canvas.polygon([(x + a * s, y + b * s) for a, b in glass], (0.10, 0.13, 0.16))
    for wheel in (0.2, 0.8):
        canvas.ellipse(x + wheel * s, y - 0.06 * s, 0.085 * s, 0.085 * s, (0.05, 0.05, 0.05))
        canvas.ellipse(x + wheel * s, y - 0.06 * s, 0.045 * s, 0.045 * s, (0.42, 0.42, 0.43))


def quad(corners: Sequence[Point], u: float, v: float) -> Point:
    """Return the point at (u, v) of a quad given as top left, top right, bottom right, bottom left."""
    (ax, ay), (bx, by), (cx, cy), (dx, dy) = corners
    top = (ax + (bx - ax) * u, ay + (by - ay) * u)
    bottom = (dx + (cx - dx) * u, dy + (cy - dy) * u)
    return top[0] + (bottom[0] - top[0]) * v, top[1] + (bottom[1] - top[1]) * v
