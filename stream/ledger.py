"""The ledger: does every accepted record have its outcome? Read from the topics alone, never from a worker."""

from __future__ import annotations

from typing import Any

import msgspec
from aiokafka import ConsumerRecord
from msgspec import Struct

from stream.book import Book, Ledger, Missing, Outcome
from stream.broker import Broker
from stream.errors import InvalidRecord
from stream.headers import dead_letter_origin, parse_dead_letter
from stream.letter_survey import is_marker
from stream.reader import read_batches, topic_bounds
from stream.records import Finding, Origin, content_digest, decode
from stream.topics import Topics

__all__ = ["Book", "Ledger", "Missing", "Outcome", "read_ledger"]


async def read_ledger(broker: Broker, topics: Topics, *, keep_ids: bool = False) -> Ledger:
    """Return the ledger of the posts that are on their topic now; with `keep_ids`, with an entry for each.

    Raises:
        BrokerUnavailable: nothing answers at `broker`.
        UnknownTopic: the broker lacks one of the topics.
    """
    bounds = await topic_bounds(broker, topics.posts.name)
    book = Book(topics.posts.name, bounds, keep_ids=keep_ids)
    # outcomes first: a post that comes in while they are read lies beyond the bounds
    async for batch in read_batches(broker, topics.findings.name):
        for record in batch:
            _enter_json(book, record, "finding", _findings)
    async for batch in read_batches(broker, topics.duplicates.name):
        for record in batch:
            _enter_json(book, record, "duplicate", _duplicates)
    async for batch in read_batches(broker, topics.dead_letters.name):
        for record in batch:
            if not is_marker(record):
                _enter_dead_letter(book, record)
    async for batch in read_batches(broker, topics.posts.name, bounds=bounds):
        for record in batch:
            book.accepted(_place(record), _post_id(record))
    kept = await topic_bounds(broker, topics.posts.name)
    differing = await _differing(broker, topics.findings.name, frozenset(book.repeated))
    return book.close(differing=differing, kept={partition: bound.first for partition, bound in kept.items()})


class _FindingParts(Struct):
    id: str
    origin: Origin


class _DuplicateParts(Struct):
    origin: Origin


class _PostParts(Struct):
    id: str


_findings = msgspec.json.Decoder(_FindingParts)
_duplicates = msgspec.json.Decoder(_DuplicateParts)
_posts = msgspec.json.Decoder(_PostParts)


def _enter_json(book: Book, record: ConsumerRecord, kind: Outcome, decoder: msgspec.json.Decoder[Any]) -> None:
    try:
        parts = decoder.decode(record.value or b"")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        book.unreadable(_place(record))
    else:
        book.outcome(kind, parts.origin, finding_id=getattr(parts, "id", ""))


def _enter_dead_letter(book: Book, record: ConsumerRecord) -> None:
    # a record without the post's origin comes from elsewhere, for instance from another KIP-1034 producer
    origin = dead_letter_origin(record.headers) or parse_dead_letter(record).origin
    book.outcome("dead_letter", origin)


async def _differing(broker: Broker, topic: str, finding_ids: frozenset[str]) -> list[str]:
    """Return the ids whose deliveries for one record differ in content; reads nothing when there are no ids."""
    if not finding_ids:
        return []
    digests: dict[tuple[str, int, int], str] = {}
    differing: dict[str, None] = {}
    async for batch in read_batches(broker, topic):
        for record in batch:
            try:
                parts = _findings.decode(record.value or b"")
                if parts.id not in finding_ids:
                    continue
                digest = content_digest(decode(record.value, Finding))
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, InvalidRecord):
                continue  # entered as unreadable before
            place = (parts.id, parts.origin.partition, parts.origin.offset)
            if digests.setdefault(place, digest) != digest:
                differing[parts.id] = None
    return list(differing)


def _place(record: ConsumerRecord) -> Origin:
    return Origin(topic=record.topic, partition=record.partition, offset=record.offset)


def _post_id(record: ConsumerRecord) -> str:
    if record.key is not None:
        return str(record.key.decode("utf-8", "replace"))
    try:
        return _posts.decode(record.value or b"").id
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return "unknown"
