"""Feeds whole fetches of raw records to the app and commits only what is confirmed; never decodes a record."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, TypeVar

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, ConsumerRecord, TopicPartition
from aiokafka.errors import (
    CommitFailedError,
    IllegalStateError,
    InvalidSessionTimeoutError,
    KafkaConnectionError,
    KafkaError,
)

from stream.accepted import Accepted, Fetched, confirm_all, sizes_bytes
from stream.claims import Claims
from stream.consumer import LEAVE_S, IntakeConfig, join, leave
from stream.ending import end_tasks
from stream.errors import StreamError
from stream.offsets import Lease
from stream.records import Origin
from stream.transactions import Transactions

log = logging.getLogger(__name__)

__all__ = ["Accepted", "Fetched", "Intake", "confirm_all"]

_POLL_MS = 200
_SHARES = 16
_END_S = 2.0

Answer = TypeVar("Answer")


class Intake(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka is untyped
    """A consumer-group member that bounds what is in flight and owns its commits.

    `on_granted` is told each partition that came to this worker, `on_lost` those that went to another one, after
    their last commit. With `transactions` it commits through them.
    """

    def __init__(
        self,
        config: IntakeConfig,
        *,
        on_granted: Callable[[TopicPartition], None] = lambda granted: None,
        on_lost: Callable[[set[TopicPartition]], None] = lambda lost: None,
        transactions: Transactions | None = None,
    ) -> None:
        self._config = config
        self._transactions = transactions
        self._on_granted = on_granted
        self._on_lost = on_lost
        self._leases: dict[TopicPartition, Lease] = {}
        self._room = asyncio.Event()
        self._commit_lock = asyncio.Lock()
        self._questions: set[asyncio.Future[Any]] = set()
        self._consumer: AIOKafkaConsumer | None = None
        self._draining = False
        self._claims: Claims | None = None
        self.n_rebalances = 0
        self.n_expired = 0  # records that were deleted before this worker read them
        self.last_progress_s = time.monotonic()
        self._fetched_s = time.monotonic()
        self._gave_up_s = -math.inf  # when a partition went with posts unfinished

    async def start(self) -> None:
        """Join the group; raises aiokafka's `KafkaConnectionError` when no broker answers."""
        config = self._config
        consumer = await join(config, rebalance_timeout_s=max(config.session_timeout_s, 2 * self._revoke_drain_s))
        if self._transactions is not None:
            self._claims = Claims(
                self._transactions,
                consumer,
                session_timeout_s=config.session_timeout_s,
                grant=self._grant,
                lose=self._lose,
            )
        consumer.subscribe([config.topic], listener=self)
        self._consumer = consumer

    @property
    def topic(self) -> str:
        """The topic it takes in."""
        return self._config.topic

    @property
    def n_in_flight(self) -> int:
        """Records accepted and not yet confirmed."""
        return sum(lease.tracker.n_in_flight for lease in self._leases.values())

    @property
    def n_done(self) -> int:
        """Records confirmed that cannot be committed yet, behind one that is not."""
        return sum(lease.tracker.n_done for lease in self._leases.values())

    @property
    def n_bytes_in_flight(self) -> int:
        """Bytes of the same."""
        return sum(lease.n_bytes for lease in self._leases.values())

    @property
    def n_bytes_held(self) -> int:
        """Bytes of what was made of the same."""
        return sum(lease.n_held for lease in self._leases.values())

    async def fetch(self) -> list[Fetched]:
        """Return the next records, a `Fetched` per partition; empty when none came or there is no room.

        Waits at most a moment, so that the caller can look whether it should stop.

        Raises:
            StreamError: the broker does not take the session timeout.
        """
        if self._draining or not self._has_room():
            self._room.clear()
            try:
                await asyncio.wait_for(self._room.wait(), _POLL_MS / 1000)
            except TimeoutError:
                return []
            if self._draining or not self._has_room():
                return []
        room = max(1, min(self._config.max_fetch, self._config.max_in_flight - self.n_in_flight))
        try:
            self._fetched_s = time.monotonic()
            fetched = await self._running.getmany(timeout_ms=_POLL_MS, max_records=room)
        except InvalidSessionTimeoutError as error:
            raise StreamError(
                f"the broker refuses session_timeout_s = {self._config.session_timeout_s:g}: set it between its"
                " group.min.session.timeout.ms and group.max.session.timeout.ms (by default 6 s and 30 min)"
            ) from error
        for partition, records in fetched.items():
            if records:
                await self._note_expired(partition, records[0].offset)
        if self._draining:  # nobody waits for these any more; uncommitted, the next owner gets them
            return []
        accepted = [self._accept(partition, records) for partition, records in fetched.items() if records]
        return [one for one in accepted if one is not None]

    async def commit(self, timeout_s: float | None = None) -> None:
        """Commit what is confirmed; a refusal (rebalance, broker away) is left to the next call."""
        if self._claims is not None:
            async with self._commit_lock:
                await self._claims.commit(self._leases.values(), timeout_s)
            return
        try:
            async with asyncio.timeout(timeout_s or self._config.request_timeout_s), self._commit_lock:
                leases = {lease.partition: lease for lease in self._leases.values() if lease.due is not None}
                offsets = {partition: lease.tracker.committable for partition, lease in leases.items()}
                if offsets:
                    await self._ask(self._running.commit(offsets))
                    for partition, lease in leases.items():
                        lease.committed = offsets[partition]
        except (CommitFailedError, IllegalStateError) as error:
            log.info("commit refused, the partitions moved: %s", error)
        except (KafkaError, TimeoutError) as error:  # a client without a broker would try for ever
            log.warning("commit failed, tried again later: %s", str(error) or type(error).__name__)

    async def drain(self) -> bool:
        """Stop taking in, wait for what is in flight at most the drain time; True when nothing is left."""
        self._draining = True
        return await self._wait_idle(list(self._leases.values()), self._config.drain_timeout_s)

    async def stop(self) -> None:
        """Commit and leave the group, so that another worker takes over at once."""
        consumer, self._draining = self._consumer, True
        if consumer is None:
            return
        if self._claims is not None:
            self._claims.stop()
        try:
            await self.commit(LEAVE_S)
        finally:  # transactions may fail for good, and the partitions are another worker's all the same
            for lease in tuple(self._leases.values()):
                self._give_up(lease)
            self._consumer = None
            await end_tasks(self._questions)
            await leave(consumer)

    async def lag(self) -> dict[int, int]:
        """Return log-end offset minus committed offset, in messages, by partition of this worker.

        A partition whose end the broker does not tell, as one without a leader, is left out.

        Raises:
            KafkaError, TimeoutError: the broker tells nothing.
        """
        return {} if self._consumer is None else await self._ask(self._lag(self._consumer))

    async def _lag(self, consumer: AIOKafkaConsumer) -> dict[int, int]:
        partitions = list(consumer.assignment())
        told = await asyncio.gather(*(_end(consumer, partition) for partition in partitions), return_exceptions=True)
        ends = {partition: end for partition, end in zip(partitions, told, strict=True) if isinstance(end, int)}
        unknown = [error for error in told if isinstance(error, BaseException)]
        if unknown and not ends:
            raise unknown[0]
        return {partition.partition: await self._behind(consumer, partition, end) for partition, end in ends.items()}

    async def _behind(self, consumer: AIOKafkaConsumer, partition: TopicPartition, end: int) -> int:
        lease = self._leases.get(partition)
        if lease is None:  # assigned and not taken over yet
            return max(0, end - (await consumer.committed(partition) or 0))
        if lease.committed is None:
            lease.committed = await consumer.committed(partition) or 0
        committed = lease.committed
        if lease.tracker.n_in_flight == 0 and not lease.lost:  # past markers of transactions, which are no posts
            committed = max(committed, await consumer.position(partition))
        return max(0, end - committed)

    def is_in_flight(self, origin: Origin) -> bool:
        """Whether a record of this topic was accepted here and its outcome is not confirmed."""
        lease = self._leases.get(TopicPartition(origin.topic, origin.partition))
        return lease is not None and lease.tracker.is_pending(origin.offset)

    async def reach(self) -> None:
        """Ask the broker for its topics; raises its client's error when it does not answer."""
        await self._ask(self._running.topics())

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Finish what can be finished in a moment, commit it, and give the rest up to the next owner."""
        leases = [lease for partition in revoked if (lease := self._leases.get(partition)) is not None]
        if not self._draining:
            await self._wait_idle(leases, self._revoke_drain_s)
        try:
            await self.commit(self._revoke_drain_s)
        finally:  # transactions may fail for good, and the partitions are another worker's all the same
            for lease in leases:
                self._give_up(lease)
            if leases:
                self._on_lost({lease.partition for lease in leases})

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Start a new lease on each partition."""
        self.n_rebalances += 1
        assigned = list(assigned)
        for partition in assigned:
            if (former := self._leases.get(partition)) is not None:
                self._give_up(former)
        if self._claims is not None:
            await self._claims.take_over(assigned)
        else:
            for partition in assigned:
                self._grant(partition)
        log.info("partitions assigned: %s", sorted(p.partition for p in self._leases))

    async def _ask(self, question: Coroutine[Any, Any, Answer]) -> Answer:
        """Have the broker answer unless the intake stops meanwhile: a closed client would connect again to ask."""
        asked, asker = asyncio.ensure_future(question), asyncio.current_task()
        self._questions.add(asked)
        try:
            return await asked
        except asyncio.CancelledError:
            if asker is None or asker.cancelling():
                raise
            raise KafkaConnectionError("the intake has stopped") from None
        finally:
            self._questions.discard(asked)

    @property
    def _revoke_drain_s(self) -> float:
        return min(self._config.drain_timeout_s, self._config.session_timeout_s / 3)

    @property
    def _running(self) -> AIOKafkaConsumer:
        if self._consumer is None:
            raise RuntimeError("the intake is not started")
        return self._consumer

    def _has_room(self) -> bool:
        config = self._config
        if self._transactions is not None and self._transactions.n_staged >= config.max_in_flight:
            return False
        room = config.max_in_flight - self.n_in_flight
        # not for a handful: a small fetch costs as much as a large one
        worth_a_fetch = max(1, min(config.max_fetch, config.max_in_flight // _SHARES))
        if time.monotonic() - self._fetched_s > config.max_stall_s / 3:  # a member that never fetches is put out
            worth_a_fetch = 1
        return room >= worth_a_fetch and self.n_bytes_in_flight < config.max_in_flight_bytes

    def _accept(self, partition: TopicPartition, records: list[ConsumerRecord]) -> Fetched | None:
        lease = self._leases.get(partition)
        if lease is None or lease.lost:
            self._put_back(partition, records[0].offset)
            return None
        if records[0].offset <= lease.tracker.last_accepted:
            log.warning("%s begins anew at offset %d: it was deleted or cut", partition, records[0].offset)
            self._lose(lease)
            self._grant(partition)
            lease = self._leases[partition]
        now_s = time.monotonic()
        if self.n_in_flight == 0 and now_s - self._gave_up_s > self._config.max_stall_s:
            self.last_progress_s = now_s
        lease.accept([record.offset for record in records], sum(sizes_bytes(records)))
        return Fetched(records, lease)

    async def _note_expired(self, partition: TopicPartition, first: int) -> None:
        """Tell of records that the topic deleted unread, for its consumer passes over them in silence.

        The offsets of markers and of compacted records are missing as well, but not from before the log's start.
        """
        lease = self._leases.get(partition)
        if lease is None:
            return
        consumer = self._running
        try:
            async with asyncio.timeout(_END_S):
                expected = lease.tracker.last_accepted + 1 or await self._ask(consumer.committed(partition))
                if not expected or first <= expected:
                    return
                starts: dict[TopicPartition, int] = await self._ask(consumer.beginning_offsets([partition]))
        except (KafkaError, TimeoutError) as error:
            why = str(error) or type(error).__name__
            log.warning("%s goes on at offset %d: were posts before it deleted unread? (%s)", partition, first, why)
            return
        n_expired = min(starts[partition], first) - expected
        if n_expired > 0:
            self.n_expired += n_expired
            log.error(
                "%s: %d posts from offset %d on were deleted unread: raise retention.ms of the topic, or add workers",
                partition,
                n_expired,
                expected,
            )

    def _put_back(self, partition: TopicPartition, offset: int) -> None:
        """Have records without a lease fetched again by whoever owns the partition, be it this worker."""
        try:
            self._running.seek(partition, offset)
        except IllegalStateError:
            log.info("partition %d went to another worker while it was fetched", partition.partition)

    def _note_progress(self) -> None:
        self.last_progress_s = time.monotonic()
        self._gave_up_s = -math.inf
        self._room.set()

    def _grant(self, partition: TopicPartition) -> None:
        self._leases[partition] = Lease(partition, on_progress=self._note_progress)
        self._on_granted(partition)

    def _lose(self, lease: Lease) -> None:
        self._give_up(lease)
        self._on_lost({lease.partition})

    def _give_up(self, lease: Lease) -> None:
        if lease.tracker.n_in_flight:
            self._gave_up_s = time.monotonic()
        lease.give_up()
        if self._transactions is not None:
            self._transactions.drop(lease)
        self._leases.pop(lease.partition, None)
        self._room.set()

    async def _wait_idle(self, leases: list[Lease], timeout_s: float) -> bool:
        waits = [asyncio.ensure_future(lease.idle.wait()) for lease in leases if not lease.idle.is_set()]
        if not waits:
            return True
        _, pending = await asyncio.wait(waits, timeout=timeout_s)
        for wait in pending:
            wait.cancel()
        return not pending


async def _end(consumer: AIOKafkaConsumer, partition: TopicPartition) -> int:
    async with asyncio.timeout(_END_S):
        ends: dict[TopicPartition, int] = await consumer.end_offsets([partition])
    return ends[partition]
