"""An idle consumer costs next to nothing, also on a broker that answers empty fetches at once."""

from __future__ import annotations

import asyncio

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.consumer.fetcher import Fetcher

from stream.broker import Broker
from stream.reader import tail_topic
from tests.integration.conftest import OpenField

pytestmark = pytest.mark.integration


def test_idle_consumer_rests_and_still_hears_at_once(
    open_field: OpenField, runner: asyncio.Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some tens of fetches a second instead of thousands, and a record is there within a moment."""
    field = open_field("patience", partitions=2)
    topic, n_asked = field.topics.posts.name, 0

    async def measure() -> tuple[int, float]:
        nonlocal n_asked
        received = asyncio.Event()

        async def listen() -> None:
            async for _ in tail_topic(Broker(field.kafka), topic):
                received.set()

        listening = asyncio.create_task(listen())
        await asyncio.sleep(1.0)
        ask = Fetcher._proc_fetch_request

        async def counted(self: Fetcher, *args: object) -> object:
            nonlocal n_asked
            n_asked += 1
            return await ask(self, *args)

        monkeypatch.setattr(Fetcher, "_proc_fetch_request", counted)
        await asyncio.sleep(2.0)
        n_idle = n_asked
        producer = AIOKafkaProducer(bootstrap_servers=field.kafka)
        await producer.start()
        await producer.send_and_wait(topic, b"{}")
        start_s = asyncio.get_running_loop().time()
        await asyncio.wait_for(received.wait(), 5)
        waited_s = asyncio.get_running_loop().time() - start_s
        await producer.stop()
        listening.cancel()
        await asyncio.wait({listening})
        return n_idle, waited_s

    n_idle, waited_s = runner.run(measure())
    assert 0 < n_idle < 2 * 100
    assert waited_s < 1.0
