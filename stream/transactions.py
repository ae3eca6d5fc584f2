"""Exactly-once mode: outcomes and the offset after their posts are committed together, or not at all.

Consumers that read committed records only see each outcome once. One transactional producer for each input
partition: whoever is assigned the partition makes it anew, and with that fences the former owner and ends
its transaction. Not covered: Redis and the worker's metrics, and posts that a feed sent twice.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import InvalidProducerEpoch, KafkaError, ProducerFenced

from stream.broker import Broker
from stream.client import start_client
from stream.errors import BrokerUnavailable, RecordTooLarge, StreamError
from stream.offsets import Lease
from stream.outbox import Outbox, Outgoing, too_large
from stream.producer import TOO_LARGE, close_producer, new_producer, retrieve

log = logging.getLogger(__name__)

_OVERHEAD_BYTES: Final = 512  # more than the frame of a batch and a record takes
_MAX_ALONE: Final = 500  # posts of one transaction whose outcomes travel alone, so that it ends in time

Staged = tuple[TopicPartition, Outgoing]
Committed = Callable[[TopicPartition], Awaitable[int | None]]


class Fenced(StreamError):
    """The input partition went to another worker: what is staged for it here is that worker's to do again."""


class Transactions:
    """Stages outcomes in the outbox's place, until the intake commits those of a partition in one transaction."""

    def __init__(
        self,
        outbox: Outbox,
        *,
        broker: Broker,
        group: str,
        max_batch_bytes: int,
        request_timeout_s: float,
        publish_timeout_s: float,
    ) -> None:
        self._outbox = outbox
        self._broker = broker
        self._group = group
        self._max_batch_bytes = max_batch_bytes
        self._request_timeout_s = request_timeout_s
        self.publish_timeout_s = publish_timeout_s
        self._failing_since_s: dict[TopicPartition, float] = {}
        self._producers: dict[TopicPartition, AIOKafkaProducer] = {}
        self._staged: dict[Lease, dict[int, list[Staged]]] = defaultdict(dict)
        self._closing: set[asyncio.Task[None]] = set()
        self.n_staged = 0

    async def send(self, topic: str, partition: int, records: Sequence[Outgoing]) -> list[int | RecordTooLarge]:
        """Stage the records, each for the input record that it is the outcome of; offsets are not known yet: -1."""
        results: list[int | RecordTooLarge] = []
        for record in records:
            assert record.outcome_of is not None, "in exactly-once mode every record is the outcome of another"
            if _size_bytes(record) > self._max_batch_bytes:
                results.append(too_large(topic, record))
                continue
            results.append(-1)
            lease, offset = record.outcome_of.lease, record.outcome_of.record.offset
            if not lease.lost:
                self._staged[lease].setdefault(offset, []).append((TopicPartition(topic, partition), record))
                self.n_staged += 1
        return results

    async def partition_for(self, topic: str, partition: int) -> int:
        """Return the topic's partition for that number; see `Outbox.partition_for`."""
        return await self._outbox.partition_for(topic, partition)

    async def open(self, partition: TopicPartition) -> None:
        """Become the partition's only producer; its last transaction, whoever's, has ended when this returns.

        Raises:
            BrokerUnavailable: the broker did not answer in time.
        """
        await self._discard(partition, self._producers.get(partition))
        transactional_id = f"{self._group}/{partition.topic}/{partition.partition}"
        producer = new_producer(
            self._broker, self._max_batch_bytes, self._request_timeout_s, transactional_id=transactional_id
        )
        try:
            await start_client(producer, 2 * self._request_timeout_s)
        except BaseException as error:
            await close_producer(producer)
            if isinstance(error, KafkaError | OSError | TimeoutError):
                why = str(error) or type(error).__name__
                raise BrokerUnavailable(f"no transactions for {transactional_id}: {why}") from error
            raise
        self._producers[partition] = producer

    async def commit(self, lease: Lease, due: int, *, committed: Committed) -> None:
        """Publish the outcomes of records before `due` and commit that offset, in one transaction.

        When the broker refuses a batch for its size, each outcome gets a batch, and many of them several transactions.
        After a failure the next call finds out how the transaction ended before it goes on.

        Raises:
            Fenced: another worker has the partition.
            BrokerUnavailable: it failed, and may be tried again.
            StreamError: the broker refuses an outcome for its size, or transactions fail for good.
        """
        try:
            try:
                await self._commit_once(lease, due, committed, alone=False)
            except TOO_LARGE as error:
                log.info("a batch is refused, its outcomes travel alone: %s", error)
                offsets = sorted(offset for offset in self._staged.get(lease, {}) if offset < due)
                for end in (*offsets[_MAX_ALONE::_MAX_ALONE], due):
                    await self._commit_once(lease, end, committed, alone=True)
        except (ProducerFenced, InvalidProducerEpoch) as error:
            partition = lease.partition
            raise Fenced(f"partition {partition.partition} of {partition.topic} has another worker") from error
        except (KafkaError, OSError, BrokerUnavailable, AssertionError) as error:  # aiokafka asserts its states
            raise self._failure(lease.partition, str(error) or type(error).__name__) from error
        self._failing_since_s.pop(lease.partition, None)

    def drop(self, lease: Lease) -> None:
        """Forget what is staged for a lease that is given up."""
        self._failing_since_s.pop(lease.partition, None)
        self.n_staged -= sum(map(len, self._staged.pop(lease, {}).values()))
        closing = asyncio.create_task(self._discard(lease.partition, self._producers.pop(lease.partition, None)))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    async def stop(self) -> None:
        """Close the producers."""
        for partition, producer in tuple(self._producers.items()):
            await self._discard(partition, producer)
        if self._closing:
            await asyncio.wait(self._closing)

    async def _commit_once(self, lease: Lease, due: int, committed: Committed, *, alone: bool) -> None:
        if lease.lost:  # nothing is staged for it any more, and the producer may be a later lease's
            raise ProducerFenced()
        partition = lease.partition
        producer = self._producers.get(partition)
        try:
            async with asyncio.timeout(2 * self._request_timeout_s):
                if producer is None:
                    await self.open(partition)
                    producer = self._producers[partition]
                    done = await committed(partition) or 0
                    if lease.lost or done > due:  # somebody else got further
                        raise ProducerFenced()
                    self._forget(lease, before=done)
                    if done == due:
                        return
                await self._transact(producer, lease, due, alone=alone)
        except BaseException:
            await self._discard(partition, producer)
            raise
        self._forget(lease, before=due)

    async def _transact(self, producer: AIOKafkaProducer, lease: Lease, due: int, *, alone: bool) -> None:
        staged = self._staged.get(lease, {})
        by_target: dict[TopicPartition, list[Outgoing]] = defaultdict(list)
        for offset in sorted(offset for offset in staged if offset < due):
            for target, record in staged[offset]:
                by_target[target].append(record)
        await producer.begin_transaction()
        for target, records in by_target.items():
            for batch, members in _batches(producer, records, alone=alone):
                await _deliver(producer, target, batch, members)
        await producer.send_offsets_to_transaction({lease.partition: due}, self._group)
        await producer.commit_transaction()

    def _forget(self, lease: Lease, *, before: int) -> None:
        staged = self._staged.get(lease, {})
        for offset in [offset for offset in staged if offset < before]:
            self.n_staged -= len(staged.pop(offset))

    def _failure(self, partition: TopicPartition, why: str) -> StreamError:
        """Return the error to raise: one that may be tried again, until the publish time-out is over."""
        now_s = time.monotonic()
        if now_s - self._failing_since_s.setdefault(partition, now_s) > self.publish_timeout_s:
            return StreamError(f"transactions failed for {self.publish_timeout_s:g} s: {why}")
        return BrokerUnavailable(f"a transaction failed: {why}")

    async def _discard(self, partition: TopicPartition, producer: AIOKafkaProducer | None) -> None:
        if producer is None:
            return
        if self._producers.get(partition) is producer:
            del self._producers[partition]
        await close_producer(producer)


