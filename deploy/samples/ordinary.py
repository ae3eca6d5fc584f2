"""Draws what is not damage: ordinary life, and the maps and notices of a crisis."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from deploy.samples.damage import sky, water
from deploy.samples.figures import person
from deploy.samples.paint import HEIGHT, WIDTH, Canvas, grid, noise, smooth


def concert(seed: int) -> Image.Image:
    """A crowd with raised arms stands before a lit stage."""
    canvas = Canvas(seed)
    rng = canvas.rng
    canvas.gradient((0.03, 0.02, 0.06), (0.20, 0.07, 0.26), 0, 400)
    x, y = grid()
    for origin, way, colour in (
        (0.15, 0.30, (0.95, 0.25, 0.75)),
        (0.38, -0.16, (0.25, 0.50, 1.0)),
        (0.62, 0.14, (0.35, 0.85, 1.0)),
        (0.86, -0.34, (1.0, 0.65, 0.2)),
    ):
        beam = np.exp(-(((x - origin - way * y) / (0.02 + 0.10 * y)) ** 2)) * np.exp(-y * 0.9)
        canvas.fill(colour, np.clip(beam * (0.5 + 0.5 * noise(rng, 6)), 0, 0.85))
        canvas.ellipse(origin * WIDTH, 10, 12, 9, (1, 1, 1), blur=5)
    canvas.polygon([(170, 160), (600, 160), (600, 300), (170, 300)], (0.55, 0.30, 0.80), rough=1.2, cells=10, blur=4)
    canvas.polygon([(130, 290), (640, 290), (660, 330), (110, 330)], (0.10, 0.08, 0.12), blur=1)
    for singer, height in ((270, 110), (385, 126), (500, 108)):
        person(canvas, singer, 298, height, (0.05, 0.04, 0.07))
    canvas.fill((0.75, 0.45, 0.95), np.exp(-(((y - 0.52) / 0.12) ** 2)) * 0.35)
    for row in range(7):
        base = 335 + row * 30
        for _ in range(26 - 2 * row):
            px, size = rng.uniform(0, WIDTH), 11 + row * 4.2
            dark = np.asarray((0.10, 0.05, 0.14)) * (1.3 - row * 0.16)
            canvas.ellipse(px, base, size, size * 1.2, dark, blur=1.2)
            canvas.ellipse(px, base + size * 2.3, size * 1.9, size * 1.5, dark, blur=1.5)
            if rng.random() < 0.5:
                tip = (px + rng.uniform(-1, 1) * size * 2, base - size * rng.uniform(2, 3.6))
                canvas.line(
                    [(px + size * 1.3, base + size * 1.6), (px + size * 1.5, base - size * 0.4), tip],
                    dark,
                    size * 0.65,
                )
                if rng.random() < 0.25:
                    canvas.ellipse(*tip, 4, 6, (0.85, 0.92, 1.0), blur=1.5)
    return canvas.photograph(contrast=1.15, vignette=0.5)


def beach(seed: int) -> Image.Image:
    """A sunny beach with parasols."""
    canvas = Canvas(seed)
    sky(canvas, (0.22, 0.50, 0.85), (0.72, 0.86, 0.94), 215, clouds=0.35)
    water(canvas, 212, (0.20, 0.66, 0.70), (0.06, 0.36, 0.60), mirror=0.2)
    _, y = grid()
    shore = 345 + 22 * np.sin(np.linspace(0, 5, WIDTH)) + 16 * noise(canvas.rng, 4)[0]
    foam = np.exp(-(((y * HEIGHT - shore[None, :]) / 9) ** 2)) * (0.4 + 0.6 * noise(canvas.rng, 50))
    sand = np.asarray((0.90, 0.79, 0.58)) * (0.85 + 0.3 * noise(canvas.rng, 90)[..., None])
    canvas.fill(sand, smooth(0, 8, y * HEIGHT - shore[None, :]))
    canvas.fill((1, 1, 1), foam)
    for px, py, size, tone in (
        (150, 400, 70, (0.85, 0.18, 0.16)),
        (560, 420, 92, (0.98, 0.80, 0.15)),
        (360, 380, 48, (0.15, 0.45, 0.75)),
    ):
        canvas.ellipse(px + size * 0.7, py + 6, size, size * 0.16, (0.45, 0.36, 0.25), blur=5, alpha=0.7)
        canvas.line([(px, py), (px - 6, py - size * 1.4)], (0.92, 0.92, 0.90), 5)
        for part in range(6):
            a, b = np.pi + part * np.pi / 6, np.pi + (part + 1) * np.pi / 6
            tip = (px - 6, py - size * 1.95)
            edge = [(px - 6 + size * np.cos(t), py - size * 1.2 + size * 0.28 * np.sin(t)) for t in (a, (a + b) / 2, b)]
            canvas.polygon([tip, *edge], tone if part % 2 else (0.97, 0.96, 0.93))
        canvas.polygon(
            [(px + 20, py + 4), (px + 20 + size, py - 2), (px + 26 + size, py + 14), (px + 24, py + 20)],
            np.asarray(tone) * 0.8,
        )
    for px, py, tall in ((260, 366, 42), (292, 368, 44), (470, 360, 38), (690, 372, 50), (420, 352, 34)):
        person(canvas, px, py, tall, (0.85, 0.62, 0.50))
    return canvas.photograph(warmth=0.05, vignette=0.2)


def dinner(seed: int) -> Image.Image:
    """A pizza lies on a wooden table."""
    canvas = Canvas(seed)
    rng = canvas.rng
    x, y = grid()
    wood = np.asarray((0.50, 0.32, 0.19)) * (0.65 + 0.6 * noise(rng, 3, stretch=16)[..., None])
    canvas.fill(wood)
    for plank in (130, 265, 400):
        canvas.line([(0, plank), (WIDTH, plank + 8)], (0.16, 0.09, 0.05), 4)
    canvas.ellipse(400, 285, 262, 200, (0.10, 0.06, 0.04), blur=14, alpha=0.7)
    canvas.ellipse(384, 262, 258, 204, (0.93, 0.92, 0.90))
    canvas.ellipse(384, 262, 236, 184, (0.84, 0.83, 0.81), blur=3)
    reach = np.sqrt(((x * WIDTH - 384) / 222) ** 2 + ((y * HEIGHT - 260) / 172) ** 2) + 0.05 * (noise(rng, 9) - 0.5)
    crust = np.asarray((0.80, 0.56, 0.28)) * (0.65 + 0.65 * noise(rng, 22)[..., None])
    cheese = np.asarray((0.95, 0.78, 0.38)) * (0.75 + 0.42 * noise(rng, 16)[..., None])
    canvas.fill(np.clip(crust, 0, 1), 1 - smooth(0.97, 1.0, reach))
    canvas.fill((0.74, 0.20, 0.08), 1 - smooth(0.84, 0.88, reach))
    canvas.fill(np.clip(cheese, 0, 1), (1 - smooth(0.80, 0.86, reach)) * smooth(0.28, 0.45, noise(rng, 14)))
    for turn in np.linspace(0, 2 * np.pi, 11)[:-1]:
        r = rng.uniform(0.35, 0.68)
        px, py = 384 + 222 * r * np.cos(turn), 260 + 172 * r * np.sin(turn)
        canvas.ellipse(px + 3, py + 4, 30, 24, (0.35, 0.10, 0.05), blur=3)
        canvas.ellipse(px, py, 29, 23, (0.72, 0.19, 0.11))
        canvas.ellipse(px - 4, py - 4, 20, 15, (0.80, 0.30, 0.18), blur=5)
        lx, ly, la = 384 + 222 * rng.uniform(-0.5, 0.5), 260 + 172 * rng.uniform(-0.5, 0.5), rng.uniform(0, 3)
        leaf = [(lx + 26 * np.cos(la + t) * np.cos(t), ly + 16 * np.sin(la + t)) for t in np.linspace(0, 3, 8)]
        canvas.polygon(leaf, (0.16, 0.42, 0.13), rough=0.5)
    canvas.line([(690, 120), (702, 420)], (0.76, 0.77, 0.79), 15)
    canvas.line([(694, 130), (700, 330)], (0.95, 0.95, 0.96), 4)
    canvas.ellipse(86, 90, 66, 62, (0.70, 0.80, 0.84), blur=2)
    canvas.ellipse(86, 90, 56, 52, (0.50, 0.10, 0.14), blur=4)
    canvas.ellipse(66, 70, 14, 9, (0.95, 0.85, 0.85), blur=4)
    return canvas.photograph(warmth=0.07)


def sunset_lake(seed: int) -> Image.Image:
    """A mountain lake at sunset."""
    canvas = Canvas(seed)
    sky(canvas, (0.26, 0.30, 0.52), (0.99, 0.66, 0.38), 300, clouds=0.25)
    canvas.ellipse(500, 232, 30, 30, (1.0, 0.93, 0.70), blur=6)
    _, y = grid()
    for base, rise, tone in (
        (250, 190, (0.40, 0.34, 0.46)),
        (285, 110, (0.22, 0.22, 0.30)),
        (300, 50, (0.09, 0.11, 0.12)),
    ):
        ridge = base - rise * (noise(canvas.rng, 3.5)[0] - 0.25)
        canvas.fill(
            np.asarray(tone) * (0.8 + 0.4 * noise(canvas.rng, 30)[..., None]),
            smooth(0, 2, y * HEIGHT - ridge[None, :]),
        )
    water(canvas, 306, (0.16, 0.18, 0.30), (0.60, 0.45, 0.42), mirror=0.75)
    canvas.polygon([(300, 512), (330, 400), (400, 400), (440, 512)], (0.25, 0.18, 0.13), rough=0.5)
    return canvas.photograph(warmth=0.05)


def storm_map(seed: int) -> Image.Image:
    """A forecast map shows a storm's track towards a coast."""
    canvas = Canvas(seed)
    canvas.fill((0.62, 0.78, 0.88))
    _, y = grid()
    x, _ = grid()
    land = smooth(0.0, 0.012, (0.36 + 0.22 * (y - 0.5) + 0.30 * (noise(canvas.rng, 4) - 0.5)) - x)
    canvas.fill((0.86, 0.85, 0.73), land)
    canvas.fill((0.45, 0.52, 0.52), land * (1 - smooth(0.5, 1, land)) * 2)
    track = [(640, 430), (580, 372), (515, 318), (420, 262), (330, 196), (235, 120)]
    upper = [(px - (10 + i * 13), py - (8 + i * 7)) for i, (px, py) in enumerate(track)]
    lower = [(px + (2 + i * 9), py + (8 + i * 13)) for i, (px, py) in enumerate(track)]
    canvas.polygon([*upper, *lower[::-1]], (1, 1, 1), alpha=0.65)
    canvas.line(track, (0.20, 0.20, 0.22), 4)
    for (px, py), tone in zip(
        track,
        (
            (0.98, 0.85, 0.2),
            (0.98, 0.65, 0.15),
            (0.92, 0.3, 0.15),
            (0.78, 0.1, 0.35),
            (0.92, 0.3, 0.15),
            (0.98, 0.85, 0.2),
        ),
        strict=True,
    ):
        canvas.ellipse(px, py, 15, 15, (0.15, 0.15, 0.15))
        canvas.ellipse(px, py, 12, 12, tone)
    image = _whole(canvas)
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, WIDTH, 62), fill=(22, 58, 98))
    draw.text((18, 10), "HURRICANE ODELIA  Forecast track", font=_font(36), fill="white")
    for (px, py), label in zip(
        track, ("Mon 06h", "Mon 18h", "Tue 06h  CAT 2", "Tue 18h  CAT 3", "Wed 06h", "Wed 18h"), strict=True
    ):
        draw.text((px + 22, py - 14), label, font=_font(23), fill=(25, 25, 30))
    for place, spot in (("Port Maren", (118, 240)), ("Caldrin Bay", (60, 380)), ("Valdorena", (40, 130))):
        draw.ellipse((spot[0] - 12, spot[1] + 9, spot[0] - 3, spot[1] + 18), fill=(40, 40, 40))
        draw.text(spot, place, font=_font(24), fill=(50, 45, 40))
    draw.rectangle((0, 470, WIDTH, HEIGHT), fill=(244, 244, 240))
    draw.text((18, 476), "Max wind 185 km/h   Surge 2-3 m   Next update 21:00", font=_font(26), fill=(30, 30, 30))
    return image.resize((WIDTH // 2, HEIGHT // 2), Image.Resampling.LANCZOS)


def notice(seed: int) -> Image.Image:
    """A notice lists shelters and numbers to call."""
    canvas = Canvas(seed)
    canvas.fill(np.asarray((0.96, 0.95, 0.92)) * (0.98 + 0.04 * noise(canvas.rng, 8)[..., None]))
    image = _whole(canvas)
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, WIDTH, 96), fill=(196, 60, 30))
    draw.text((26, 18), "EVACUATION INFORMATION", font=_font(50), fill="white")
    lines = (
        "Zone B and C: leave before 18:00 today",
        "Shelters open: Larkenfield School,",
        "   Tamsin Road Hall, Ostrel Arena",
        "Road 14 closed. Use Road 9 north.",
        "Bring water, medicine, documents",
        "Information line: 000-0144",
    )
    for row, line in enumerate(lines):
        top = 120 + row * 62
        if not line.startswith(" "):
            draw.polygon([(30, top + 8), (30, top + 36), (52, top + 22)], fill=(196, 60, 30))
        draw.text((68, top), line, font=_font(36), fill=(35, 35, 38))
    draw.rectangle((4, 4, WIDTH - 5, HEIGHT - 5), outline=(196, 60, 30), width=6)
    return image.resize((WIDTH // 2, HEIGHT // 2), Image.Resampling.LANCZOS)


def _whole(canvas: Canvas) -> Image.Image:
    return Image.fromarray((np.clip(canvas.pixels, 0, 1) * 255).astype(np.uint8))


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
