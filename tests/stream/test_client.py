"""A start that is interrupted leaves no connection behind."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, client

from deploy.embedded import EmbeddedServices
from stream.client import start_client, stop_client

pytestmark = pytest.mark.integration


async def test_interrupted_start_leaves_nothing_connected(
    services: EmbeddedServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Any] = []
    connect = client.create_conn

    async def create_conn(*args: Any, **options: Any) -> Any:
        opened.append(await connect(*args, **options))
        return opened[-1]

    monkeypatch.setattr(client, "create_conn", create_conn)
    consumer = AIOKafkaConsumer(bootstrap_servers=services.kafka)
    starting = asyncio.create_task(start_client(consumer))
    while not opened:
        await asyncio.sleep(0)
    starting.cancel()  # the cluster was asked for, nothing was answered yet
    with pytest.raises(asyncio.CancelledError):
        await starting
    await consumer.stop()
    assert not any(connection.connected() for connection in opened)


class Late:
    """A client that takes its time."""

    interrupted = False

    async def start(self) -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            self.interrupted = True
            raise


async def test_start_that_is_late_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stream.client._FINISH_S", 0.05)
    client = Late()
    with pytest.raises(TimeoutError):
        await start_client(client, 0.05)
    assert client.interrupted


async def test_interrupted_stop_is_finished_and_the_interruption_kept(services: EmbeddedServices) -> None:
    """Whenever it comes; the client's own `stop` would take some for the end of one of its tasks."""
    for n_steps in range(1, 12):
        consumer = AIOKafkaConsumer(bootstrap_servers=services.kafka)
        await start_client(consumer)
        stopping = asyncio.create_task(stop_client(consumer))
        for _ in range(n_steps):
            await asyncio.sleep(0)
        was_done = stopping.done()
        stopping.cancel()
        await asyncio.wait([stopping])
        assert stopping.cancelled() or was_done
        assert not consumer._client._conns
