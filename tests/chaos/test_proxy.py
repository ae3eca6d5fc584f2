"""The bad network is bad in the ways it says, else the suite would prove nothing."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.chaos.proxy import Proxy, Weather


@pytest.fixture
async def echo() -> AsyncIterator[tuple[int, list[bytes]]]:
    """A server that sends back what it gets, and what it got."""
    got: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(1024):
                got.append(data)
                writer.write(data)
        except OSError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1], got
    server.close()


@pytest.fixture
def proxy(echo: tuple[int, list[bytes]]) -> Iterator[Proxy]:
    """A proxy before the server."""
    opened = Proxy(echo[0], chance=random.Random(1))
    yield opened
    opened.stop()


class Client:
    """One connection through the proxy."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def open(cls, proxy: Proxy) -> Client:
        """Connect."""
        return cls(*await asyncio.open_connection("127.0.0.1", proxy.port))

    async def ask(self, text: bytes, timeout_s: float = 2.0) -> bytes:
        """Send and return what comes back."""
        self.writer.write(text)
        return await asyncio.wait_for(self.reader.read(1024), timeout_s)

    def close(self) -> None:
        """Close without a word."""
        self.writer.transport.abort()


@pytest.fixture
async def client(proxy: Proxy) -> AsyncIterator[Client]:
    """A connection that works."""
    opened = await Client.open(proxy)
    assert await opened.ask(b"hello") == b"hello"
    yield opened
    opened.close()


@pytest.mark.alone
async def test_delay_counts_both_ways(proxy: Proxy, client: Client) -> None:
    proxy.weather = Weather(delay_s=0.1)
    start = time.monotonic()
    assert await client.ask(b"slow") == b"slow"
    assert 0.2 <= time.monotonic() - start < 0.5


async def test_loss_makes_late_and_breaks(proxy: Proxy) -> None:
    proxy.weather = Weather(loss=0.5)
    n_late, n_broken = 0, 0
    connection = await Client.open(proxy)
    for _ in range(30):
        start = time.monotonic()
        try:
            assert await connection.ask(b"x", 5.0) == b"x"
        except (OSError, AssertionError):
            n_broken += 1
            connection.close()
            connection = await Client.open(proxy)
        n_late += time.monotonic() - start > 0.2
        if n_late > 1 and n_broken:
            break
    connection.close()
    assert n_late > 1
    assert n_broken == proxy.n_resets > 0


async def test_cut_holds_back_and_then_delivers(proxy: Proxy, client: Client, echo: tuple[int, list[bytes]]) -> None:
    proxy.weather = Weather(is_cut=True)
    with pytest.raises(TimeoutError):
        await client.ask(b"held", 0.2)
    assert b"held" not in echo[1]
    proxy.weather = Weather()
    assert await asyncio.wait_for(client.reader.read(1024), 2) == b"held"


async def test_frozen_connection_stays_silent_while_new_ones_work(proxy: Proxy, client: Client) -> None:
    assert proxy.freeze() == 1
    with pytest.raises(TimeoutError):
        await client.ask(b"frozen", 0.2)
    fresh = await Client.open(proxy)
    assert await fresh.ask(b"fresh") == b"fresh"
    fresh.close()


async def test_lost_answer_was_a_request_that_arrived(
    proxy: Proxy, client: Client, echo: tuple[int, list[bytes]]
) -> None:
    proxy.weather = Weather(answers_lost=True)
    with pytest.raises(TimeoutError):
        await client.ask(b"lost", 0.2)
    assert b"lost" in echo[1]
    assert proxy.n_answers_lost == 1
    proxy.weather = Weather()
    assert proxy.reset() == 1
    with pytest.raises(ConnectionResetError):
        await client.reader.read(1024)
