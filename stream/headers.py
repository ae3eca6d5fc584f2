"""Kafka headers at our edges: CloudEvents, trace context and KIP-1034 dead letters; pure functions.

Sources: CloudEvents 1.0 Kafka protocol binding (binary mode), W3C Trace Context, KIP-1034.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Protocol

from stream.records import JSON, DeadLetter, Origin

Headers = list[tuple[str, bytes]]

TRACE_HEADERS: Final = ("traceparent", "tracestate")
ERROR_PREFIX: Final = "__streams.errors."
REASON: Final = "sitrep_reason"
STAGE: Final = "sitrep_stage"
ATTEMPT: Final = "sitrep_attempt"
FAILED_AT: Final = "sitrep_failed_at"
POST_ORIGIN: Final = "sitrep_post_origin"
REPLAYED: Final = "sitrep_replayed"  # see `stream.dead_letters`
VALUE_OMITTED: Final = "sitrep_value_omitted_bytes"
MAX_STACKTRACE_CHARS: Final = 4_000
MAX_MESSAGE_CHARS: Final = 1_000
MAX_TRACE_BYTES: Final = 4_096  # W3C asks for 512; what is longer would travel with every record that follows

_OURS: Final = frozenset({REASON, STAGE, ATTEMPT, FAILED_AT, POST_ORIGIN, REPLAYED, VALUE_OMITTED})
_MAX_DIGITS: Final = 18
# W3C Trace Context: version, trace id, parent id, flags; version ff and ids of zeros are not valid
_TRACEPARENT: Final = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


class KafkaRecord(Protocol):
    """What is read of a consumed record; aiokafka's `ConsumerRecord` has it."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """Why an event becomes a dead letter; `reason` is a word from a small fixed set."""

    reason: str
    stage: str
    error: BaseException


def first_header(headers: Iterable[tuple[str, bytes]], name: str) -> str | None:
    """Return the first value of the header, or None."""
    for key, value in headers:
        if key == name:
            return value.decode("utf-8", "replace") if value is not None else None
    return None


class HeadersOf(Protocol):
    """Returns the headers of an event, from its id and its trace context."""

    def __call__(self, event_id: str, trace: Mapping[str, str] | None = None) -> Headers:
        """Return them."""
        ...


def cloudevents(*, source: str, event_type: str, time: datetime) -> HeadersOf:
    """Return a function from an event's id, and its trace context, to its headers: for many events of one moment."""
    spec = ("ce_specversion", b"1.0")
    origin = ("ce_source", source.encode())
    kind = ("ce_type", event_type.encode())
    moment = ("ce_time", rfc3339(time).encode())
    content = ("content-type", JSON.encode())

    def headers(event_id: str, trace: Mapping[str, str] | None = None) -> Headers:
        made = [spec, ("ce_id", event_id.encode()), origin, kind, moment, content]
        if trace:
            made += [(name, value.encode("ascii", "replace")) for name, value in trace.items()]
        return made

    return headers


def cloudevent_headers(
    *, event_id: str, source: str, event_type: str, time: datetime, trace: Mapping[str, str] | None = None
) -> Headers:
    """Return the headers of a CloudEvent in binary mode with a JSON body."""
    return cloudevents(source=source, event_type=event_type, time=time)(event_id, trace)


def trace_context(headers: Iterable[tuple[str, bytes]]) -> dict[str, str]:
    """Return the trace context among the headers, to be carried on unchanged; none without a valid `traceparent`.

    A `tracestate` that is too long to be carried on, or no ASCII, is left out.
    """
    if not headers:
        return {}
    found = {
        name: value.decode("ascii")
        for name, value in headers
        if name in TRACE_HEADERS and value and len(value) <= MAX_TRACE_BYTES and value.isascii()
    }
    return found if _TRACEPARENT.fullmatch(found.get("traceparent", "")) else {}


def rfc3339(time: datetime) -> str:
    """Return the time in UTC as RFC 3339."""
    return time.astimezone(UTC).isoformat().replace("+00:00", "Z")