async def check_transactions(broker: Broker, *, name: str, timeout_s: float) -> None:
    """Return when the broker has transactions.

    Raises:
        StreamError: it has none.
    """
    producer = AIOKafkaProducer(**broker.options(), transactional_id=name)
    try:
        async with asyncio.timeout(timeout_s):
            await start_client(producer)
            await producer.begin_transaction()
            await producer.abort_transaction()
    except (KafkaError, OSError, TimeoutError, AssertionError) as error:
        why = str(error) or type(error).__name__
        raise StreamError(
            f"the broker at {broker} has no transactions ({why}): leave out exactly_once, or use Apache Kafka"
        ) from error
    finally:
        await close_producer(producer)


def _batches(
    producer: AIOKafkaProducer, records: Sequence[Outgoing], *, alone: bool
) -> list[tuple[Any, list[Outgoing]]]:
    """Return batches, each with its records: as many as fit, or one when they travel alone."""
    batches: list[tuple[Any, list[Outgoing]]] = []
    for record in records:
        fields = {"timestamp": None, "key": record.key, "value": record.value, "headers": record.headers}
        if alone or not batches or batches[-1][0].append(**fields) is None:
            batches.append((producer.create_batch(), []))
            batches[-1][0].append(**fields)
        batches[-1][1].append(record)
    return batches


async def _deliver(producer: AIOKafkaProducer, target: TopicPartition, batch: Any, members: Sequence[Outgoing]) -> None:
    """Return when the batch is delivered; one that follows a refused batch would be out of order."""
    delivery = await producer.send_batch(batch, target.topic, partition=target.partition)
    delivery.add_done_callback(retrieve)
    try:
        await asyncio.shield(delivery)
    except TOO_LARGE as error:
        if len(members) > 1:
            raise
        raise StreamError(
            f"the broker refuses an outcome of {len(members[0].value or b'')} bytes for {target.topic}: raise the"
            " topic's max.message.bytes, or set exactly_once to false, where it becomes a dead letter"
        ) from error


def _size_bytes(record: Outgoing) -> int:
    headers = sum(len(name.encode()) + len(value or b"") + 10 for name, value in record.headers)
    return len(record.key or b"") + len(record.value or b"") + headers + _OVERHEAD_BYTES
