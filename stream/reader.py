"""Reads topics from outside any consumer group: bounded, or following; never commits, never writes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, Literal

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError

from stream.broker import Broker
from stream.client import start_client, stop_client
from stream.errors import BrokerUnavailable, StreamError
from stream.odd_headers import read_any_header_name
from stream.patience import rest_between_empty_fetches

Isolation = Literal["read_committed", "read_uncommitted"]

_CONNECT_TIMEOUT_S: Final = 15.0
_STALL_TIMEOUT_S: Final = 30.0
_POLL_MS: Final = 200
_TAIL_POLL_MS: Final = 20
_SILENCE_S: Final = 5.0
_MAX_FETCH: Final = 5_000
_FETCH_BYTES: Final = 8 * 1_048_576


class UnknownTopic(StreamError):
    """A topic that the broker does not have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """The offsets a partition had: `first` is the oldest kept, `end` the one after the newest."""

    first: int
    end: int


async def topic_bounds(
    broker: Broker, topic: str, *, isolation_level: Isolation = "read_committed"
) -> dict[int, Bounds]:
    """Return the bounds of each partition as they are now.

    Raises:
        BrokerUnavailable: nothing answers at `broker`.
        UnknownTopic: the broker does not have the topic.
    """
    async with _consumer(broker, isolation_level) as consumer:
        return await _bounds(consumer, await _partitions(consumer, broker, topic))


async def read_batches(
    broker: Broker,
    topic: str,
    *,
    bounds: Mapping[int, Bounds] | None = None,
    from_offsets: Mapping[int, int] | None = None,
    isolation_level: Isolation = "read_committed",
) -> AsyncIterator[list[ConsumerRecord]]:
    """Yield what the topic holds, in batches of one partition, in offset order within it.

    Ends at `bounds`, else at the end offsets as they were at the call, also when compaction or
    transaction markers leave gaps before them; starts at `from_offsets`, else at the first kept record.

    Raises:
        BrokerUnavailable: nothing answers at `broker`, or it stops answering.
        UnknownTopic: the broker does not have the topic.
    """
    async with _consumer(broker, isolation_level) as consumer:
        partitions = await _partitions(consumer, broker, topic)
        known = await _bounds(consumer, partitions)
        wanted = {tp: (bounds or {}).get(tp.partition, known[tp.partition]) for tp in partitions}
        consumer.assign(partitions)
        todo: dict[TopicPartition, int] = {}
        for tp, bound in wanted.items():
            start = max(known[tp.partition].first, (from_offsets or {}).get(tp.partition, bound.first))
            if start < bound.end:
                todo[tp] = bound.end
                consumer.seek(tp, start)
            else:
                consumer.pause(tp)
        last_progress = time.monotonic()
        while todo:
            fetched = await consumer.getmany(*todo, timeout_ms=_POLL_MS, max_records=_MAX_FETCH)
            for tp, records in fetched.items():
                end = todo[tp]
                kept = records if records[-1].offset < end else [r for r in records if r.offset < end]
                if kept:
                    yield kept
            done = [tp for tp, end in todo.items() if await consumer.position(tp) >= end]
            for tp in done:
                consumer.pause(tp)
                del todo[tp]
            if fetched or done:
                last_progress = time.monotonic()
            elif time.monotonic() - last_progress > _STALL_TIMEOUT_S:
                left = ", ".join(f"{tp.partition} before {end}" for tp, end in todo.items())
                raise BrokerUnavailable(
                    f"{broker} gave nothing of {topic} for {_STALL_TIMEOUT_S:g} s (partition {left}): try again"
                )


async def read_topic(
    broker: Broker,
    topic: str,
    *,
    from_offsets: Mapping[int, int] | None = None,
    isolation_level: Isolation = "read_committed",
) -> AsyncIterator[ConsumerRecord]:
    """Yield the topic's records one by one; see `read_batches`."""
    async for batch in read_batches(broker, topic, from_offsets=from_offsets, isolation_level=isolation_level):
        for record in batch:
            yield record


async def tail_topic(
    broker: Broker,
    *topics: str,
    from_beginning: bool = False,
    isolation_level: Isolation = "read_committed",
    on_away: Callable[[bool], None] = lambda is_away: None,
) -> AsyncIterator[ConsumerRecord]:
    """Yield records of the topics as they come, without an end; from the newest unless told otherwise.

    A broker that goes away later is waited for; `on_away` is told that it went, and that it is back.

    Raises:
        BrokerUnavailable: nothing answers at `broker`.
        UnknownTopic: the broker does not have one of the topics.
    """
    async with _consumer(broker, isolation_level) as consumer:
        partitions = [tp for topic in topics for tp in await _partitions(consumer, broker, topic)]
        offsets = await (consumer.beginning_offsets if from_beginning else consumer.end_offsets)(partitions)
        consumer.assign(partitions)
        for tp, offset in offsets.items():
            consumer.seek(tp, offset)
        is_away, heard_s = False, time.monotonic()
        while True:
            fetched = await consumer.getmany(timeout_ms=_TAIL_POLL_MS, max_records=_MAX_FETCH)
            for records in fetched.values():
                for record in records:
                    yield record
            if not fetched and time.monotonic() - heard_s < _SILENCE_S:
                continue
            answers = bool(fetched) or await _answers(consumer, partitions[0])
            heard_s = time.monotonic()
            if is_away is answers:
                is_away = not answers
                on_away(is_away)


async def _answers(consumer: AIOKafkaConsumer, partition: TopicPartition) -> bool:
    """Whether the broker answers; a fetch that brings nothing does not tell."""
    try:
        await asyncio.wait_for(consumer.end_offsets([partition]), _SILENCE_S)
    except (KafkaError, OSError, TimeoutError):
        return False
    return True


@asynccontextmanager
async def _consumer(broker: Broker, isolation_level: Isolation) -> AsyncIterator[AIOKafkaConsumer]:
    rest_between_empty_fetches()
    read_any_header_name()
    options = broker.options()
    try:
        consumer = AIOKafkaConsumer(
            **options,
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level=isolation_level,
            max_partition_fetch_bytes=_FETCH_BYTES,
            fetch_max_bytes=2 * _FETCH_BYTES,
        )
    except ValueError as error:  # not HOST:PORT
        raise await broker.unreachable(error) from error
    try:
        try:
            await start_client(consumer, _CONNECT_TIMEOUT_S)
        except (KafkaError, OSError, TimeoutError, ValueError) as error:
            raise await broker.unreachable(error) from error
        try:
            yield consumer
        except (KafkaError, OSError) as error:
            raise BrokerUnavailable(
                f"the Kafka broker at {broker} failed: {str(error) or type(error).__name__}"
            ) from error
    finally:
        await stop_client(consumer)


async def _partitions(consumer: AIOKafkaConsumer, broker: Broker, topic: str) -> list[TopicPartition]:
    # all topics, because asking for one by name may create it; the client keeps nothing of the answer
    cluster = await consumer._client.fetch_all_metadata()
    partitions = cluster.partitions_for_topic(topic)
    if not partitions:
        raise UnknownTopic(f"there is no topic {topic} at {broker}: `sitrep topics create` makes it")
    return [TopicPartition(topic, partition) for partition in sorted(partitions)]


async def _bounds(consumer: AIOKafkaConsumer, partitions: list[TopicPartition]) -> dict[int, Bounds]:
    first = await consumer.beginning_offsets(partitions)
    end = await consumer.end_offsets(partitions)
    return {tp.partition: Bounds(first=first[tp], end=end[tp]) for tp in partitions}
