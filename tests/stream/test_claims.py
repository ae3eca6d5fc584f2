"""Partitions that cannot be taken over, on doubles: the worker hears of it, whatever the reason."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import IllegalStateError

from stream.claims import Claims
from stream.errors import BrokerUnavailable, StreamError
from stream.offsets import Lease
from stream.transactions import Fenced

GOOD, BAD = TopicPartition("posts", 1), TopicPartition("posts", 2)


class Transactions:
    """Opens all partitions but one, for which `answer` says what happens."""

    publish_timeout_s = 0.3

    def __init__(self) -> None:
        self.answer: Callable[[], Awaitable[None]] = answered
        self.opened: list[TopicPartition] = []

    async def open(self, partition: TopicPartition) -> None:
        self.opened.append(partition)
        if partition == BAD:
            await self.answer()

    async def commit(self, lease: Lease, due: int, *, committed: object) -> None:
        if lease.partition == BAD:
            raise Fenced("it has another worker")


class Consumer:
    """A member that owns both partitions."""

    def __init__(self) -> None:
        self.assigned = {GOOD, BAD}

    def assignment(self) -> set[TopicPartition]:
        return self.assigned

    async def committed(self, partition: TopicPartition) -> int:
        return 7

    def seek(self, partition: TopicPartition, offset: int) -> None:
        if partition not in self.assigned:
            raise IllegalStateError(partition)

    def pause(self, partition: TopicPartition) -> None: ...

    def resume(self, partition: TopicPartition) -> None: ...


class Member:
    """Claims of both partitions, and what came of them."""

    def __init__(self) -> None:
        self.transactions, self.consumer = Transactions(), Consumer()
        self.granted: list[TopicPartition] = []
        transactions: Any = self.transactions
        self.claims = Claims(
            transactions, self.consumer, session_timeout_s=0.01, grant=self.granted.append, lose=Lease.give_up
        )

    async def take_over(self) -> None:
        await self.claims.take_over([GOOD, BAD])


@pytest.fixture
def member(monkeypatch: pytest.MonkeyPatch) -> Member:
    monkeypatch.setattr("stream.claims._RETRY_S", 0.01)
    return Member()


async def answered() -> None: ...


async def refused() -> None:
    raise BrokerUnavailable("no coordinator")


async def broken() -> None:
    raise ValueError("odd answer")


async def silent() -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (refused, " for 0.3 s: no coordinator"),
        (silent, " for 0.3 s: no answer"),
        (broken, r": ValueError\('odd answer'\)"),
    ],
)
async def test_partition_that_cannot_be_taken_over_is_named(
    member: Member, answer: Callable[[], Awaitable[None]], why: str
) -> None:
    """Not by `take_over`, whose caller would log it and go on; the other partition is read all the same."""
    member.transactions.answer = answer
    async with asyncio.timeout(5):
        await member.take_over()
    assert member.granted == [GOOD]
    with pytest.raises(StreamError, match=f"partition 2 of posts could not be taken over{why}"):
        await member.claims.commit([], None)


async def test_partition_that_is_taken_over_in_time_is_no_error(member: Member) -> None:
    async def refused_twice() -> None:
        if member.transactions.opened.count(BAD) <= 2:
            await refused()

    member.transactions.answer = refused_twice
    await member.take_over()
    await member.claims.commit([], None)
    assert member.granted == [GOOD, BAD]


@pytest.mark.parametrize("answer", [refused, broken])
async def test_partition_that_cannot_be_taken_back_is_named(
    member: Member, answer: Callable[[], Awaitable[None]]
) -> None:
    """Nobody waits for the task that tries it."""
    member.transactions.answer = answer
    lease = Lease(BAD, on_progress=lambda: None)
    lease.accept([7], 1)
    lease.confirm(7, 1)
    await member.claims.commit([lease], None)
    async with asyncio.timeout(5):
        await asyncio.wait(member.claims._reclaims)
    with pytest.raises(StreamError, match="partition 2 of posts could not be taken over"):
        await member.claims.commit([], None)


async def test_partition_that_went_to_another_worker_is_no_error(member: Member) -> None:
    """And is not fenced again: that would be the other worker."""

    async def refused_and_gone() -> None:
        member.consumer.assigned = {GOOD}
        await refused()

    member.transactions.answer = refused_and_gone
    await member.take_over()
    await member.claims.commit([], None)
    assert member.transactions.opened.count(BAD) == 1


async def test_last_commit_does_not_repeat_the_error(member: Member) -> None:
    """The worker stops for it already, and has to leave its group."""
    member.transactions.answer = broken
    await member.take_over()
    member.claims.stop()
    await member.claims.commit([], None)
