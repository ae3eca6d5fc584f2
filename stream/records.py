"""The records on the wire, their versions and their codecs; nothing here does I/O.

A consumer of version n reads n + 1: unknown fields are ignored, new fields always have defaults.
Records are JSON (RFC 8259, times as RFC 3339, bytes as base64); posts may also be MessagePack, told
by the `content-type` header.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import MAXYEAR, MINYEAR, UTC, datetime
from functools import lru_cache
from typing import Annotated, Any, Final, TypeVar

import msgspec
from msgspec import Meta, Struct

from stream.errors import InvalidRecord

JSON: Final = "application/json"
MSGPACK: Final = "application/msgpack"

# what a degraded mode spared itself, in `degraded`
NO_IMAGE_RATIONALE: Final = "no_image_rationale_under_load"
TEXT_ONLY: Final = "text_only_under_load"
MODE_MARKS: Final = (NO_IMAGE_RATIONALE, TEXT_ONLY)
# a picture that could not be used for a machine's sake: the next one may well use it
MACHINE_MARKS: Final = ("image_timeout", "image_crashed", "image_out_of_memory", "image_not_found")

MAX_TEXT_CHARS: Final = 10_000
MAX_IMAGES: Final = 4
UNKNOWN_SOURCE: Final = "unknown"

PostId = Annotated[str, Meta(min_length=1, max_length=256, description="unique at the source, the Kafka key")]
Prob = Annotated[float, Meta(ge=0, le=1)]
Timestamp = Annotated[datetime, Meta(tz=True, description="RFC 3339 with offset")]


class _Record(Struct, frozen=True, omit_defaults=True, gc=False):
    """Common ground of the records: frozen values, hence without cycles, that leave defaults out on the wire."""


class Image(_Record, frozen=True, kw_only=True):
    """A picture of a post: inline bytes, or a path below the worker's allowed image folder."""

    data: bytes | None = None
    path: Annotated[str, Meta(min_length=1, max_length=1024)] | None = None
    url: Annotated[str, Meta(max_length=2048)] | None = None


class Geo(_Record, frozen=True, kw_only=True):
    """Where a post says it is from, in degrees (WGS 84)."""

    lat: Annotated[float, Meta(ge=-90, le=90)]
    lon: Annotated[float, Meta(ge=-180, le=180)]


class Post(_Record, frozen=True, kw_only=True):
    """One input item, as every feed is mapped to it."""

    id: PostId
    text: Annotated[str, Meta(max_length=MAX_TEXT_CHARS)] = ""
    images: Annotated[list[Image], Meta(max_length=MAX_IMAGES)] = []
    source: Annotated[str, Meta(max_length=64, description="the feed, for example `bluesky`")] = UNKNOWN_SOURCE
    created_at: Timestamp | None = None
    lang: Annotated[str, Meta(max_length=35, description="BCP 47")] | None = None
    url: Annotated[str, Meta(max_length=2048, description="link back to the post")] | None = None
    geo: Geo | None = None
    author_hash: Annotated[str, Meta(max_length=128)] | None = None
    version: Annotated[int, Meta(ge=1)] = 1


class Origin(_Record, frozen=True, kw_only=True):
    """The Kafka record that a post came in, which is what the ledger balances by."""

    topic: str
    partition: Annotated[int, Meta(ge=0)]
    offset: Annotated[int, Meta(ge=0)]


class PreparedImage(_Record, frozen=True, kw_only=True):
    """A verified, down-scaled RGB picture: `pixels` is height x width x 3 bytes, row-major."""

    index: Annotated[int, Meta(ge=0, description="which of the post's images")]
    width: Annotated[int, Meta(gt=0)]
    height: Annotated[int, Meta(gt=0)]
    original_width: Annotated[int, Meta(gt=0, description="pixels, after EXIF rotation")]
    original_height: Annotated[int, Meta(gt=0)]
    pixels: bytes


class PreparedPost(_Record, frozen=True, kw_only=True):
    """A validated post between the stages; `post` keeps no image bytes."""

    post: Post
    origin: Origin
    accepted_at: Timestamp
    image: PreparedImage | None = None
    degraded: list[str] = []
    version: Annotated[int, Meta(ge=1)] = 1


