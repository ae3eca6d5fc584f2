"""Draws damage: bridges, floods, fires, rubble, landslides; what is seen is invented."""

from __future__ import annotations

import numpy as np
from PIL import Image

from deploy.samples.figures import car, person, rubble, windows
from deploy.samples.paint import HEIGHT, WIDTH, Canvas, Colour, grid, noise, smooth

CONCRETE = (
    (0.62, 0.60, 0.57),
    (0.52, 0.50, 0.47),
    (0.70, 0.67, 0.62),
    (0.45, 0.38, 0.33),
    (0.56, 0.42, 0.35),
)
CARS = ((0.62, 0.13, 0.11), (0.78, 0.78, 0.77), (0.16, 0.24, 0.40), (0.25, 0.26, 0.27), (0.75, 0.66, 0.45))


def sky(canvas: Canvas, top: Colour, bottom: Colour, horizon: float, *, clouds: float = 0.5) -> None:
    """Paint a sky down to the horizon."""
    canvas.gradient(top, bottom, 0, horizon)
    _, y = grid()
    bank = smooth(0.42, 0.75, noise(canvas.rng, 4, stretch=2.2)) * clouds * (y * HEIGHT < horizon)
    canvas.fill((0.90, 0.90, 0.91), bank * 0.7)
    shade = smooth(0.5, 0.8, noise(canvas.rng, 5, stretch=2.5)) * clouds * (y * HEIGHT < horizon)
    canvas.fill((0.42, 0.44, 0.48), shade * 0.6)


def water(canvas: Canvas, top: float, near: Colour, far: Colour, *, mirror: float = 0.45) -> None:
    """Cover everything below row `top` with water that mirrors what stands above it."""
    rows = np.clip(2 * top - np.arange(HEIGHT), 0, HEIGHT - 1).astype(int)
    x, y = grid()
    depth = np.clip((y * HEIGHT - top) / (HEIGHT - top), 0, 1)
    ripple = noise(canvas.rng, 14, stretch=7) - 0.5
    columns = np.clip(np.arange(WIDTH)[None, :] + ripple * 60 * (0.15 + depth), 0, WIDTH - 1).astype(int)
    mirrored = canvas.pixels[rows[:, None], columns]
    body = np.asarray(far) * (1 - depth[..., None]) + np.asarray(near) * depth[..., None]
    surface = mirrored * mirror * (1 - 0.5 * depth[..., None]) + body * (1 - mirror * (1 - 0.5 * depth[..., None]))
    surface = surface * (1 + 0.45 * (noise(canvas.rng, 16, stretch=9)[..., None] - 0.5))
    glint = smooth(0.70, 0.86, noise(canvas.rng, 22, stretch=10))[..., None]
    surface = surface + 0.28 * glint * depth[..., None]
    canvas.fill(np.clip(surface, 0, 1), smooth(top - 1, top + 2, y * HEIGHT))


def street(canvas: Canvas, horizon: float, *, walls: tuple[Colour, ...], storeys: int = 3) -> None:
    """Paint two rows of houses that run to the horizon."""
    rng = canvas.rng
    for side in (-1, 1):
        edge = 0.0
        for index in range(4):
            near, far = 1 - edge, 1 - (edge + (1 - edge) * 0.42)
            edge += (1 - edge) * 0.42
            x0 = WIDTH / 2 + side * (WIDTH * 0.62 * near + 18)
            x1 = WIDTH / 2 + side * (WIDTH * 0.62 * far + 18)
            rise = rng.uniform(0.85, 1.15) * 400
            corners = [
                (x0, horizon - rise * near),
                (x1, horizon - rise * far),
                (x1, horizon + 150 * far),
                (x0, horizon + 150 * near),
            ]
            shade = (0.85 if side < 0 else 1.0) * rng.uniform(0.85, 1.05)
            canvas.polygon(corners, np.asarray(walls[(index + (side > 0) * 2) % len(walls)]) * shade, rough=0.35)
            windows(canvas, corners, max(2, 4 - index), storeys)
            roof = [
                corners[0],
                corners[1],
                (x1, corners[1][1] - 16 * far),
                (x0 + side * 12, corners[0][1] - 30 * near),
            ]
            canvas.polygon(roof, (0.36, 0.22, 0.17), rough=0.5)


