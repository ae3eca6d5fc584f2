"""Draws the sample pictures anew, always the same; run `python -m deploy.samples.draw` after changing a scene."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Final

from PIL import Image

from deploy.samples import damage, hazards, ordinary, people, relief, ruins

IMAGES: Final = Path(__file__).resolve().parent / "images"
QUALITY: Final = 80
MAX_IMAGE_BYTES: Final = 25_000

SCENES: Final[dict[str, tuple[Callable[[int], Image.Image], int]]] = {
    "bridge-1": (damage.collapsed_bridge, 1),
    "bridge-2": (damage.collapsed_bridge, 2),
    "flood-1": (damage.flooded_street, 1),
    "flood-2": (damage.flooded_street, 2),
    "fire-1": (hazards.wildfire, 1),
    "fire-2": (hazards.wildfire, 2),
    "rubble-1": (ruins.collapsed_house, 1),
    "rubble-2": (ruins.collapsed_house, 2),
    "cracks-1": (ruins.cracked_house, 1),
    "cracks-2": (ruins.cracked_house, 2),
    "landslide-1": (hazards.landslide, 1),
    "landslide-2": (hazards.landslide, 4),
    "roofs-1": (hazards.torn_roofs, 1),
    "roofs-2": (hazards.torn_roofs, 2),
    "evacuees-1": (people.evacuees, 1),
    "evacuees-2": (people.evacuees, 5),
    "shelter-1": (people.shelter, 1),
    "tents-1": (relief.tents, 1),
    "parcels-1": (relief.parcels, 1),
    "rescue-1": (relief.rescue, 1),
    "concert-1": (ordinary.concert, 1),
    "beach-1": (ordinary.beach, 1),
    "dinner-1": (ordinary.dinner, 1),
    "lake-1": (ordinary.sunset_lake, 1),
    "map-1": (ordinary.storm_map, 1),
    "notice-1": (ordinary.notice, 1),
}


def draw(name: str) -> bytes:
    """Return a picture as JPEG; its bytes may differ between versions of Pillow, what it shows does not."""
    scene, seed = SCENES[name]
    image = scene(seed)
    quality = QUALITY
    while True:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=quality, optimize=True)
        if buffer.tell() <= MAX_IMAGE_BYTES:
            return buffer.getvalue()
        quality -= 4


def main() -> None:
    """Write every picture to the images folder."""
    IMAGES.mkdir(exist_ok=True)
    for name in SCENES:
        (IMAGES / f"{name}.jpg").write_bytes(draw(name))


if __name__ == "__main__":
    main()