class Span(_Record, frozen=True, kw_only=True):
    """Contiguous text [start, end) in characters (Unicode code points) of the original text."""

    start: Annotated[int, Meta(ge=0)]
    end: Annotated[int, Meta(gt=0)]
    score: Prob


class Box(_Record, frozen=True, kw_only=True):
    """A selected patch in pixels of the original image, after EXIF rotation."""

    x0: float
    y0: float
    x1: float
    y1: float


class ImageRationale(_Record, frozen=True, kw_only=True):
    """Patch scores on a row-major grid, and the boxes of the selected patches."""

    index: Annotated[int, Meta(ge=0, description="which of the post's images")]
    width: Annotated[int, Meta(gt=0, description="original image, pixels")]
    height: Annotated[int, Meta(gt=0)]
    rows: Annotated[int, Meta(gt=0)]
    cols: Annotated[int, Meta(gt=0)]
    scores: list[Prob]
    selected: list[int]
    boxes: list[Box]


class ModelInfo(_Record, frozen=True, kw_only=True):
    """Which weights decided."""

    name: str
    version: str
    digest: Annotated[str, Meta(description="sha256 of the weights file")]


class Finding(_Record, frozen=True, kw_only=True):
    """Our published result for a post.

    The id is the idempotency key: post, model version, and the degraded mode if it says one. The same id has
    the same content; `classified_at` alone is not content.
    """

    id: str
    post_id: PostId
    label: str
    probability: Prob
    probabilities: dict[str, Prob]
    text: str
    text_rationale: list[Span]
    image_rationale: ImageRationale | None = None
    degraded: list[str] = []
    model: ModelInfo
    origin: Origin
    posted_at: Timestamp | None = None
    accepted_at: Timestamp
    classified_at: Timestamp
    source: str = UNKNOWN_SOURCE
    lang: str | None = None
    url: str | None = None
    geo: Geo | None = None
    version: Annotated[int, Meta(ge=1)] = 1


class Alert(_Record, frozen=True, kw_only=True):
    """What responders are told about an incident, with the findings behind it and what these are marked with."""

    id: str
    kind: str
    probability: Prob
    threshold: Prob
    findings: list[str]
    post_ids: list[PostId]
    headline: str
    evidence: list[str]
    degraded: list[str] = []
    raised_at: Timestamp
    posted_at: Timestamp | None = None
    url: str | None = None
    geo: Geo | None = None
    version: Annotated[int, Meta(ge=1)] = 1


class Duplicate(_Record, frozen=True, kw_only=True):
    """A record whose post was already accepted in another record; `differs` when its text does."""

    post_id: PostId
    origin: Origin
    first: Origin
    differs: bool = False
    version: Annotated[int, Meta(ge=1)] = 1


class DeadLetter(_Record, frozen=True, kw_only=True):
    """An event that could not be processed, read back from its record (KIP-1034 headers, original bytes)."""

    id: Annotated[str, Meta(description="topic-partition-offset of the event")]
    reason: str
    exception: str
    message: str
    origin: Origin
    stage: str
    attempt: Annotated[int, Meta(ge=1)]
    failed_at: Timestamp | None = None
    key: bytes | None = None
    value: bytes | None = None
    headers: list[tuple[str, bytes]] = []
    version: Annotated[int, Meta(ge=1)] = 1


R = TypeVar("R", bound=Struct)

PUBLIC_RECORDS: Final = (Post, Finding, Alert, Duplicate, DeadLetter)

UNDECODABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)  # a ValidationError is the first

_encoder = msgspec.json.Encoder()
_msgpack_encoder = msgspec.msgpack.Encoder()
_post_json = msgspec.json.Decoder(Post)
_post_msgpack = msgspec.msgpack.Decoder(Post)
_prepared_msgpack = msgspec.msgpack.Decoder(PreparedPost)


def encode(record: Struct) -> bytes:
    """Return the record as JSON."""
    return _encoder.encode(record)


def encode_prepared(prepared: PreparedPost) -> bytes:
    """Return the prepared post as MessagePack: its pixels are raw bytes."""
    return _msgpack_encoder.encode(prepared)


