"""Sends whole batches and returns once the broker has confirmed them; retries within a bound, never drops."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import tenacity
from aiokafka import AIOKafkaProducer
from aiokafka.errors import (
    KafkaError,
    KafkaTimeoutError,
)
from msgspec import Struct

from stream.broker import Broker
from stream.client import start_client
from stream.errors import BrokerUnavailable, RecordTooLarge
from stream.headers import Headers
from stream.producer import TOO_LARGE, close_producer, new_producer, retrieve

if TYPE_CHECKING:
    from stream.accepted import Accepted

log = logging.getLogger(__name__)

_FIRST_PAUSE_S: Final = 0.05


class Outgoing(Struct, frozen=True, kw_only=True, gc=False):
    """One record to send."""

    key: bytes | None
    value: bytes | None
    headers: Headers = []
    outcome_of: Accepted | None = None  # transactions ask; this module does not


class _Line:
    """One producer; `ended` says that nobody will deliver what it still holds."""

    def __init__(self, producer: AIOKafkaProducer) -> None:
        self.producer = producer
        self.ended = asyncio.Event()

    async def deliver(self, topic: str, partition: int, batch: Any) -> int:
        """Return the batch's offset once the broker has confirmed it; raise aiokafka's errors."""
        sending = asyncio.create_task(self._send(topic, partition, batch))
        ended = asyncio.create_task(self.ended.wait())
        try:
            # a closed producer wakes nobody who waits in it, be it for a confirmation or for a topic's partitions
            await asyncio.wait({sending, ended}, return_when=asyncio.FIRST_COMPLETED)
            if not sending.done():
                raise ConnectionAbortedError("the producer was closed before it delivered")
            return await sending
        finally:
            sending.cancel()
            ended.cancel()

    async def close(self) -> None:
        """Deliver what can be delivered in a moment, then close, whatever the broker does."""
        try:
            await close_producer(self.producer)
        finally:
            self.ended.set()

    async def _send(self, topic: str, partition: int, batch: Any) -> int:
        delivery = await self.producer.send_batch(batch, topic, partition=partition)
        delivery.add_done_callback(retrieve)
        return int((await asyncio.shield(delivery)).offset)


class Outbox:
    """The app's own producer (idempotent, acks=all), made anew after an error that it cannot survive."""

    def __init__(
        self, *, broker: Broker, max_batch_bytes: int, request_timeout_s: float, publish_timeout_s: float
    ) -> None:
        self._broker = broker
        self._max_batch_bytes = max_batch_bytes
        self._request_timeout_s = request_timeout_s
        self._publish_timeout_s = publish_timeout_s
        self._line: _Line | None = None
        self._renewal = asyncio.Lock()
        self._retiring: set[asyncio.Task[None]] = set()
        self._partitions: dict[str, int] = {}
        self._turns: defaultdict[tuple[str, int], asyncio.Lock] = defaultdict(asyncio.Lock)

    async def start(self) -> None:
        """Connect; raises `BrokerUnavailable` when no broker answers."""
        self._line = _Line(await self._connect())

    async def stop(self) -> None:
        """Close the producer; what was sent is confirmed already."""
        line, self._line = self._line, None
        if line is not None:
            await line.close()
        if self._retiring:
            await asyncio.wait(self._retiring)

    async def send(self, topic: str, partition: int, records: Sequence[Outgoing]) -> list[int | RecordTooLarge]:
        """Deliver the records in order; return, for each, its offset, or the error if it can never be sent.

        Blocks until the broker has confirmed the last one (acks=all). After a failure halfway, records
        whose confirmation was lost are sent again.

        Raises:
            BrokerUnavailable: deliveries failed for longer than the publish time-out.
        """
        sending = _Sending(records)
        failures: list[BaseException] = []

        async def attempt() -> None:
            try:
                await self._send_rest(topic, partition, sending)
            except (KafkaError, OSError) as error:
                log.warning("delivery to %s failed, tried again: %s", topic, str(error) or type(error).__name__)
                failures[:] = [error]
                raise

        try:
            async with asyncio.timeout(self._publish_timeout_s):
                try:
                    await attempt()
                except (KafkaError, OSError):  # made only now: a batch that arrives at once should not pay for it
                    again = tenacity.wait_random_exponential(multiplier=0.1, max=5)
                    retry = tenacity.retry_if_exception_type((KafkaError, OSError))
                    await asyncio.sleep(_FIRST_PAUSE_S)
                    await tenacity.AsyncRetrying(wait=again, retry=retry)(attempt)
        except TimeoutError as error:
            why = f"{failures[0] if failures else 'no answer'}"
            raise BrokerUnavailable(f"deliveries to {topic} failed for {self._publish_timeout_s:g} s: {why}") from error
        return [result for result in sending.results if result is not None]

    async def partition_for(self, topic: str, partition: int) -> int:
        """Return the same partition number where the topic has it, else one derived from it.

        Raises:
            BrokerUnavailable: the broker did not tell the topic's partitions within the publish time-out.
        """
        n_partitions = self._partitions.get(topic)
        if n_partitions is None:
            n_partitions = await self._count_partitions(topic)
            self._partitions[topic] = n_partitions
        return partition % n_partitions

    async def _count_partitions(self, topic: str) -> int:
        try:
            async with asyncio.timeout(self._publish_timeout_s):
                while True:
                    try:
                        line = self._line or await self._renew(None)
                        return len(await line.producer.partitions_for(topic)) or 1
                    except (KafkaError, OSError) as error:
                        log.warning("the partitions of %s are unknown, asked again: %s", topic, error)
                        await asyncio.sleep(0.5)
        except TimeoutError as error:
            raise BrokerUnavailable(f"no broker told the partitions of {topic}") from error

    async def _send_rest(self, topic: str, partition: int, sending: _Sending) -> None:
        """Send what has no result yet, a batch at a time: the producer holds one for a partition anyway.

        One sender has its turn in a partition: behind a batch that is refused, others' would be out of order.
        """
        async with self._turns[topic, partition]:
            while members := sending.next_members():
                await self._send_some(topic, partition, sending, members)

    async def _send_some(self, topic: str, partition: int, sending: _Sending, members: Sequence[int]) -> None:
        line = self._line or await self._renew(None)
        batch, fitting = self._fill(line, sending, members)
        if not fitting:
            sending.results[members[0]] = too_large(topic, sending.records[members[0]])
            return
        try:
            offset = await line.deliver(topic, partition, batch)
        except KafkaTimeoutError:  # the partition's queue is full: this batch was never taken in
            raise
        except TOO_LARGE:
            if len(fitting) == 1:
                sending.results[fitting[0]] = too_large(topic, sending.records[fitting[0]])
            else:
                sending.alone.update(fitting)
            # the refused batch has used up sequence numbers: what follows would be out of order
            await self._renew(line)
        except (KafkaError, OSError):
            if line is not self._line:  # retired over another partition's batch, which is no reason to back off
                return
            await self._renew(line)
            raise
        else:
            for position, index in enumerate(fitting):
                sending.results[index] = offset + position

    def _fill(self, line: _Line, sending: _Sending, members: Sequence[int]) -> tuple[Any, list[int]]:
        """Return a batch of as many members as fit; none when the first is too large for any batch."""
        batch = line.producer.create_batch()
        fitting: list[int] = []
        append, records, now_ms = batch.append, sending.records, int(time.time() * 1000)
        for index in members:
            record = records[index]
            # a batch takes its first record whatever its size, and drops, without a word, what does not fit later
            if append(timestamp=now_ms, key=record.key, value=record.value, headers=record.headers) is None:
                break
            if not fitting and batch.size() > self._max_batch_bytes:
                break
            fitting.append(index)
        return batch, fitting

    async def _connect(self) -> AIOKafkaProducer:
        producer = new_producer(self._broker, self._max_batch_bytes, self._request_timeout_s)
        try:
            await start_client(producer)
        except BaseException as error:
            await producer.stop()
            if isinstance(error, KafkaError | OSError):
                raise BrokerUnavailable(f"no Kafka broker answers at {self._broker}: {error}") from error
            raise
        return producer

    async def _renew(self, broken: _Line | None) -> _Line:
        """Replace the producer unless somebody has done so already; an idempotent producer that
        lost a batch cannot go on, and a fresh one costs a few milliseconds."""
        async with self._renewal:
            if self._line is not None and self._line is not broken:
                return self._line
            if self._line is not None:
                retiring = asyncio.create_task(self._line.close())
                self._retiring.add(retiring)
                retiring.add_done_callback(self._retiring.discard)
                self._line = None
            try:
                self._line = _Line(await self._connect())
            except BrokerUnavailable as error:
                raise ConnectionError(str(error)) from error
            return self._line


class _Sending:
    """Records on their way to one partition: their results so far, and those that must travel alone."""

    def __init__(self, records: Sequence[Outgoing]) -> None:
        self.records = records
        self.results: list[int | RecordTooLarge | None] = [None] * len(records)
        self.alone: set[int] = set()

    def next_members(self) -> list[int]:
        """Return the next records, in order, that may share a batch; empty when all have a result."""
        todo = [index for index, result in enumerate(self.results) if result is None]
        if self.alone.isdisjoint(todo):
            return todo
        if todo[0] in self.alone:
            return todo[:1]
        return list(itertools.takewhile(lambda index: index not in self.alone, todo))


def too_large(topic: str, record: Outgoing) -> RecordTooLarge:
    """Return the error of a record that can never be sent."""
    size = len(record.value or b"")
    return RecordTooLarge(
        f"a record of {size} bytes does not fit {topic}: raise max_record_bytes and the topic's limit"
    )
