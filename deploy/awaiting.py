"""Waits for the outcomes of records that were sent, whoever else sends and gets outcomes meanwhile; reads only."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Final

import msgspec
from aiokafka import ConsumerRecord
from msgspec import Struct

from deploy.failure import CommandFailed
from stream.broker import Broker
from stream.headers import dead_letter_origin, parse_dead_letter
from stream.letter_survey import is_marker
from stream.reader import read_batches, topic_bounds
from stream.records import UNDECODABLE, Origin, Timestamp
from stream.topics import Topics

Offsets = dict[int, int]  # of each partition

_POLL_S: Final = 0.5
_PATIENCE_S: Final = 120.0  # without any new outcome of these records, or of those before them


class _Outcome(Struct):
    origin: Origin
    accepted_at: Timestamp | None = None


_outcomes = msgspec.json.Decoder(_Outcome)


async def outcome_ends(broker: Broker, topics: Topics) -> dict[str, Offsets]:
    """Return where outcomes will come from now on, by topic."""
    names = (topics.findings.name, topics.duplicates.name, topics.dead_letters.name)
    return {
        name: {partition: bound.end for partition, bound in (await topic_bounds(broker, name)).items()}
        for name in names
    }


async def wait_for_outcomes(
    broker: Broker,
    topics: Topics,
    sent: Mapping[int, set[int]],
    *,
    since: Mapping[str, Offsets],
    on_progress: Callable[[int], None],
) -> list[float]:
    """Return when each record has its outcome; `sent` holds the records' offsets by partition.

    Returns the seconds from accepted to published of the findings, sorted. `on_progress` is told how many records
    have their outcome.

    Raises:
        CommandFailed: neither they nor records before them got an outcome for two minutes.
    """
    waiting = {partition: set(offsets) for partition, offsets in sent.items() if offsets}
    last = {partition: max(offsets) for partition, offsets in waiting.items()}
    starts = {topic: dict(offsets) for topic, offsets in since.items()}
    n_sent = sum(map(len, waiting.values()))
    latencies_s: list[float] = []
    heard_s = time.monotonic()
    while True:
        async for record in _new_outcomes(broker, starts):
            outcome = _outcome(record, is_letter=record.topic == topics.dead_letters.name)
            if outcome is None or outcome.origin.topic != topics.posts.name:
                continue
            place = outcome.origin
            if place.offset <= last.get(place.partition, -1):  # what lies behind them is no sign that they will come
                heard_s = time.monotonic()
            if place.offset in waiting.get(place.partition, ()):
                waiting[place.partition].remove(place.offset)
                if record.topic == topics.findings.name and outcome.accepted_at is not None:
                    latencies_s.append(record.timestamp / 1000 - outcome.accepted_at.timestamp())
        n_waiting = sum(map(len, waiting.values()))
        on_progress(n_sent - n_waiting)
        if not n_waiting:
            return sorted(latencies_s)
        if time.monotonic() - heard_s > _PATIENCE_S:
            raise CommandFailed(
                f"no outcome for {_PATIENCE_S:g} s, {n_sent - n_waiting} of {n_sent} so far: is a worker running? "
                "(`sitrep ledger check` tells which posts are missing)"
            )
        await asyncio.sleep(_POLL_S)


async def _new_outcomes(broker: Broker, starts: dict[str, Offsets]) -> AsyncIterator[ConsumerRecord]:
    """Yield what came since `starts`, which move on."""
    for topic, offsets in starts.items():
        async for batch in read_batches(broker, topic, from_offsets=offsets):
            for record in batch:
                yield record
            offsets[batch[-1].partition] = batch[-1].offset + 1


def _outcome(record: ConsumerRecord, *, is_letter: bool) -> _Outcome | None:
    if is_letter:
        if is_marker(record):
            return None
        return _Outcome(origin=dead_letter_origin(record.headers) or parse_dead_letter(record).origin)
    try:
        return _outcomes.decode(record.value or b"")
    except UNDECODABLE:
        return None  # the ledger tells
