"""Mutated records and images: whatever the bytes, the declared error or a sound value, never anything else.

Short by default; `FUZZ_SECONDS=600 pytest tests/stream/test_fuzz.py` goes on for ten minutes a test.
"""

# ruff: noqa: PT017, both ends are allowed here, and each is looked at
from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow

from stream.errors import ImageUnavailable, InvalidRecord
from stream.feeds import FeedError, read_feed
from stream.pixels import REASONS, load_image, prepare_image
from stream.records import (
    JSON,
    MSGPACK,
    Image,
    Post,
    decode_post,
    decode_prepared,
    encode,
    encode_prepared,
)
from tests.stream import strategies as some
from tests.stream.pictures import HEIC, SVG, gif_with_large_frame, halves, png, saved, text_bomb, turned

FUZZ_S = float(os.environ.get("FUZZ_SECONDS", "0"))
MAX_PIXELS = 250_000
MAX_BYTES = 100_000

Test = TypeVar("Test", bound=Callable[..., None])

RECORD_REASONS = {"empty_record", "record_too_large", "content_type", "undecodable", "invalid_field", "empty_post"}
IMAGES = [
    *(saved(halves(), format_name) for format_name in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")),
    saved(halves(120, 90), "JPEG", progressive=True, quality=30),
    saved(halves(mode="CMYK"), "JPEG"),
    saved(halves(mode="P"), "PNG", transparency=0),
    saved(halves(mode="RGBA"), "TIFF", compression="tiff_lzw"),
    saved(halves(mode="L"), "TIFF", compression="packbits"),
    saved(Pillow.new("I;16", (9, 9), 40_000), "PNG"),
    saved(Pillow.new("F", (9, 9), 0.5), "TIFF"),
    saved(halves(), "WEBP", save_all=True, append_images=[halves(mode="RGBA")]),
    saved(halves(), "GIF", save_all=True, append_images=[halves(20, 40)]),
    turned(6, "JPEG"),
    turned(8, "TIFF"),
    png(3, 3, pixels=b"\x00" * 30),
    gif_with_large_frame(),
    text_bomb()[:3_000],
    HEIC,
    SVG,
]


def fuzz(test: Test) -> Test:
    """Run the test on some examples, or, when asked for, on ever new ones for so long."""
    relaxed = {"deadline": None, "suppress_health_check": list(HealthCheck)}
    if not FUZZ_S:
        return settings(max_examples=150, **relaxed)(test)
    once = settings(max_examples=500, database=None, **relaxed)(test)

    @functools.wraps(once)
    def until_the_end(*args: Any, **kwargs: Any) -> None:
        end = time.monotonic() + FUZZ_S
        while time.monotonic() < end:
            once(*args, **kwargs)

    return pytest.mark.timeout(FUZZ_S + 120)(until_the_end)


@st.composite
def mutated(draw: st.DrawFn, originals: st.SearchStrategy[bytes]) -> bytes:
    """Bytes of a sound file with some overwritten, left out, put in, repeated or cut off."""
    data = bytearray(draw(originals))
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, len(data)))
        length = draw(st.integers(1, 16))
        match draw(st.sampled_from(["flip", "number", "drop", "insert", "repeat", "cut"])):
            case "flip" if at < len(data):
                data[at] ^= 1 << draw(st.integers(0, 7))
            case "number":
                data[at : at + 4] = draw(
                    st.sampled_from([b"\xff" * 4, b"\x00" * 4, b"\x7f\xff\xff\xff", b"\x00\x00\x40\x00"])
                )
            case "drop":
                del data[at : at + length]
            case "insert":
                data[at:at] = draw(st.binary(min_size=1, max_size=16))
            case "repeat":
                data[at:at] = bytes(data[at : at + length]) * draw(st.integers(1, 50))
            case "cut":
                del data[max(at, 1) :]
    return bytes(data)


def sound(decode: Callable[[], Any]) -> Any:
    """Return what is decoded, or None after the declared error."""
    try:
        return decode()
    except InvalidRecord as error:
        assert error.reason in RECORD_REASONS
        assert str(error)
        return None


CONTENT_TYPES: Sequence[str] = (JSON, MSGPACK)


@fuzz
@given(mutated(some.POSTS.map(encode) | some.POSTS.map(msgspec.msgpack.encode)), st.sampled_from(CONTENT_TYPES))
def test_mutated_post_is_a_post_or_invalid(value: bytes, content_type: str) -> None:
    post = sound(lambda: decode_post(value, content_type=content_type, max_bytes=MAX_BYTES))
    if post is not None:
        assert msgspec.convert(msgspec.to_builtins(post), Post) == post
        assert decode_post(encode(post), max_bytes=10 * MAX_BYTES) == post
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(post), type=Post) == post


@fuzz
@given(st.binary(max_size=200) | st.text(max_size=100).map(str.encode), st.sampled_from(CONTENT_TYPES))
def test_any_bytes_are_a_post_or_invalid(value: bytes, content_type: str) -> None:
    sound(lambda: decode_post(value, content_type=content_type, max_bytes=MAX_BYTES))


@fuzz
@given(mutated(some.PREPARED_POSTS.map(encode_prepared)))
def test_mutated_prepared_post_is_one_or_invalid(value: bytes) -> None:
    sound(lambda: decode_prepared(value))


@pytest.mark.filterwarnings("ignore:::PIL")
@fuzz
@given(mutated(st.sampled_from(IMAGES)), st.integers(1, 100))
def test_mutated_image_is_prepared_or_unavailable(data: bytes, edge: int) -> None:
    try:
        image = prepare_image(data, index=0, edge=edge, max_pixels=MAX_PIXELS)
    except ImageUnavailable as error:
        assert error.reason in REASONS
        assert str(error)
    else:
        assert max(image.width, image.height) <= edge
        assert image.original_width * image.original_height <= MAX_PIXELS
        assert len(image.pixels) == image.width * image.height * 3


@fuzz
@given(
    st.text(min_size=1, max_size=40)
    | st.lists(st.sampled_from(["..", ".", "/", "a", "", "~"]), min_size=1).map("/".join)
)
def test_no_path_leads_out_of_the_folder(tmp_path_factory: pytest.TempPathFactory, path: str) -> None:
    folder = tmp_path_factory.getbasetemp() / "fuzzed"
    (folder / "inside").mkdir(parents=True, exist_ok=True)
    (folder / "a").write_bytes(b"secret")
    (folder / "inside" / "a").write_bytes(b"public")
    try:
        assert load_image(Image(path=path or "a"), folder=folder / "inside", max_bytes=99) == b"public"
    except ImageUnavailable as error:
        assert error.reason in ("not_allowed", "not_found")


@fuzz
@given(mutated(st.just('post_id\timage\ttext\n1\ta.jpg\tone\n2\t\t"two"\n1\t\tä\n'.encode())))
def test_mutated_table_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    file: Path = tmp_path_factory.getbasetemp() / "fuzzed.tsv"
    file.write_bytes(content)
    try:
        keys = [record.key for record in read_feed(file)]
    except FeedError as error:
        assert "fuzzed.tsv" in str(error)
    else:
        assert len(set(keys)) == len(keys)
