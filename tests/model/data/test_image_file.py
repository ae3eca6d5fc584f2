"""A picture file has the pixels that a worker would give the classifier, whatever its kind."""

import struct
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image, PngImagePlugin

from model.data.image_file import read_image
from stream.pixels import prepare_image

LARGE = (1600, 1200)


def picture(size: tuple[int, int] = (40, 30), mode: str = "RGB") -> Image.Image:
    """Colours that run, and an edge that a filter would ring at."""
    ramp = Image.linear_gradient("L").resize(size)
    image = Image.merge("RGB", (ramp, ramp.rotate(180), Image.new("L", size, 90)))
    image.paste("red", (0, 0, size[0] // 3, size[1] // 3))
    if mode in ("RGBA", "LA"):
        image.putalpha(ramp)
    if mode == "P":
        return image.convert("P", palette=Image.Palette.ADAPTIVE)
    return image.convert(mode)


def numbers(low: float, high: float, kind: str) -> Image.Image:
    """A grey picture of numbers in no known range."""
    return Image.fromarray(np.linspace(low, high, 600 * 500).reshape(500, 600).astype(kind))


def saved(image: Image.Image, name: str, **options: Any) -> bytes:
    buffer = BytesIO()
    image.save(buffer, name, **options)
    return buffer.getvalue()


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    return exif


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: saved(picture(), "PNG"), id="small"),
        pytest.param(lambda: saved(picture(), "PNG", exif=turned(6)), id="small, turned"),
        pytest.param(lambda: saved(picture(mode="RGBA"), "PNG"), id="transparent"),
        pytest.param(lambda: saved(picture(mode="P"), "PNG"), id="palette"),
        pytest.param(lambda: saved(picture(LARGE), "JPEG"), id="large"),
        pytest.param(lambda: saved(picture(LARGE), "JPEG", progressive=True, quality=60), id="large, progressive"),
        pytest.param(lambda: saved(picture(LARGE, "CMYK"), "JPEG"), id="large, CMYK"),
        pytest.param(lambda: saved(picture(LARGE, "L"), "JPEG"), id="large, grey"),
        pytest.param(lambda: saved(picture(LARGE), "JPEG", exif=turned(8)), id="large, turned"),
        pytest.param(lambda: saved(picture((1601, 397)), "JPEG"), id="odd"),
        pytest.param(lambda: saved(picture((9000, 3)), "PNG"), id="strip"),
        pytest.param(lambda: saved(picture(LARGE, "RGBA"), "WEBP"), id="large, transparent"),
        pytest.param(lambda: saved(picture(LARGE, "LA"), "PNG"), id="large, grey, transparent"),
        pytest.param(lambda: saved(picture(LARGE, "P"), "PNG", transparency=3), id="large, transparent palette"),
        pytest.param(lambda: saved(picture(LARGE, "P"), "GIF"), id="large, GIF"),
        pytest.param(lambda: saved(picture(LARGE, "1"), "TIFF"), id="large, black and white"),
        pytest.param(lambda: saved(numbers(0, 65_535, "uint16"), "PNG"), id="16 bits"),
        pytest.param(lambda: saved(numbers(0, 65_535, "uint16"), "TIFF"), id="16 bits, TIFF"),
        pytest.param(lambda: saved(numbers(-1000, 70_000, "int32"), "TIFF"), id="32 bits"),
        pytest.param(lambda: saved(numbers(-0.5, 0.5, "float32"), "TIFF"), id="floats"),
        pytest.param(lambda: saved(numbers(7, 7, "float32"), "TIFF"), id="one float"),
    ],
)
def test_picture_of_a_table_is_the_one_that_a_worker_prepares(make: Callable[[], bytes], tmp_path: Path) -> None:
    """Training and evaluation must see the pixels that are classified later, to the last byte."""
    data = make()
    (tmp_path / "a").write_bytes(data)

    pixels = read_image(tmp_path / "a")

    served = prepare_image(data, index=0, edge=384, max_pixels=10_000_000)
    assert pixels.shape == (served.height, served.width, 3)
    assert pixels.tobytes() == served.pixels


def test_broken_metadata_does_not_cost_the_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a worker; Pillow fails at it in many ways."""
    picture().save(tmp_path / "a.png")
    upright = read_image(tmp_path / "a.png")

    def broken(image: Image.Image) -> Image.Exif:
        raise struct.error("unpack requires a buffer of 2 bytes")

    monkeypatch.setattr(PngImagePlugin.PngImageFile, "getexif", broken)
    assert np.array_equal(read_image(tmp_path / "a.png"), upright)
