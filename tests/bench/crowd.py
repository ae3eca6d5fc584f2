"""Invented posts for load: urgent ones (damage, casualties) among others, half of them with a drawn picture."""

from __future__ import annotations

import io
import random
from dataclasses import dataclass

import numpy as np
from PIL import Image as Picture

from stream.records import Image, Post, encode

_PLACES = (
    "Harbour Road",
    "the old town",
    "Mill Street",
    "Northfield",
    "the river quarter",
    "Station Square",
    "Eastbank",
)
_URGENT = (
    "Bridge at {place} has collapsed, cars in the water",
    "Hospital roof in {place} torn off by the storm, power lines down",
    "At least {n} people killed and many injured in {place}",
    "{n} people missing since the flood reached {place}",
    "Houses destroyed along {place}, road gone, nobody gets through",
    "Earthquake: building down in {place}, {n} injured so far",
)
_OTHERS = (
    "Please donate blankets and drinking water, {place} collects until {n} tonight",
    "Volunteers wanted at the shelter in {place}, bring gloves",
    "Our thoughts are with everyone in {place} tonight",
    "The minister will speak about the storm in {place} at {n}",
    "Storm warning for {place} stays in force, says the weather service",
    "Listening to the new album all day long in {place}",
    "Great match last night in {place}, {n} goals and what an evening it was for everyone who came along",
    "Happy birthday to my sister in {place}!",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Crowd:
    """A mix of posts; the same seed gives the same posts."""

    urgent_share: float = 0.15
    image_share: float = 0.5
    tagged: bool = False  # urgent texts end in `[damage]`, for stubs
    seed: int = 0

    def texts(self, n_texts: int) -> list[str]:
        """Return texts alone."""
        chance = random.Random(self.seed)
        return [self._text(chance)[1] for _ in range(n_texts)]

    def posts(self, n_posts: int, *, name: str) -> list[bytes]:
        """Return posts as JSON; their ids begin with `urgent-` or `other-`."""
        chance = random.Random(self.seed)
        pictures = [_picture(chance.randrange(1 << 30)) for _ in range(24)]
        posts = []
        for number in range(n_posts):
            is_urgent, text = self._text(chance)
            images = [Image(data=chance.choice(pictures))] if chance.random() < self.image_share else []
            kind = "urgent" if is_urgent else "other"
            posts.append(encode(Post(id=f"{kind}-{name}-{number:06}", text=text, images=images, lang="en")))
        return posts

    def _text(self, chance: random.Random) -> tuple[bool, str]:
        is_urgent = chance.random() < self.urgent_share
        text = chance.choice(_URGENT if is_urgent else _OTHERS)
        text = text.format(place=chance.choice(_PLACES), n=chance.randrange(2, 90))
        return is_urgent, f"{text} [damage]" if is_urgent and self.tagged else text


def _picture(seed: int) -> bytes:
    """Return a JPEG of soft shapes, as large as a preview on a social network."""
    chance = np.random.default_rng(seed)
    small = Picture.fromarray(chance.integers(0, 256, (9, 12, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    small.resize((640, 480), Picture.Resampling.BICUBIC).save(buffer, format="JPEG", quality=80)
    return buffer.getvalue()
