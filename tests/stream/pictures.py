"""Image files made by hand or by Pillow, sound and hostile."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO
from typing import Any

from PIL import ExifTags
from PIL import Image as Pillow

RED, BLUE = (255, 0, 0), (0, 0, 255)
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
HEIC = b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic" + bytes(200)
SVG = b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"></svg>'


def saved(picture: Pillow.Image, format_name: str, **options: Any) -> bytes:
    """Return the picture as a file's bytes."""
    file = BytesIO()
    picture.save(file, format_name, **options)
    return file.getvalue()


def halves(width: int = 40, height: int = 20, mode: str = "RGB") -> Pillow.Image:
    """Return a picture whose left half is red and whose right half is blue."""
    picture = Pillow.new("RGB", (width, height), RED)
    picture.paste(BLUE, (width // 2, 0, width, height))
    return picture.convert(mode)


def turned(orientation: int, format_name: str = "PNG") -> bytes:
    """Return `halves` as a file whose EXIF data say how to turn it."""
    exif = Pillow.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    return saved(halves(), format_name, exif=exif)


def png(width: int, height: int, *, pixels: bytes = b"", extra: bytes = b"", depth: int = 8, kind: int = 2) -> bytes:
    """Return a PNG that claims a size and holds what it is given."""
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    body = png_chunk(b"IDAT", zlib.compress(pixels))
    return PNG_SIGNATURE + png_chunk(b"IHDR", header) + extra + body + png_chunk(b"IEND", b"")


def png_chunk(name: bytes, data: bytes) -> bytes:
    """Return one chunk with its length and checksum."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def text_bomb() -> bytes:
    """Return a sound 1x1 PNG with a comment that inflates to 50 MB."""
    return png(
        1, 1, pixels=b"\x00\x01\x02\x03", extra=png_chunk(b"zTXt", b"a\x00\x00" + zlib.compress(bytes(50 * 2**20)))
    )


def gif_with_large_frame() -> bytes:
    """Return a GIF of 1x1 whose first frame claims 65535x65535."""
    frame = b"\x2c" + struct.pack("<HHHHB", 0, 0, 65535, 65535, 0)
    palette = b"\x00\x00\x00\xff\xff\xff"
    return b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0x80, 0, 0) + palette + frame + b"\x02\x02\x44\x01\x00\x3b"


def webp_canvas(width: int, height: int) -> bytes:
    """Return the head of a WebP that claims a canvas."""
    size = struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    body = b"WEBPVP8X" + struct.pack("<I", 10) + bytes(4) + size + b"VP8L"
    return b"RIFF" + struct.pack("<I", len(body)) + body


def scan_bomb(width: int = 4_000, height: int = 4_000, *, n_scans: int = 400) -> bytes:
    """Return a small progressive JPEG that repeats its sixth and last scan, so that it takes seconds to decode."""
    data = saved(Pillow.new("L", (width, height), 128), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    tables = data.rindex(b"\xff\xc4", 0, last)
    scan = data[max(tables, data.rindex(b"\xff\xda", 0, last)) : -2]
    return data[:-2] + scan * n_scans + data[-2:]


def jpeg_segment(marker: int, data: bytes) -> bytes:
    """Return one segment with its length."""
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data
