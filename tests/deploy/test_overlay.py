"""The picture with its evidence over it."""

from __future__ import annotations

from PIL import Image

from deploy.overlay import MAX_EDGE, draw_overlay, relative
from tests.deploy.findings import make_finding

RATIONALE = make_finding(picture=True).image_rationale
assert RATIONALE is not None


def test_heat_and_outline_lie_on_the_selected_patch() -> None:
    """Grey picture, the last of eight patches selected."""
    drawn = draw_overlay(Image.new("RGB", (400, 200), (128, 128, 128)), RATIONALE)

    assert drawn.size == (400, 200)
    assert drawn.getpixel((50, 50)) == (128, 128, 128)
    red, green, blue = drawn.getpixel((370, 170))  # type: ignore[misc]
    assert red > green + 50 > blue
    assert drawn.getpixel((301, 150)) == (255, 221, 51)


def test_picture_may_be_smaller_than_the_original() -> None:
    """Boxes are in the original's pixels; the picture drawn on is a thumbnail of it."""
    drawn = draw_overlay(Image.new("RGB", (100, 50)), RATIONALE)

    assert drawn.size == (100, 50)
    assert drawn.getpixel((76, 40)) == (255, 221, 51)


def test_large_picture_is_scaled_down() -> None:
    """An overlay is for looking at."""
    assert max(draw_overlay(Image.new("RGB", (4_000, 2_000)), RATIONALE).size) == MAX_EDGE


def test_given_picture_is_not_changed() -> None:
    """The caller may draw on it again."""
    picture = Image.new("RGB", (400, 200))
    before = picture.tobytes()

    draw_overlay(picture, RATIONALE)

    assert picture.tobytes() == before


def test_scores_are_stretched() -> None:
    """Faint differences show; no difference shows nothing."""
    assert relative([0.2, 0.3, 0.4]) == [0.0, 0.4999999999999999, 1.0]
    assert relative([0.5, 0.5]) == [0.0, 0.0]
    assert relative([]) == []
