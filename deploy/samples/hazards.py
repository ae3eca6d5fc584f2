"""Draws what fire, mud and wind leave behind; the places are invented."""

from __future__ import annotations

import numpy as np
from PIL import Image

from deploy.samples.damage import CARS, sky
from deploy.samples.figures import car, rubble, windows
from deploy.samples.paint import HEIGHT, WIDTH, Canvas, grid, noise, smooth


def wildfire(seed: int) -> Image.Image:
    """A line of fire climbs a dark ridge at night under lit smoke."""
    canvas = Canvas(seed)
    rng = canvas.rng
    canvas.gradient((0.03, 0.03, 0.05), (0.30, 0.10, 0.04), 0, 380)
    x, y = grid()
    slope = 0.25 if seed % 2 else -0.22
    ridge = 300 - 130 * (noise(rng, 2.5)[0] - 0.4) - slope * (np.arange(WIDTH) - 384) * 0.6
    above = np.clip((ridge[None, :] - y * HEIGHT) / 260, 0, 1.5)
    smoke = smooth(0.30, 0.85, noise(rng, 3.5, stretch=0.8)) * np.exp(-(above**2) * 1.3)
    glow = np.exp(-above * 2.6)
    canvas.fill((0.95, 0.38, 0.08), np.clip(glow * 0.85, 0, 1))
    canvas.fill((0.52, 0.25, 0.14), smoke * 0.75)
    canvas.fill((0.20, 0.11, 0.09), smooth(0.5, 0.9, noise(rng, 4)) * smooth(0.15, 1.0, above) * 0.8)
    ground = smooth(0, 3, y * HEIGHT - ridge[None, :])
    canvas.fill(np.asarray((0.06, 0.035, 0.025)) * (0.5 + noise(rng, 60)[..., None]), ground)
    flame_noise = noise(rng, 26, stretch=0.35)
    for offset, reach in ((0, 62), (70, 40), (135, 26)):
        line = ridge + offset + 40 * (noise(rng, 5)[0] - 0.5) + (rng.random() - 0.5) * 30
        burning = smooth(0.40, 0.62, noise(rng, 5)[0]) if offset else smooth(0.15, 0.4, noise(rng, 5)[0])
        up = (line[None, :] - y * HEIGHT) / (reach * (0.35 + 0.9 * burning[None, :]))
        flame = np.clip(1 - np.abs(up - 0.25) * 1.15, 0, 1) * (0.35 + 1.1 * flame_noise) * burning[None, :]
        canvas.fill((0.90, 0.25, 0.03), smooth(0.18, 0.50, flame))
        canvas.fill((1.0, 0.62, 0.12), smooth(0.45, 0.78, flame))
        canvas.fill((1.0, 0.95, 0.66), smooth(0.72, 1.05, flame))
        canvas.fill((1.0, 0.42, 0.08), np.clip(np.exp(-np.abs(up) * 0.5) * burning[None, :] * 0.30, 0, 1))
    for _ in range(46):
        tx = rng.uniform(0, WIDTH)
        ty = ridge[int(tx)] + rng.uniform(10, 200)
        size = 14 + (ty - ridge[int(tx)]) * 0.28
        for tier in range(4):
            half, top = size * (0.16 + 0.13 * tier), ty - size * (1.9 - 0.42 * tier)
            canvas.polygon(
                [(tx, top), (tx + half, top + size * 0.7), (tx - half, top + size * 0.7)],
                (0.02, 0.013, 0.01),
                blur=1.2,
            )
    for _ in range(150):
        ex = rng.uniform(0, WIDTH)
        ey = ridge[int(ex)] - rng.gamma(1.6, 60)
        canvas.ellipse(ex, ey, 1.6, 1.6, (1.0, 0.66, 0.25), blur=0.5)
    return canvas.photograph(contrast=1.15, warmth=0.04, vignette=0.5)


