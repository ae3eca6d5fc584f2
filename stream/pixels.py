"""Untrusted image bytes become small RGB pictures; nothing is ever fetched, and no global state changed."""

from __future__ import annotations

import os
import re
import stat
from io import BytesIO
from pathlib import Path
from typing import Final, Literal, cast, get_args

from PIL import ExifTags, ImageOps, UnidentifiedImageError
from PIL import Image as Pillow

from stream.errors import ImageUnavailable
from stream.records import Image, PreparedImage

Reason = Literal[
    "empty",
    "unsupported_format",
    "too_many_bytes",
    "too_many_pixels",
    "too_many_scans",
    "unreadable",
    "truncated",
    "out_of_memory",
    "url_not_fetched",
    "not_found",
    "not_allowed",
    "timeout",
    "crashed",
]
REASONS: Final[tuple[str, ...]] = get_args(Reason)

BYTES_PER_PIXEL: Final = 24  # while decoding: the picture, its conversion, the decoder's own buffers

SIGNATURES: Final[dict[str, tuple[bytes, ...]]] = {
    "JPEG": (b"\xff\xd8\xff",),
    "PNG": (b"\x89PNG\r\n\x1a\n",),
    "WEBP": (b"RIFF",),
    "GIF": (b"GIF87a", b"GIF89a"),
    "BMP": (b"BM",),
    "TIFF": (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+"),
}

_MAX_SCANS: Final = 20  # of a JPEG of `max_pixels`: 10 are usual, and 18 the most that libjpeg writes by itself
_JPEG_MARKER: Final = re.compile(rb"\xff[\xc0-\xcf\xd9-\xfe]")  # no stuffing, fill or restart: these have no length
_JPEG_END: Final = b"\xff\xd9"
_JPEG_SCAN: Final = b"\xff\xda"

_TURNED: Final = (5, 6, 7, 8)  # EXIF orientations that swap width and height


def prepare_image(data: bytes, *, index: int, edge: int, max_pixels: int) -> PreparedImage:
    """Return the picture in `data` as RGB pixels, its longest edge `edge` or less, turned as EXIF says.

    The size in the header and the scans of a JPEG are checked before anything is decoded. Of an animation the
    first frame counts; transparency is laid on white; metadata is left behind. Needs at most 24 bytes of memory
    for each of `max_pixels`, beside the data. Blocks, for as long as a hostile file makes it: use `ImagePool`.

    Raises:
        ImageUnavailable: the bytes are not a usable picture, whatever they are.
    """
    format_name = _format(data)
    try:
        with Pillow.open(BytesIO(data), formats=[format_name]) as picture:
            width, height = picture.size
            if width * height > max_pixels:
                raise _too_many_pixels(f"{width}x{height}", max_pixels)
            if format_name == "JPEG":
                _check_scans(data, width, height, max_pixels)
            scale = min(1.0, edge / max(width, height))
            size = (max(1, round(width * scale)), max(1, round(height * scale)))
            picture.draft(None, (size[0] * 2, size[1] * 2))  # JPEG only: skip detail while decoding
            picture.load()
            if picture.width * picture.height > max_pixels:
                raise _too_many_pixels(f"{picture.width}x{picture.height}", max_pixels)
            orientation = _orientation(picture)
            small = _to_rgb(picture)
        if small.size != size:
            # the gap lets Pillow average whole blocks first, which bounds memory for extreme shapes
            small = small.resize(size, Pillow.Resampling.BICUBIC, reducing_gap=3.0)
        if orientation != 1:
            small.getexif()[ExifTags.Base.Orientation] = orientation
            small = ImageOps.exif_transpose(small)
        if orientation in _TURNED:
            width, height = height, width
        return PreparedImage(
            index=index,
            width=small.width,
            height=small.height,
            original_width=width,
            original_height=height,
            pixels=small.tobytes(),
        )
    except ImageUnavailable:
        raise
    except (Pillow.DecompressionBombError, Pillow.DecompressionBombWarning) as error:
        raise ImageUnavailable("too_many_pixels", f"Pillow refuses the image: {error}") from error
    except MemoryError as error:
        raise ImageUnavailable("out_of_memory", f"no memory to decode {len(data)} bytes of {format_name}") from error
    except UnidentifiedImageError as error:
        raise ImageUnavailable("unreadable", f"the {format_name} header cannot be read: send a whole image") from error
    except Exception as error:  # hostile bytes make the decoders raise nearly anything
        reason = "truncated" if isinstance(error, EOFError) or "truncated" in str(error).lower() else "unreadable"
        message = f"the {format_name} image cannot be decoded: {type(error).__name__}: {error}"
        raise ImageUnavailable(reason, message) from error


def load_image(image: Image, *, folder: Path | None, max_bytes: int) -> bytes:
    """Return the image's bytes: those inline, else those of its path below `folder`; blocks on the disk.

    Raises:
        ImageUnavailable: there are none, or too many, or the path leads out of `folder`.
    """
    if image.data is not None:
        return _checked(image.data, max_bytes)
    if image.path is None:
        if image.url is None:
            raise ImageUnavailable("empty", "the image has neither data, path nor url: send its bytes")
        raise ImageUnavailable("url_not_fetched", f"images are not fetched: send the bytes of {image.url!r}")
    if folder is None:
        raise ImageUnavailable("not_allowed", f"no image folder is allowed: send the bytes of {image.path!r}")
    outside = ImageUnavailable("not_allowed", f"{image.path!r} is not a file below the image folder")
    relative = Path(image.path)
    if relative.is_absolute() or ".." in relative.parts:
        raise outside
    try:
        file = (folder / relative).resolve()
        if not file.is_relative_to(folder.resolve()):
            raise outside
        # opened once and examined open, so that nobody can swap the file in between; a pipe does not block
        descriptor = os.open(file, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
        with open(descriptor, "rb") as opened:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise outside
            if status.st_size > max_bytes:
                raise _too_many_bytes(status.st_size, max_bytes)
            return _checked(opened.read(max_bytes + 1), max_bytes)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ImageUnavailable("not_found", f"there is no file {image.path!r} below the image folder") from error
    except (OSError, ValueError, RuntimeError) as error:  # no access, a NUL in the name, a loop of links
        raise outside from error


def _format(data: bytes) -> str:
    if not data:
        raise ImageUnavailable("empty", "the image has no bytes")
    for name, signatures in SIGNATURES.items():
        if data.startswith(signatures) and (name != "WEBP" or data[8:12] == b"WEBP"):
            return name
    raise ImageUnavailable("unsupported_format", f"{data[:12]!r} begins none of {', '.join(SIGNATURES)}: convert it")


def _check_scans(data: bytes, width: int, height: int, max_pixels: int) -> None:
    """Refuse a JPEG that takes longer than its size can tell: each scan, of a few bytes maybe, walks all blocks again.

    So a smaller one may have more. The limit is worth about a second at 50 million pixels.
    """
    n_pixels = -(-width // 8) * -(-height // 8) * 64  # in whole blocks
    limit = _MAX_SCANS * max(1, max_pixels // n_pixels)
    n_scans = _n_scans(data)
    if n_scans > limit:
        message = f"the JPEG has {n_scans} scans, over the limit of {limit} for {width}x{height} pixels: save it anew"
        raise ImageUnavailable("too_many_scans", message)


def _n_scans(data: bytes) -> int:
    """Count a JPEG's scans as libjpeg meets them: none in a thumbnail, which is in a segment, or after the end."""
    n_scans = position = 0
    while (marker := _JPEG_MARKER.search(data, position)) and marker[0] != _JPEG_END:
        n_scans += marker[0] == _JPEG_SCAN
        position = marker.end() + max(2, int.from_bytes(data[marker.end() : marker.end() + 2]))
    return n_scans


def _orientation(picture: Pillow.Image) -> int:
    try:
        value = picture.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # broken metadata is no reason to lose the picture
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _to_rgb(picture: Pillow.Image) -> Pillow.Image:
    if picture.mode.startswith("I;16"):
        return picture.convert("I").point(lambda value: value * (1 / 256)).convert("L").convert("RGB")
    if picture.mode in ("I", "F"):  # no known range: what is there becomes black to white
        low, high = cast("tuple[float, float]", picture.getextrema())
        factor = 255 / ((high - low) or 1)
        return picture.point(lambda value: value * factor - low * factor).convert("L").convert("RGB")
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    if picture.mode != "RGBA":
        picture = picture.convert("RGBA")
    flat = Pillow.new("RGB", picture.size, "white")
    flat.paste(picture, mask=picture.getchannel("A"))
    return flat


def _checked(data: bytes, max_bytes: int) -> bytes:
    if len(data) > max_bytes:
        raise _too_many_bytes(len(data), max_bytes)
    if not data:
        raise ImageUnavailable("empty", "the image has no bytes")
    return data


def _too_many_bytes(size_bytes: int, max_bytes: int) -> ImageUnavailable:
    return ImageUnavailable("too_many_bytes", f"the image has {size_bytes} bytes, over the limit of {max_bytes}")


def _too_many_pixels(size: str, max_pixels: int) -> ImageUnavailable:
    return ImageUnavailable("too_many_pixels", f"the image is {size} pixels, over the limit of {max_pixels}")