def flooded_street(seed: int) -> Image.Image:
    """Cars stand to their windows in a brown flooded street."""
    canvas = Canvas(seed)
    rng = canvas.rng
    sky(canvas, (0.50, 0.53, 0.57), (0.78, 0.79, 0.79), 300, clouds=0.8)
    walls = ((0.72, 0.60, 0.45), (0.60, 0.62, 0.63), (0.70, 0.46, 0.36), (0.78, 0.74, 0.62))
    street(canvas, 250, walls=walls)
    for side in (-1, 1):
        canvas.line([(384 + side * 190, 90), (384 + side * 190, 330)], (0.15, 0.15, 0.16), 6)
        canvas.line([(384 + side * 190, 95), (384 + side * 150, 88)], (0.15, 0.15, 0.16), 4)
    tint = (0.40, 0.32, 0.22) if seed % 2 else (0.36, 0.34, 0.29)
    water(canvas, 285, np.asarray(tint) * 0.95, np.asarray(tint) * 1.5)
    for x, y, length in ((330, 322, 74), (452, 338, 110), (120, 380, 190), (500, 430, 250)):
        colour = np.asarray(CARS[rng.integers(len(CARS))])
        before = canvas.pixels.copy()
        car(canvas, x, y, length, colour)
        _, gy = grid()
        line = y - 0.155 * length
        under = smooth(line - 1, line + 2, gy * HEIGHT)
        canvas.fill(before, under)
        dark = canvas.mask(
            [
                (x, line),
                (x + length, line),
                (x + length * 0.95, line + 0.3 * length),
                (x + 8, line + 0.3 * length),
            ],
            5,
        )
        canvas.fill((0.14, 0.12, 0.10), dark * 0.5)
        canvas.line([(x - 10, line + 1), (x + length + 10, line + 1)], (0.72, 0.69, 0.62), 3, blur=1.4, alpha=0.6)
    for x, y in ((566, 352), (600, 360)):
        before = canvas.pixels.copy()
        person(canvas, x, y, 92, (0.72, 0.25, 0.16) if x < 580 else (0.15, 0.30, 0.50))
        _, gy = grid()
        canvas.fill(before, smooth(y - 40, y - 36, gy * HEIGHT))
    return canvas.photograph(warmth=0.02)


def collapsed_bridge(seed: int) -> Image.Image:
    """The middle of a road bridge lies broken in a river."""
    canvas = Canvas(seed)
    dusk = seed % 2 == 0
    if dusk:
        sky(canvas, (0.42, 0.45, 0.56), (0.88, 0.72, 0.58), 300, clouds=0.6)
    else:
        sky(canvas, (0.58, 0.63, 0.70), (0.83, 0.85, 0.86), 300, clouds=0.8)
    x, y = grid()
    for base, amplitude, tone in ((215, 60, (0.44, 0.50, 0.52)), (265, 45, (0.27, 0.34, 0.27))):
        ridge = base - amplitude * (noise(canvas.rng, 3)[0] - 0.3)
        hill = smooth(0, 2, y * HEIGHT - ridge[None, :])
        canvas.fill(np.asarray(tone) * (0.75 + 0.5 * noise(canvas.rng, 50)[..., None]), hill)
    water(canvas, 305, (0.26, 0.30, 0.28), (0.48, 0.52, 0.52), mirror=0.5)
    deck = np.asarray((0.60, 0.59, 0.57))
    for left, right, tilt in ((-20, 262, 6), (548, 800, -4)):
        for pier in (60, 200) if left < 0 else (600, 730):
            canvas.polygon(
                [(pier - 17, 190), (pier + 17, 190), (pier + 20, 345), (pier - 20, 345)],
                deck * 0.72,
                rough=0.5,
            )
            canvas.polygon(
                [(pier + 5, 190), (pier + 17, 190), (pier + 20, 345), (pier + 8, 345)], deck * 0.45, rough=0.4
            )
        canvas.polygon([(left, 160), (right, 160 + tilt), (right - 8, 192 + tilt), (left, 194)], deck * 0.9, rough=0.4)
        canvas.polygon(
            [(left, 178), (right - 6, 180 + tilt), (right - 14, 200 + tilt), (left, 198)],
            deck * 0.5,
            rough=0.4,
        )
        canvas.line([(left, 144), (right, 146 + tilt)], (0.35, 0.36, 0.37), 3)
        for post in range(int(max(left, 0)), int(min(right, WIDTH)), 24):
            canvas.line([(post, 144), (post, 162)], (0.35, 0.36, 0.37), 2)
    for end, way in ((256, 1), (552, -1)):
        for _ in range(9):
            px, py = end + way * canvas.rng.uniform(-6, 4), canvas.rng.uniform(168, 196)
            reach = canvas.rng.uniform(12, 36)
            canvas.line([(px, py), (px + way * reach, py + canvas.rng.uniform(2, 26))], (0.22, 0.15, 0.11), 2)
    fallen = [(250, 200), (268, 184), (425, 322), (414, 346)]
    canvas.polygon(fallen, deck * 0.82, rough=0.5)
    canvas.polygon([fallen[0], fallen[3], (404, 354), (244, 216)], deck * 0.42, rough=0.4)
    canvas.line([(262, 190), (422, 330)], (0.86, 0.80, 0.50), 2, alpha=0.7)
    other = [(552, 200), (566, 190), (470, 352), (446, 344)]
    canvas.polygon(other, deck * 0.75, rough=0.5)
    canvas.polygon([other[1], (580, 198), (488, 360), other[2]], deck * 0.40, rough=0.4)
    rubble(canvas, 330, 560, 372, 34, 80, CONCRETE[:3])
    car(canvas, 318, 262, 74, CARS[0] if dusk else CARS[1])
    for cx in (360, 420, 480, 530):
        canvas.line([(cx - 40, 372), (cx + 45, 374)], (0.82, 0.83, 0.82), 3, blur=2, alpha=0.5)
    return canvas.photograph(warmth=0.05 if dusk else -0.02)
