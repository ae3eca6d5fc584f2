"""Takes partitions over and commits their leases in exactly-once mode; ordinary commits never come here."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import IllegalStateError, KafkaError

from stream.errors import BrokerUnavailable, StreamError
from stream.offsets import Lease
from stream.transactions import Fenced, Transactions

log = logging.getLogger(__name__)

_RETRY_S = 1.0


class Claims:
    """The partitions of one member: `grant` is called when one may be read, `lose` when it has another worker."""

    def __init__(
        self,
        transactions: Transactions,
        consumer: AIOKafkaConsumer,
        *,
        session_timeout_s: float,
        grant: Callable[[TopicPartition], None],
        lose: Callable[[Lease], None],
    ) -> None:
        self._transactions = transactions
        self._consumer = consumer
        self._session_timeout_s = session_timeout_s
        self._grant = grant
        self._lose = lose
        self._reclaims: set[asyncio.Task[None]] = set()
        self._failure: tuple[str, Exception] | None = None
        self._stopped = False

    async def take_over(self, partitions: Iterable[TopicPartition]) -> None:
        """Claim newly assigned partitions; returns when they may be read, or `commit` has an error to raise."""
        self._forget_reclaims()
        await asyncio.gather(*(self._claim(partition) for partition in partitions))

    async def commit(self, leases: Iterable[Lease], timeout_s: float | None) -> None:
        """Commit what is due of each lease, in a transaction each; failures are left to the next call.

        Raises:
            StreamError: transactions fail for good, or a partition could not be taken over.
        """
        try:
            async with asyncio.timeout(timeout_s):
                await asyncio.gather(*(self._commit(lease) for lease in leases if lease.due is not None))
        except TimeoutError:
            log.warning("a transaction did not end in time; its posts are done again unless it was committed")
        if self._failure is not None and not self._stopped:
            message, error = self._failure
            raise StreamError(message) from error

    def stop(self) -> None:
        """Claim nothing any more."""
        self._stopped = True
        self._forget_reclaims()

    async def _commit(self, lease: Lease) -> None:
        due = lease.due
        assert due is not None
        try:
            await self._transactions.commit(lease, due, committed=self._consumer.committed)
        except Fenced as error:
            log.warning("%s", error)
            if not lease.lost:
                self._lose(lease)
                reclaim = asyncio.create_task(self._reclaim(lease.partition))
                self._reclaims.add(reclaim)
                reclaim.add_done_callback(self._reclaims.discard)
        except BrokerUnavailable as error:
            log.warning("tried again later: %s", error)
        else:
            lease.committed = due

    async def _claim(self, partition: TopicPartition) -> None:
        """Claim within the publish time-out, or leave the error to `commit`: whoever waits here would only log it."""
        refusals: list[BrokerUnavailable | KafkaError] = []
        timeout_s = self._transactions.publish_timeout_s
        name = f"partition {partition.partition} of {partition.topic}"
        try:
            async with asyncio.timeout(timeout_s) as bound:
                await self._claim_at_last(partition, refusals)
        except Exception as error:
            if bound.expired():
                why = refusals[-1] if refusals else "no answer"
                self._failure = (f"{name} could not be taken over for {timeout_s:g} s: {why}", error)
            else:
                self._failure = (f"{name} could not be taken over: {error!r}", error)

    async def _claim_at_last(self, partition: TopicPartition, refusals: list[BrokerUnavailable | KafkaError]) -> None:
        """Fence the partition's former owner, then start where that one ended; tries until it is done."""
        consumer = self._consumer
        while not self._stopped and partition in consumer.assignment():
            try:
                await self._transactions.open(partition)
                offset = await consumer.committed(partition)
                if offset is None:
                    offset = (await consumer.beginning_offsets([partition]))[partition]
                consumer.seek(partition, offset)
                consumer.resume(partition)
            except IllegalStateError:  # it went to another worker meanwhile
                return
            except (BrokerUnavailable, KafkaError) as error:
                log.warning("partition %d cannot be taken over, tried again: %s", partition.partition, error)
                refusals[:] = [error]
                await asyncio.sleep(_RETRY_S)
            else:
                self._grant(partition)
                return

    async def _reclaim(self, partition: TopicPartition) -> None:
        """Take a partition back that is still assigned when a member that overslept would know better."""
        with contextlib.suppress(IllegalStateError):
            self._consumer.pause(partition)
        await asyncio.sleep(self._session_timeout_s)
        await self._claim(partition)

    def _forget_reclaims(self) -> None:
        for reclaim in self._reclaims:
            reclaim.cancel()
