"""Untrusted images: what is usable comes out upright and small, all else is told apart."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow

from stream.errors import ImageUnavailable
from stream.pixels import REASONS, load_image, prepare_image
from stream.records import Image, PreparedImage
from tests.stream import pictures
from tests.stream.pictures import BLUE, RED, halves, jpeg_segment, png, saved, scan_bomb, turned

MAX_PIXELS = 1_000_000


def prepare(data: bytes, *, edge: int = 384, max_pixels: int = MAX_PIXELS) -> PreparedImage:
    return prepare_image(data, index=1, edge=edge, max_pixels=max_pixels)


def pixel(image: PreparedImage, x: int, y: int) -> tuple[int, int, int]:
    start = (y * image.width + x) * 3
    red, green, blue = image.pixels[start : start + 3]
    return red, green, blue


def like(seen: tuple[int, int, int], wanted: tuple[int, int, int], tolerance: int = 8) -> bool:
    return all(abs(a - b) <= tolerance for a, b in zip(seen, wanted, strict=True))


def corners(image: PreparedImage) -> list[tuple[int, int, int]]:
    right, bottom = image.width - 1, image.height - 1
    return [pixel(image, x, y) for x, y in ((0, 0), (right, 0), (0, bottom), (right, bottom))]


@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_picture_comes_out_as_rgb_rows(format_name: str) -> None:
    image = prepare(saved(halves(), format_name))
    assert (image.index, image.width, image.height) == (1, 40, 20)
    assert (image.original_width, image.original_height) == (40, 20)
    assert len(image.pixels) == 40 * 20 * 3
    assert all(like(seen, wanted) for seen, wanted in zip(corners(image), [RED, BLUE, RED, BLUE], strict=True))


@pytest.mark.parametrize(
    ("width", "height", "small"),
    [
        pytest.param(200, 100, (64, 32), id="wide"),
        pytest.param(100, 200, (32, 64), id="high"),
        pytest.param(64, 64, (64, 64), id="just fits"),
        pytest.param(3, 2, (3, 2), id="never enlarged"),
        pytest.param(1, 1, (1, 1), id="one pixel"),
        pytest.param(20_000, 1, (64, 1), id="a line"),
        pytest.param(1, 20_000, (1, 64), id="a column"),
    ],
)
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_longest_edge_is_bounded(width: int, height: int, small: tuple[int, int], mode: str) -> None:
    image = prepare(saved(Pillow.new(mode, (width, height), "red"), "PNG"), edge=64)
    assert (image.width, image.height) == small
    assert (image.original_width, image.original_height) == (width, height)
    assert set(corners(image)) == {RED}


def test_large_jpeg_keeps_its_parts_in_place() -> None:
    """JPEG is decoded at a fraction of its size; the reported size stays the original one."""
    image = prepare(saved(halves(1600, 400), "JPEG"), edge=100)
    assert (image.width, image.height, image.original_width, image.original_height) == (100, 25, 1600, 400)
    assert like(pixel(image, 45, 12), RED) and like(pixel(image, 55, 12), BLUE)


@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize(
    ("orientation", "wanted"),
    [
        (1, [RED, BLUE, RED, BLUE]),
        (2, [BLUE, RED, BLUE, RED]),
        (3, [BLUE, RED, BLUE, RED]),
        (4, [RED, BLUE, RED, BLUE]),
        (5, [RED, RED, BLUE, BLUE]),
        (6, [RED, RED, BLUE, BLUE]),
        (7, [BLUE, BLUE, RED, RED]),
        (8, [BLUE, BLUE, RED, RED]),
    ],
)
def test_picture_is_turned_as_exif_says(format_name: str, orientation: int, wanted: list[Any]) -> None:
    image = prepare(turned(orientation, format_name))
    size = (20, 40) if orientation > 4 else (40, 20)
    assert (image.width, image.height) == (image.original_width, image.original_height) == size
    assert all(like(seen, colour) for seen, colour in zip(corners(image), wanted, strict=True))


def test_turned_and_shrunk_picture_reports_its_upright_size() -> None:
    exif = Pillow.Exif()
    exif[274] = 6
    image = prepare(saved(halves(400, 200), "JPEG", exif=exif), edge=40)
    assert (image.width, image.height, image.original_width, image.original_height) == (20, 40, 200, 400)


@pytest.mark.parametrize("orientation", [0, 9, 65_535])
def test_senseless_orientation_is_ignored(orientation: int) -> None:
    assert like(corners(prepare(turned(orientation)))[0], RED)


def grey(value: int, mode: str) -> Pillow.Image:
    return Pillow.new(mode, (4, 4), value)


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        pytest.param(saved(halves(mode="CMYK"), "JPEG"), RED, id="CMYK JPEG"),
        pytest.param(saved(halves(mode="CMYK"), "TIFF"), RED, id="CMYK TIFF"),
        pytest.param(saved(halves(mode="P"), "PNG"), RED, id="palette"),
        pytest.param(saved(halves(mode="L"), "JPEG"), (76, 76, 76), id="grey"),
        pytest.param(saved(Pillow.new("1", (4, 4), 1), "PNG"), (255, 255, 255), id="1 bit"),
        pytest.param(saved(grey(0x8080, "I;16"), "PNG"), (128, 128, 128), id="16-bit grey PNG"),
        pytest.param(saved(grey(0xFFFF, "I;16"), "TIFF"), (255, 255, 255), id="16-bit grey TIFF"),
        pytest.param(png(1, 1, pixels=b"\x00" + b"\xff\xff\x00\x00\x00\x00", depth=16), RED, id="16-bit RGB PNG"),
        pytest.param(saved(Pillow.new("RGBA", (4, 4), (255, 0, 0, 0)), "PNG"), (255, 255, 255), id="transparent"),
        pytest.param(saved(Pillow.new("RGBA", (4, 4), (0, 0, 0, 128)), "WEBP", lossless=True), (127,) * 3, id="half"),
        pytest.param(saved(Pillow.new("LA", (4, 4), (0, 0)), "PNG"), (255, 255, 255), id="grey and alpha"),
        pytest.param(saved(halves(), "PNG", transparency=RED), (255, 255, 255), id="RGB with a transparent colour"),
        pytest.param(saved(halves(mode="P"), "GIF", transparency=0), None, id="GIF with a transparent index"),
    ],
)
def test_every_kind_of_pixel_becomes_rgb_on_white(data: bytes, wanted: tuple[int, int, int] | None) -> None:
    image = prepare(data)
    assert len(image.pixels) == image.width * image.height * 3
    if wanted is not None:
        assert like(pixel(image, 0, 0), wanted)


def test_values_without_a_known_range_are_stretched() -> None:
    picture = Pillow.new("F", (2, 1), -5.0)
    picture.putpixel((1, 0), 5.0)
    image = prepare(saved(picture, "TIFF"))
    assert [pixel(image, 0, 0), pixel(image, 1, 0)] == [(0, 0, 0), (255, 255, 255)]


@pytest.mark.parametrize("format_name", ["GIF", "WEBP", "PNG", "TIFF"])
def test_first_frame_of_an_animation_counts(format_name: str) -> None:
    frames = [Pillow.new("RGB", (8, 8), colour) for colour in (RED, BLUE, BLUE)]
    data = saved(frames[0], format_name, save_all=True, append_images=frames[1:])
    assert like(pixel(prepare(data), 0, 0), RED)


def test_metadata_are_left_behind() -> None:
    """A prepared image has pixels and sizes, nothing else: no place, no camera, no thumbnail."""
    exif = Pillow.Exif()
    exif[0x010F] = "maker"
    plain, tagged = saved(halves(), "PNG"), saved(halves(), "PNG", exif=exif)
    assert prepare(plain) == prepare(tagged)


JPEG = saved(halves(200, 200), "JPEG")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        pytest.param(b"", "empty", id="zero bytes"),
        pytest.param(b"\x00", "unsupported_format", id="one byte"),
        pytest.param(b"\x00" * 1_000, "unsupported_format", id="undecodable bytes"),
        pytest.param(pictures.HEIC, "unsupported_format", id="HEIC"),
        pytest.param(pictures.SVG, "unsupported_format", id="SVG"),
        pytest.param(saved(halves(), "PDF"), "unsupported_format", id="PDF"),
        pytest.param(saved(halves(), "ICO"), "unsupported_format", id="ICO"),
        pytest.param(b"RIFF\x00\x00\x00\x00WAVEfmt ", "unsupported_format", id="WAV"),
        pytest.param(JPEG[:3], "unreadable", id="signature only"),
        pytest.param(JPEG[:30], "truncated", id="JPEG header cut off"),
        pytest.param(JPEG[: len(JPEG) // 2], "truncated", id="truncated JPEG"),
        pytest.param(png(100, 100, pixels=b"\x00" * 500), "truncated", id="PNG without all its rows"),
        pytest.param(png(0, 0), "unreadable", id="PNG of no size"),
        pytest.param(png(2, 2, pixels=b"\x00" * 14, depth=7), "unreadable", id="PNG of 7 bits"),
        pytest.param(pictures.text_bomb(), "unreadable", id="PNG text bomb"),
        pytest.param(png(40_000, 40_000, pixels=b"\x00" * 1_000), "too_many_pixels", id="PNG of 1.6 gigapixels"),
        pytest.param(png(2**31 - 1, 2**31 - 1), "too_many_pixels", id="PNG of 4 exapixels"),
        pytest.param(png(10_000, 10_000), "too_many_pixels", id="PNG that Pillow warns of"),
        pytest.param(png(1_001, 1_000), "too_many_pixels", id="PNG just too large"),
        pytest.param(pictures.gif_with_large_frame(), "too_many_pixels", id="GIF frame larger than its canvas"),
        pytest.param(pictures.webp_canvas(16_384, 16_384), "too_many_pixels", id="WebP canvas"),
        pytest.param(scan_bomb(1_000, 1_000, n_scans=15), "too_many_scans", id="JPEG of 21 scans"),
        pytest.param(scan_bomb(1, 8_000, n_scans=400), "too_many_scans", id="JPEG whose blocks are mostly padding"),
    ],
)
def test_unusable_image_is_refused_with_its_reason(data: bytes, reason: str) -> None:
    with pytest.raises(ImageUnavailable) as error:
        prepare(data)
    assert error.value.reason == reason
    assert reason in REASONS and str(error.value)


@pytest.mark.parametrize(
    ("data", "reason"),
    [(saved(halves(20, 20), "PNG"), "too_many_pixels"), (scan_bomb(16, 16, n_scans=99), "too_many_scans")],
)
def test_size_and_scans_are_checked_before_decoding(monkeypatch: pytest.MonkeyPatch, data: bytes, reason: str) -> None:
    def decode(*_: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", decode)
    with pytest.raises(ImageUnavailable) as error:
        prepare(data, max_pixels=399)
    assert error.value.reason == reason


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("options", [{}, {"restart_marker_blocks": 1}])
def test_scans_that_encoders_write_are_no_reason_to_refuse(mode: str, options: dict[str, int]) -> None:
    image = prepare(saved(halves(200, 200, mode), "JPEG", progressive=True, **options), max_pixels=40_000)
    assert (image.width, image.height) == (200, 200)


def test_smaller_picture_may_have_more_scans() -> None:
    assert prepare(scan_bomb(480, 480, n_scans=74)).width == 384
    with pytest.raises(ImageUnavailable, match="81 scans, over the limit of 80 "):
        prepare(scan_bomb(480, 480, n_scans=75))


BOMB = scan_bomb(16, 16, n_scans=100)


def test_scans_of_a_thumbnail_and_after_the_end_do_not_count() -> None:
    sound = saved(halves(), "JPEG")
    tagged = sound[:2] + jpeg_segment(0xE1, b"Exif\x00\x00" + BOMB) + sound[2:]
    assert prepare(tagged + BOMB, max_pixels=1_000).width == 40


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(BOMB[:2] + jpeg_segment(0xE1, b"Exif\x00\x00" + JPEG) + BOMB[2:], id="thumbnail with an end"),
        pytest.param(BOMB[:2] + jpeg_segment(0xFE, b"\xff\xd9") + BOMB[2:], id="comment with an end"),
        pytest.param(BOMB.replace(b"\xff\xda", b"\xff\xff\xff\xda"), id="fill before markers"),
        pytest.param(BOMB.replace(b"\xff\xda", b"\xff\xd0\xff\xda"), id="restarts before scans"),
        pytest.param(BOMB.replace(b"\xff\xda", b"\xff\xe0\x00\x00\xff\xda"), id="segments of no length"),
    ],
)
def test_scans_cannot_be_hidden(data: bytes) -> None:
    with pytest.raises(ImageUnavailable) as error:
        prepare(data, max_pixels=1_000)
    assert error.value.reason == "too_many_scans"


@given(st.integers(1, 200), st.integers(1, 200), st.integers(1, 100))
def test_proportions_are_kept(width: int, height: int, edge: int) -> None:
    image = prepare(saved(Pillow.new("RGB", (width, height)), "BMP"), edge=edge)
    longest, shortest = max(image.width, image.height), min(image.width, image.height)
    assert longest == min(edge, max(width, height))
    scale = longest / max(width, height)
    assert abs(shortest - min(width, height) * scale) <= 1
    assert len(image.pixels) == image.width * image.height * 3


# -- where the bytes come from


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    inside = tmp_path / "images"
    (inside / "deep").mkdir(parents=True)
    (inside / "a.jpg").write_bytes(b"aaaa")
    (inside / "deep" / "b.jpg").write_bytes(b"bb")
    (inside / "none.jpg").write_bytes(b"")
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    (tmp_path / "images-2").mkdir()
    (tmp_path / "images-2" / "c.jpg").write_bytes(b"c")
    (inside / "out.jpg").symlink_to(tmp_path / "secret.jpg")
    (inside / "up").symlink_to(tmp_path)
    (inside / "within.jpg").symlink_to(inside / "a.jpg")
    (inside / "loop.jpg").symlink_to(inside / "loop.jpg")
    os.mkfifo(inside / "pipe.jpg")
    return inside


@pytest.mark.parametrize(
    ("path", "data"), [("a.jpg", b"aaaa"), ("deep/b.jpg", b"bb"), ("./deep//b.jpg", b"bb"), ("within.jpg", b"aaaa")]
)
def test_file_below_the_folder_is_read(folder: Path, path: str, data: bytes) -> None:
    assert load_image(Image(path=path), folder=folder, max_bytes=4) == data


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("../secret.jpg", "not_allowed"),
        ("deep/../../secret.jpg", "not_allowed"),
        ("deep/../a.jpg", "not_allowed"),
        ("../images-2/c.jpg", "not_allowed"),
        ("/etc/passwd", "not_allowed"),
        ("out.jpg", "not_allowed"),
        ("up/secret.jpg", "not_allowed"),
        ("loop.jpg", "not_allowed"),
        ("pipe.jpg", "not_allowed"),
        ("deep", "not_allowed"),
        (".", "not_allowed"),
        ("a\x00.jpg", "not_allowed"),
        ("~/a.jpg", "not_found"),
        ("missing.jpg", "not_found"),
        ("a.jpg/b", "not_found"),
        ("x" * 1_000, "not_allowed"),
        ("none.jpg", "empty"),
    ],
)
def test_path_that_leads_elsewhere_is_refused(folder: Path, path: str, reason: str) -> None:
    with pytest.raises(ImageUnavailable) as error:
        load_image(Image(path=path), folder=folder, max_bytes=100)
    assert error.value.reason == reason


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (Image(), "empty"),
        (Image(data=b""), "empty"),
        (Image(data=b"12345"), "too_many_bytes"),
        (Image(path="a.jpg"), "not_allowed"),
        (Image(url="http://127.0.0.1/a.jpg"), "url_not_fetched"),
        (Image(url="file:///etc/passwd"), "url_not_fetched"),
    ],
)
def test_image_without_allowed_bytes_is_refused(image: Image, reason: str) -> None:
    with pytest.raises(ImageUnavailable) as error:
        load_image(image, folder=None, max_bytes=4)
    assert error.value.reason == reason


def test_large_file_is_not_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (folder / "huge.jpg").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(ImageUnavailable) as error:
        load_image(Image(path="huge.jpg"), folder=folder, max_bytes=1_000)
    assert error.value.reason == "too_many_bytes"


def test_inline_bytes_win_over_a_path(folder: Path) -> None:
    assert load_image(Image(data=b"d", path="../secret.jpg"), folder=folder, max_bytes=9) == b"d"
