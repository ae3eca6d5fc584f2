"""Images scaled in a stack are what Pillow makes of them one by one, blanked before they are scaled."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from model.patches import blank_others
from model.scaling import Filter, ImageStack
from tests.model.conftest import noise

_FILTERS: dict[Filter, Image.Resampling] = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}
_SHAPES = ((384, 288), (90, 300), (64, 64), (40, 20), (2, 90))
_SIZE_PX, _SIDE = 64, 4


@pytest.mark.parametrize("kind", _FILTERS)
def test_whole_and_blanked_images_are_within_a_grey_level_of_pillow(kind: Filter) -> None:
    images = [noise(height, width, seed=height) for height, width in _SHAPES]
    stack = ImageStack.of(images, size_px=_SIZE_PX, grid=(_SIDE, _SIDE), kind=kind, device="cpu")
    keep = torch.rand(len(images), _SIDE**2, generator=torch.Generator().manual_seed(0)) < 0.3
    for levels, shown in ((stack.scaled(), torch.ones_like(keep)), (stack.scaled(keep), keep)):
        for index, image in enumerate(images):
            blanked = blank_others(image, _SIDE, _SIDE, shown[index].nonzero()[:, 0].tolist())
            resized = Image.fromarray(blanked).resize((_SIZE_PX, _SIZE_PX), _FILTERS[kind])
            theirs = np.asarray(resized, dtype=np.float32).transpose(2, 0, 1)
            assert np.abs(levels[index].numpy() - theirs).max() <= 1.0


def test_no_hidden_pixel_is_seen_over_a_patch_border() -> None:
    image, other = noise(150, 230), noise(150, 230, seed=1)
    keep = torch.zeros(1, _SIDE**2, dtype=torch.bool)
    keep[0, [1, 6, 15]] = True
    other = np.where(blank_others(image, _SIDE, _SIDE, [1, 6, 15]) == 127, other, image)
    first, second = (
        ImageStack.of([one], size_px=_SIZE_PX, grid=(_SIDE, _SIDE), kind="bicubic", device="cpu").scaled(keep)
        for one in (image, blank_with(image, other))
    )
    torch.testing.assert_close(first, second, rtol=0, atol=0)


def blank_with(image: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The image in its kept patches, another outside."""
    inside = np.zeros_like(image)
    inside[:] = blank_others(np.full_like(image, 1), _SIDE, _SIDE, [1, 6, 15])
    return np.where(inside == 1, image, other)