def decode_post(value: bytes | None, *, content_type: str = JSON, max_bytes: int) -> Post:
    """Return the post in `value`; raise `InvalidRecord` when it is not one, whatever the bytes are."""
    if not value:
        raise InvalidRecord("empty_record", "the record has no value: send a post as JSON or MessagePack")
    if len(value) > max_bytes:
        raise InvalidRecord("record_too_large", f"the record has {len(value)} bytes, over the limit of {max_bytes}")
    media_type = JSON if content_type is JSON else content_type.partition(";")[0].strip().lower()
    if media_type == JSON:
        decoder: Any = _post_json
    elif media_type == MSGPACK:
        decoder = _post_msgpack
    else:
        raise InvalidRecord("content_type", f"content-type is {content_type!r}: use {JSON} or {MSGPACK}")
    try:
        post: Post = decoder.decode(value)
    except UNDECODABLE as error:
        raise _invalid(value, error) from error
    if not post.images and (not post.text or post.text.isspace()):
        raise InvalidRecord("empty_post", f"post {post.id!r} has neither text nor images")
    if "\x00" in post.id:  # which parts id and source in a finding's id: one post could pass for another
        raise InvalidRecord("invalid_field", f"post id {post.id!r} has a NUL character: leave it out")
    created_at = post.created_at
    if created_at is not None and not MINYEAR < created_at.year < MAXYEAR:
        try:
            created_at.astimezone(UTC)
        except OverflowError as error:  # MessagePack and everything that compares times needs it in UTC
            raise InvalidRecord("invalid_field", f"created_at {created_at} is out of range in UTC") from error
    return post


def decode_prepared(value: bytes | None) -> PreparedPost:
    """Return the prepared post in `value`; raise `InvalidRecord` when it is not one."""
    prepared: PreparedPost = _decode(_prepared_msgpack, value or b"")
    image = prepared.image
    if image is not None and len(image.pixels) != image.width * image.height * 3:
        size = f"{image.width}x{image.height}x3"
        raise InvalidRecord("invalid_field", f"the prepared image has {len(image.pixels)} bytes, not {size}")
    return prepared


def decode(value: bytes | None, record_type: type[R]) -> R:
    """Return the JSON record in `value`; raise `InvalidRecord` when it is not one."""
    record: R = _decode(_json_decoder(record_type), value or b"")
    return record


@lru_cache
def _json_decoder(record_type: type[Struct]) -> Any:
    return msgspec.json.Decoder(record_type)


def _decode(decoder: Any, value: bytes) -> Any:
    try:
        return decoder.decode(value)
    except UNDECODABLE as error:
        raise _invalid(value, error) from error


def _invalid(value: bytes, error: Exception) -> InvalidRecord:
    if isinstance(error, msgspec.ValidationError):
        return InvalidRecord("invalid_field", f"not a valid record: {error}")
    return InvalidRecord("undecodable", f"cannot decode {value[:40]!r}: {error}")


def finding_id(post_id: str, model_version: str, degraded: Sequence[str] = (), *, source: str = UNKNOWN_SOURCE) -> str:
    """Return the idempotency key of a finding: the same post, model version and degraded mode give the same id.

    Of what `degraded` says only modes and failures of a machine count, each as often as it is there: the rest follows
    from the post.
    """
    if degraded:
        marks = [mark for mark in MODE_MARKS if mark in degraded]
        marks += [mark for mark in degraded if mark in MACHINE_MARKS]
        model_version += "".join(f"+{mark}" for mark in marks)
    digest = _begun_digest(model_version).copy()
    digest.update(post_id.encode())
    if source != UNKNOWN_SOURCE:
        digest.update(f"\x00{source}".encode())
    hexadecimal: str = digest.hexdigest()
    return hexadecimal[:32]


@lru_cache(maxsize=64)
def _begun_digest(version: str) -> Any:
    """Return a SHA-256 that has read a finding's version: a copy of one costs less than a new one."""
    return hashlib.sha256(f"{version}\x00".encode())


def content_digest(finding: Finding) -> str:
    """Return the digest of a finding's content, which leaves out when it was classified."""
    content = msgspec.structs.replace(finding, classified_at=finding.accepted_at)
    return hashlib.sha256(msgspec.json.encode(content, order="sorted")).hexdigest()
