"""The pictures of the posts that the demo sent, for its page and overlays; forgets the oldest beyond a bound."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from PIL import Image

from deploy.overlay import picture_of
from deploy.sample_posts import SAMPLES_FOLDER
from stream.errors import ImageUnavailable, InvalidRecord
from stream.pixels import load_image, prepare_image
from stream.records import JSON, Finding, Origin, decode_post

_MAX_POSTS: Final = 600
_EDGE: Final = 640
_MAX_PIXELS: Final = 50_000_000
_MAX_BYTES: Final = 8_388_608


class Gallery:
    """Posts with pictures by the record they went out in, and their pictures by finding id."""

    def __init__(self) -> None:
        self._posts: OrderedDict[tuple[int, int], tuple[bytes, str]] = OrderedDict()
        self._pictures: dict[str, Image.Image] = {}

    def remember(self, partition: int, offset: int, value: bytes, content_type: str = JSON) -> None:
        """Keep a post that was sent."""
        self._posts[partition, offset] = (value, content_type)
        if len(self._posts) > _MAX_POSTS:
            self._posts.popitem(last=False)

    def picture(self, finding: Finding) -> Image.Image | None:
        """Return the picture that the finding's image rationale is about, down-scaled; None when it is not here."""
        rationale = finding.image_rationale
        if rationale is None:
            return None
        if finding.id not in self._pictures:
            try:
                data = self._data(finding.origin, rationale.index)
                if data is None:
                    return None
                prepared = prepare_image(data, index=rationale.index, edge=_EDGE, max_pixels=_MAX_PIXELS)
            except ImageUnavailable:
                return None
            self._pictures[finding.id] = picture_of(prepared)
        return self._pictures[finding.id]

    def _data(self, origin: Origin, index: int) -> bytes | None:
        value, content_type = self._posts.get((origin.partition, origin.offset), (b"", JSON))
        try:
            post = decode_post(value, content_type=content_type, max_bytes=len(value))
        except InvalidRecord:
            return None
        if index >= len(post.images):
            return None
        return load_image(post.images[index], folder=SAMPLES_FOLDER, max_bytes=_MAX_BYTES)