def landslide(seed: int) -> Image.Image:
    """A brown slide has come down a green slope across a road."""
    canvas = Canvas(seed)
    rng = canvas.rng
    sky(canvas, (0.60, 0.64, 0.69), (0.85, 0.86, 0.87), 400, clouds=0.8)
    x, y = grid()
    slope = 60 + 250 * (x[0] - 0.15) ** 2 + 30 * noise(rng, 4)[0]
    green = (
        np.asarray((0.20, 0.31, 0.15))
        * (0.45 + 1.1 * noise(rng, 55)[..., None])
        * (0.8 + 0.5 * noise(rng, 6)[..., None])
    )
    canvas.fill(green, smooth(0, 4, y * HEIGHT - slope[None, :]))
    canvas.polygon([(0, 385), (WIDTH, 350), (WIDTH, 425), (0, 480)], (0.36, 0.36, 0.36), rough=0.3, cells=80)
    canvas.line([(0, 432), (WIDTH, 387)], (0.80, 0.78, 0.70), 4, alpha=0.7)
    canvas.polygon([(0, 480), (WIDTH, 425), (WIDTH, HEIGHT), (0, HEIGHT)], (0.23, 0.30, 0.16), rough=0.9, cells=70)
    canvas.line([(0, 462), (WIDTH, 412)], (0.70, 0.70, 0.70), 5)
    centre = 330 + 130 * (y - 0.25) + 22 * (noise(rng, 8) - 0.5) * 6
    half = 46 + 200 * np.clip(y - 0.15, 0, 1) ** 1.2
    scar = (
        (1 - smooth(0.82, 1.05, np.abs(x * WIDTH - centre) / half))
        * smooth(95, 125, y * HEIGHT + 25 * noise(rng, 12))
        * (1 - smooth(478, 500, y * HEIGHT + 40 * noise(rng, 14)))
    )
    earth = np.asarray((0.46, 0.31, 0.19)) * (0.40 + 1.15 * noise(rng, 32, stretch=0.5)[..., None])
    canvas.fill(np.clip(earth, 0, 1), scar)
    mound = np.clip(1 - ((x * WIDTH - 395) / 170) ** 2 - ((y * HEIGHT - 415) / 66) ** 2, 0, 1)
    canvas.fill(
        np.clip(earth * (0.7 + 0.5 * mound[..., None]), 0, 1),
        smooth(0.12, 0.35, mound + 0.5 * (noise(rng, 18) - 0.5)) * (mound > 0),
    )
    rubble(canvas, 250, 540, 470, 95, 110, ((0.46, 0.33, 0.22), (0.38, 0.27, 0.18), (0.52, 0.42, 0.32)))
    for _ in range(9):
        px, py, turn = rng.uniform(290, 520), rng.uniform(360, 470), rng.uniform(-0.9, 0.9)
        length = rng.uniform(35, 85)
        canvas.line([(px, py), (px + length * np.cos(turn), py + length * np.sin(turn))], (0.22, 0.15, 0.10), 5)
    car(canvas, 600, 402, 86, CARS[1])
    car(canvas, 126, 440, 104, CARS[2])
    return canvas.photograph(warmth=0.0)


def torn_roofs(seed: int) -> Image.Image:
    """Houses without roofs stand among planks and bent palms after a storm."""
    canvas = Canvas(seed)
    rng = canvas.rng
    sky(canvas, (0.46, 0.52, 0.58), (0.78, 0.80, 0.80), 300, clouds=0.9)
    canvas.polygon([(0, 290), (WIDTH, 290), (WIDTH, HEIGHT), (0, HEIGHT)], (0.43, 0.41, 0.33), rough=0.7, cells=60)
    for x, y, w, tone in (
        (40, 330, 190, (0.55, 0.70, 0.72)),
        (300, 350, 230, (0.82, 0.74, 0.55)),
        (575, 322, 180, (0.75, 0.55, 0.50)),
    ):
        h = w * 0.48
        wall = [(x, y - h), (x + w, y - h * 0.94), (x + w, y), (x, y)]
        canvas.polygon(wall, tone, rough=0.3)
        windows(canvas, wall, 3, 1, (0.08, 0.09, 0.10))
        for beam in range(7):
            bx = x + beam * w / 6.4
            peak = y - h - w * 0.26 * (1 - abs(beam - 3) / 4) * rng.uniform(0.3, 1.0)
            canvas.line([(bx, y - h), (bx + rng.uniform(-12, 18), peak)], (0.50, 0.37, 0.24), 5)
        canvas.line(
            [(x, y - h), (x + w * 0.5, y - h - w * 0.24), (x + w * 0.72, y - h - w * 0.13)],
            (0.47, 0.34, 0.22),
            6,
        )
        sheet = [
            (x + w * 0.6, y - h * 0.96),
            (x + w * 0.98, y - h * 1.18),
            (x + w * 1.1, y - h * 0.95),
            (x + w * 0.75, y - h * 0.78),
        ]
        canvas.polygon(sheet, (0.55, 0.57, 0.58), rough=0.4)
    for trunk, base, lean in ((262, 380, 0.5), (552, 400, -0.75), (735, 370, 0.35)):
        top = (trunk + 150 * np.sin(lean), base - 190 * np.cos(lean))
        canvas.line([(trunk, base), (trunk + 55 * np.sin(lean), base - 100), top], (0.30, 0.24, 0.18), 10)
        for frond in np.linspace(-0.3, 2.6, 8):
            way = frond if lean > 0 else np.pi - frond
            reach = rng.uniform(40, 80)
            tip = (top[0] + reach * np.cos(way - 0.7), top[1] + reach * np.sin(way - 0.7) * 0.8 + 16)
            canvas.line([top, ((top[0] + tip[0]) / 2, (top[1] + tip[1]) / 2 - 6), tip], (0.20, 0.28, 0.14), 6)
    for _ in range(300):
        px, py = rng.uniform(0, WIDTH), 345 + 165 * rng.random() ** 0.8
        scale, turn = (py - 300) / 120, rng.normal(0, 0.5)
        dx, dy = rng.uniform(10, 44) * scale * np.cos(turn), rng.uniform(10, 30) * scale * np.sin(turn)
        tone = (
            (0.60, 0.47, 0.32),
            (0.40, 0.31, 0.23),
            (0.66, 0.66, 0.66),
            (0.70, 0.62, 0.50),
            (0.32, 0.44, 0.52),
        )[rng.integers(5)]
        canvas.line([(px + 2, py + 4), (px + dx + 2, py + dy + 4)], (0.08, 0.07, 0.06), 4 * scale, alpha=0.5, blur=1.5)
        canvas.line(
            [(px, py), (px + dx, py + dy)],
            np.asarray(tone) * rng.uniform(0.7, 1.1),
            rng.uniform(2, 6) * scale,
        )
    return canvas.photograph(warmth=-0.01)
