"""Following a topic: silence of a broker that went away is told from there being nothing new."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaConnectionError

from stream.broker import Broker
from stream.reader import tail_topic


class Consumer:
    """Stands in for aiokafka's: brings what is put there, and knows whether its broker answers."""

    waiting: list[Any]
    is_away: bool

    def __init__(self, **config: Any) -> None:
        type(self).waiting, type(self).is_away = [], False
        self._client = self

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def fetch_all_metadata(self) -> Any:
        return SimpleNamespace(partitions_for_topic=lambda topic: {0})

    async def end_offsets(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        if self.is_away:
            raise KafkaConnectionError("away")
        return dict.fromkeys(partitions, 0)

    def assign(self, partitions: list[TopicPartition]) -> None: ...

    def seek(self, partition: TopicPartition, offset: int) -> None: ...

    async def getmany(self, *, timeout_ms: int, max_records: int) -> dict[TopicPartition, list[Any]]:
        await asyncio.sleep(0.001)
        given, type(self).waiting = self.waiting, []
        return {TopicPartition("findings", 0): given} if given else {}


async def test_broker_that_goes_and_comes_back_is_told_once_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stream.reader.AIOKafkaConsumer", Consumer)
    monkeypatch.setattr("stream.reader._SILENCE_S", 0.02)
    told: list[bool] = []
    seen: list[Any] = []

    async def follow() -> None:
        async for record in tail_topic(Broker("nowhere:1"), "findings", on_away=told.append):
            seen.append(record)

    async def until(expected: list[bool]) -> None:
        async with asyncio.timeout(5):
            while told != expected:
                await asyncio.sleep(0.005)

    following = asyncio.create_task(follow())
    await asyncio.sleep(0.1)
    assert told == []  # nothing new is no news
    Consumer.is_away = True
    await until([True])
    await asyncio.sleep(0.1)
    Consumer.is_away = False
    await until([True, False])
    Consumer.is_away = True
    await until([True, False, True])
    Consumer.waiting = ["a record"]
    await until([True, False, True, False])
    assert seen == ["a record"]
    following.cancel()