def dead_letter_headers(record: KafkaRecord, cause: Cause, *, post_origin: Origin | None = None) -> Headers:
    """Return the original headers and those that say why, where and at which attempt the event failed.

    `post_origin` is the post's own record when the failing record is one that a stage made from it.
    """
    error = cause.error
    stack = "".join(traceback.format_exception(error))[-MAX_STACKTRACE_CHARS:]
    origin = post_origin or Origin(topic=record.topic, partition=record.partition, offset=record.offset)
    added: Headers = [
        (f"{ERROR_PREFIX}exception", f"{type(error).__module__}.{type(error).__qualname__}".encode()),
        (f"{ERROR_PREFIX}message", str(error)[:MAX_MESSAGE_CHARS].encode("utf-8", "replace")),
        (f"{ERROR_PREFIX}stacktrace", stack.encode("utf-8", "replace")),
        (f"{ERROR_PREFIX}topic", record.topic.encode()),
        (f"{ERROR_PREFIX}partition", str(record.partition).encode()),
        (f"{ERROR_PREFIX}offset", str(record.offset).encode()),
        (REASON, cause.reason.encode()),
        (STAGE, cause.stage.encode()),
        (ATTEMPT, str(attempt(record.headers)).encode()),
        (FAILED_AT, rfc3339(datetime.now(UTC)).encode()),
        (POST_ORIGIN, f"{origin.topic}/{origin.partition}/{origin.offset}".encode()),
    ]
    return original_headers(record.headers) + added  # a sender's headers of our names must not pass for ours


def attempt(headers: Iterable[tuple[str, bytes]]) -> int:
    """Return which attempt at the event this is, from 1."""
    return _number(first_header(headers, ATTEMPT)) or 1


def pointer_headers(headers: Iterable[tuple[str, bytes]], *, size_bytes: int) -> Headers:
    """Return the headers of a dead letter that is too large to be kept: ours alone, which have a bound."""
    kept = [(name, value) for name, value in headers if name in _OURS or name.startswith(ERROR_PREFIX)]
    return [*kept, (VALUE_OMITTED, str(size_bytes).encode())]


def original_headers(headers: Iterable[tuple[str, bytes]]) -> Headers:
    """Return the headers without any of the names that `dead_letter_headers` gives."""
    return [(name, value) for name, value in headers if name not in _OURS and not name.startswith(ERROR_PREFIX)]


def dead_letter_origin(headers: Iterable[tuple[str, bytes]]) -> Origin | None:
    """Return the post's record that a dead letter stands for, or None when its headers do not say."""
    text = first_header(headers, POST_ORIGIN)
    if text is None:
        return None
    topic, _, rest = text.partition("/")
    partition, offset = map(_number, rest.partition("/")[::2])
    if not topic or partition is None or offset is None:
        return None
    return Origin(topic=topic, partition=partition, offset=offset)


def parse_dead_letter(record: KafkaRecord) -> DeadLetter:
    """Return a record of the dead-letters topic as a `DeadLetter`; unknown parts read as `unknown`."""
    headers = list(record.headers)

    def text(name: str) -> str:
        return first_header(headers, name) or "unknown"

    origin = Origin(
        topic=text(f"{ERROR_PREFIX}topic"),
        partition=_number(first_header(headers, f"{ERROR_PREFIX}partition")) or 0,
        offset=_number(first_header(headers, f"{ERROR_PREFIX}offset")) or 0,
    )
    return DeadLetter(
        id=f"{origin.topic}-{origin.partition}-{origin.offset}",
        reason=text(REASON),
        exception=text(f"{ERROR_PREFIX}exception"),
        message=text(f"{ERROR_PREFIX}message"),
        origin=origin,
        stage=text(STAGE),
        attempt=attempt(headers),
        failed_at=_moment(first_header(headers, FAILED_AT)),
        key=record.key,
        value=record.value,
        headers=original_headers(headers),
    )


def _moment(text: str | None) -> datetime | None:
    """The time in a header that anybody may have written, None where there is none."""
    try:
        return None if text is None else datetime.fromisoformat(text)
    except ValueError:
        return None


def _number(text: str | None) -> int | None:
    """The decimal number in a header that anybody may have written, None where there is none of a sane length."""
    if text is None or len(text) > _MAX_DIGITS or not (text.isascii() and text.isdigit()):
        return None
    return int(text)
