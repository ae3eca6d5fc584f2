"""A picture file has the pixels that a worker would give the classifier, whatever its kind."""

import struct
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from model.data.image_file import read_image
from stream.pixels import prepare_image


def picture(kind: str) -> Image.Image:
    left = Image.new("RGB", (40, 30), "white")
    left.paste("red", (0, 0, 12, 9))
    if kind == "transparent":
        left.putalpha(Image.linear_gradient("L").resize((40, 30)))
    if kind == "palette":
        return left.convert("P", palette=Image.Palette.ADAPTIVE)
    if kind == "16 bits":
        return Image.fromarray(np.linspace(0, 65_535, 1_200, dtype=np.uint16).reshape(30, 40))
    return left


@pytest.mark.parametrize("kind", ["plain", "turned", "transparent", "palette", "16 bits"])
def test_picture_of_a_table_is_the_one_that_a_worker_prepares(kind: str, tmp_path: Path) -> None:
    """Training and evaluation must see the pixels that are classified later."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6 if kind == "turned" else 1
    buffer = BytesIO()
    picture(kind).save(buffer, "PNG", exif=exif)
    (tmp_path / "a.png").write_bytes(buffer.getvalue())

    pixels = read_image(tmp_path / "a.png")

    served = prepare_image(buffer.getvalue(), index=0, edge=384, max_pixels=10_000)
    assert pixels.shape == (served.height, served.width, 3)
    assert pixels.tobytes() == served.pixels


def test_broken_metadata_does_not_cost_the_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a worker; Pillow fails at it in many ways."""
    picture("plain").save(tmp_path / "a.png")
    upright = read_image(tmp_path / "a.png")

    def broken(image: Image.Image) -> Image.Image:
        raise struct.error("unpack requires a buffer of 2 bytes")

    monkeypatch.setattr("model.data.image_file.ImageOps.exif_transpose", broken)
    assert np.array_equal(read_image(tmp_path / "a.png"), upright)
