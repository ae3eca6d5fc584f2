"""Sends whole batches and returns once the broker has confirmed them; retries within a bound, never drops."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import tenacity
from aiokafka import AIOKafkaProducer
from aiokafka.errors import InvalidMessageError, KafkaError, MessageSizeTooLargeError, RecordListTooLargeError

from stream.errors import BrokerUnavailable, RecordTooLarge
from stream.headers import Headers

log = logging.getLogger(__name__)

_TOO_LARGE = (MessageSizeTooLargeError, RecordListTooLargeError, InvalidMessageError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """One record to send."""

    key: bytes | None
    value: bytes | None
    headers: Headers = field(default_factory=list)


class Outbox:
    """The app's own producer (idempotent, acks=all), made anew after an error that it cannot survive."""

    def __init__(
        self, *, bootstrap: str, max_batch_bytes: int, request_timeout_s: float, publish_timeout_s: float
    ) -> None:
        self._bootstrap = bootstrap
        self._max_batch_bytes = max_batch_bytes
        self._request_timeout_s = request_timeout_s
        self._publish_timeout_s = publish_timeout_s
        self._producer: AIOKafkaProducer | None = None
        self._renewal = asyncio.Lock()
        self._partitions: dict[str, int] = {}

    async def start(self) -> None:
        """Connect; raises `BrokerUnavailable` when no broker answers."""
        self._producer = await self._connect()

    async def stop(self) -> None:
        """Close the producer; what was sent is confirmed already."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await producer.stop()

    async def send(self, topic: str, partition: int, records: Sequence[Outgoing]) -> list[int | RecordTooLarge]:
        """Deliver the records in order; return, for each, its offset, or the error if it can never be sent.

        Blocks until the broker has confirmed the last one (acks=all).

        Raises:
            BrokerUnavailable: deliveries failed for longer than the publish time-out.
        """
        results: list[int | RecordTooLarge | None] = [None] * len(records)
        retrying = tenacity.AsyncRetrying(
            stop=tenacity.stop_after_delay(self._publish_timeout_s),
            wait=tenacity.wait_random_exponential(multiplier=0.1, max=5),
            retry=tenacity.retry_if_exception_type((KafkaError, OSError)),
            before_sleep=lambda state: log.warning(
                "delivery to %s failed, attempt %d: %s", topic, state.attempt_number, _outcome(state)
            ),
        )
        try:
            async for attempt in retrying:
                with attempt:
                    producer = self._producer or await self._renew(None)
                    try:
                        await self._send_once(producer, topic, partition, records, results)
                    except (KafkaError, OSError):
                        await self._renew(producer)
                        raise
        except tenacity.RetryError as error:
            raise BrokerUnavailable(
                f"deliveries to {topic} failed for {self._publish_timeout_s:g} s: {error.last_attempt.exception()}"
            ) from error
        return [result for result in results if result is not None]

    async def partition_for(self, topic: str, partition: int) -> int:
        """Return the same partition number where the topic has it, else one derived from it."""
        n_partitions = self._partitions.get(topic)
        if n_partitions is None:
            producer = self._producer or await self._renew(None)
            n_partitions = len(await producer.partitions_for(topic)) or 1
            self._partitions[topic] = n_partitions
        return partition % n_partitions

    async def _send_once(
        self,
        producer: AIOKafkaProducer,
        topic: str,
        partition: int,
        records: Sequence[Outgoing],
        results: list[int | RecordTooLarge | None],
    ) -> None:
        todo = [index for index, result in enumerate(results) if result is None]
        sent: list[tuple[list[int], Any]] = []
        batch, members = producer.create_batch(), []
        for index in todo:
            if self._append(batch, records[index]):
                members.append(index)
                continue
            if members:  # append drops what does not fit: start a new batch and append again
                sent.append((members, await producer.send_batch(batch, topic, partition=partition)))
                batch, members = producer.create_batch(), []
            if self._append(batch, records[index]):
                members.append(index)
            else:
                results[index] = _too_large(topic, records[index])
                batch = producer.create_batch()
        if members:
            sent.append((members, await producer.send_batch(batch, topic, partition=partition)))
        failure: BaseException | None = None
        for members, future in sent:
            try:
                metadata = await future
            except _TOO_LARGE:
                if len(members) == 1:
                    results[members[0]] = _too_large(topic, records[members[0]])
                else:
                    await self._send_singly(producer, topic, partition, records, results, members)
            except (KafkaError, OSError) as error:
                failure = failure or error
            else:
                for position, index in enumerate(members):
                    results[index] = metadata.offset + position
        if failure is not None:
            raise failure

    async def _send_singly(
        self,
        producer: AIOKafkaProducer,
        topic: str,
        partition: int,
        records: Sequence[Outgoing],
        results: list[int | RecordTooLarge | None],
        members: list[int],
    ) -> None:
        for index in members:
            one: list[int | RecordTooLarge | None] = [None]
            await self._send_once(producer, topic, partition, [records[index]], one)
            results[index] = one[0]

    @staticmethod
    def _append(batch: Any, record: Outgoing) -> bool:
        appended = batch.append(timestamp=None, key=record.key, value=record.value, headers=record.headers)
        return appended is not None

    async def _connect(self) -> AIOKafkaProducer:
        producer = AIOKafkaProducer(
            bootstrap_servers=self._bootstrap,
            enable_idempotence=True,
            acks="all",
            max_batch_size=self._max_batch_bytes,
            max_request_size=self._max_batch_bytes,
            request_timeout_ms=int(self._request_timeout_s * 1000),
        )
        try:
            await producer.start()
        except (KafkaError, OSError) as error:
            await producer.stop()
            raise BrokerUnavailable(f"no Kafka broker answers at {self._bootstrap}: {error}") from error
        return producer

    async def _renew(self, broken: AIOKafkaProducer | None) -> AIOKafkaProducer:
        """Replace the producer unless somebody has done so already; an idempotent producer that
        lost a batch cannot go on, and a fresh one costs a few milliseconds."""
        async with self._renewal:
            if self._producer is not None and self._producer is not broken:
                return self._producer
            self._producer = None
            if broken is not None:
                try:
                    await asyncio.wait_for(broken.stop(), timeout=self._request_timeout_s)
                except (TimeoutError, KafkaError, OSError) as error:
                    log.info("closing a broken producer: %s", error)
            try:
                self._producer = await self._connect()
            except BrokerUnavailable as error:
                raise OSError(str(error)) from error
            return self._producer


def _too_large(topic: str, record: Outgoing) -> RecordTooLarge:
    size = len(record.value or b"")
    return RecordTooLarge(
        f"a record of {size} bytes does not fit {topic}: raise max_record_bytes and the topic's limit"
    )


def _outcome(state: tenacity.RetryCallState) -> str:
    error = state.outcome.exception() if state.outcome is not None else None
    return f"{type(error).__name__}: {error}"
