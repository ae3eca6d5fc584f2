"""The cache writer: nothing waits for Redis, the buffer is bounded, and an outage leaves no hole."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Sequence
from typing import Any

import hiredis
import pytest

from stream.cache import Entry, FindingCache, connect_cache
from stream.cache_writer import CacheWriter
from stream.ending import end_tasks
from stream.errors import BrokerUnavailable
from stream.records import Alert, Finding
from tests.stream.findings import MemoryCache, alert, entries, finding, quick_breaker

MAX_BUFFER = 10


class RefilledCache(MemoryCache):
    """What comes from the topic is kept as what comes from the pipeline."""

    async def restore(self, entries: Sequence[Entry]) -> list[Entry]:
        """Keep them."""
        await self.store(entries)
        return list(entries)


class Bench:
    """A writer at work on a cache, in memory unless told otherwise, and the topic that it refills from."""

    def __init__(self, cache: FindingCache | None = None) -> None:
        self.cache = RefilledCache()
        self.topic: list[Entry] = []
        self.n_refills = 0
        self.n_errors = 0
        self.on_refill: Callable[[], None] = lambda: None
        self.may_read = asyncio.Event()  # the topics, for a refill or at their ends
        self.may_read.set()
        self.left_behind: dict[int, list[Entry]] = {}
        self.n_looks = 0
        self.on_look: Callable[[], None] = lambda: None
        self.writer = CacheWriter(
            cache or self.cache,
            breaker=quick_breaker(),
            max_buffer=MAX_BUFFER,
            refill=self._refill,
            bring_missing=self._bring_missing,
            on_error=self._on_error,
        )

    def publish(self, *records: Finding | Alert) -> None:
        """Publish them, then hand them to the writer, as the worker does."""
        self.topic += entries(*records)
        self.writer.offer(entries(*records))

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until it is so."""
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0.005)

    @property
    def is_current(self) -> bool:
        """Whether the cache holds all that was published."""
        return self.cache.whole and self.cache.stored == {one.id: one for one in self.topic}

    async def _refill(self) -> AsyncIterator[Entry]:
        self.n_refills += 1
        for entry in list(self.topic):
            yield entry
        await self.may_read.wait()
        self.on_refill()

    async def _bring_missing(self, partitions: Collection[int]) -> int:
        self.n_looks += 1
        await self.may_read.wait()
        self.on_look()
        missing = [one for number in partitions for one in self.left_behind[number]]
        await self.cache.store(missing)
        return len(missing)

    def _on_error(self) -> None:
        self.n_errors += 1


@contextlib.asynccontextmanager
async def at_work(*loops: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run these of a writer's loops, and end them as the worker does: redis-py's calls can miss a cancellation."""
    tasks = [asyncio.create_task(one) for one in loops]
    try:
        yield
        for running in tasks:
            assert not running.done(), running.exception()
    finally:
        await end_tasks(tasks)


@contextlib.asynccontextmanager
async def failed_over() -> AsyncIterator[str]:
    """A Redis URL whose first connection leads to what is a replica by now, and later ones to the primary."""
    n_connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal n_connections
        n_connections += 1
        answers = {b"EXISTS": b":1\r\n", b"EVAL": b"+OK\r\n" if n_connections > 1 else b"-READONLY a replica\r\n"}
        requests = hiredis.Reader()
        while data := await reader.read(65_536):
            requests.feed(data)
            while words := requests.gets():
                writer.write(answers.get(words[0], b"+OK\r\n"))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0?protocol=2"


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    """A writer that runs."""
    bench = Bench()
    async with at_work(bench.writer.run(), bench.writer.run_checks()):
        yield bench


async def test_findings_and_alerts_are_written(bench: Bench) -> None:
    bench.publish(finding(1), finding(2), alert(1))
    assert await bench.writer.flush(5.0)
    await bench.until(lambda: bench.is_current)
    assert bench.writer.available
    assert bench.n_refills == 1  # a cache without its mark is filled once


async def test_short_outage_is_bridged_by_the_buffer(bench: Bench) -> None:
    await bench.until(lambda: bench.cache.whole)
    bench.cache.down = True
    bench.publish(*map(finding, range(MAX_BUFFER)))
    await bench.until(lambda: not bench.writer.available)
    assert not await bench.writer.flush(0.05)
    assert bench.n_errors >= 2
    bench.cache.down = False
    await bench.until(lambda: bench.is_current and bench.writer.available)
    assert (bench.n_refills, bench.writer.n_dropped) == (1, 0)


async def test_overflowing_buffer_is_made_good_from_the_topic(bench: Bench) -> None:
    await bench.until(lambda: bench.cache.whole)
    bench.cache.down = True
    for number in range(50):
        bench.publish(finding(number))
        assert bench.writer.n_buffered <= MAX_BUFFER + 256  # what is on its way to Redis waits apart
    assert bench.writer.n_dropped == 50 - MAX_BUFFER
    bench.cache.down = False
    await bench.until(lambda: bench.is_current)
    assert bench.n_refills == 2


async def test_pipeline_that_is_faster_than_redis_waits_for_room_and_drops_nothing(bench: Bench) -> None:
    await bench.until(lambda: bench.cache.whole)
    for number in range(20 * MAX_BUFFER):
        await bench.writer.room()
        bench.publish(finding(number))
    await bench.until(lambda: bench.is_current)
    assert (bench.writer.n_dropped, bench.n_refills) == (0, 1)


async def test_nobody_waits_for_room_while_redis_is_away(bench: Bench) -> None:
    await bench.until(lambda: bench.cache.whole)
    bench.cache.down = True
    bench.publish(*map(finding, range(MAX_BUFFER)))
    await bench.until(lambda: not bench.writer.available)
    async with asyncio.timeout(0.5):
        await bench.writer.room()
    bench.cache.down = False


async def test_redis_that_comes_back_empty_is_filled_again(bench: Bench) -> None:
    bench.publish(*map(finding, range(5)))
    await bench.until(lambda: bench.is_current)
    bench.cache.lose_everything()
    bench.publish(finding(5))
    await bench.until(lambda: bench.is_current)
    assert bench.n_refills == 2


async def test_redis_that_is_being_filled_is_available() -> None:
    """For as long as the topic takes: look-ups go on, and the pipeline waits for room."""
    bench = Bench()
    bench.may_read.clear()
    async with at_work(bench.writer.run()):
        await bench.until(lambda: bench.n_refills == 1)
        assert bench.writer.available
        bench.publish(*map(finding, range(MAX_BUFFER)))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await bench.writer.room()
        bench.may_read.set()
        await bench.until(lambda: bench.is_current)


async def test_redis_that_fails_while_it_is_filled_is_filled_again(bench: Bench) -> None:
    await bench.until(lambda: bench.cache.whole)
    bench.may_read.clear()
    bench.cache.lose_everything()
    bench.publish(*map(finding, range(5)))
    await bench.until(lambda: bench.n_refills == 2)
    bench.cache.down = True
    bench.may_read.set()
    await bench.until(lambda: not bench.writer.available)
    bench.cache.down = False
    await bench.until(lambda: bench.is_current and bench.writer.available)
    assert bench.n_refills > 2


async def test_redis_is_available_while_the_ends_of_the_topic_are_looked_at() -> None:
    bench = Bench()
    bench.may_read.clear()
    bench.writer.check_ends([0])
    async with at_work(bench.writer.run_checks()):
        await bench.until(lambda: bench.n_looks == 1)
        assert bench.writer.available


async def test_what_overflows_during_a_refill_is_not_forgotten(bench: Bench) -> None:
    """A finding published after its topic was read, and dropped from the buffer, needs another reading."""

    def more() -> None:
        bench.on_refill = lambda: None
        bench.publish(*map(finding, range(100, 100 + 2 * MAX_BUFFER)))

    bench.on_refill = more
    bench.cache.lose_everything()
    await bench.until(lambda: bench.n_refills >= 2 and bench.is_current)
    assert bench.writer.n_dropped > 0


async def test_broker_that_is_away_does_not_stop_fresh_findings(bench: Bench) -> None:
    def away() -> None:
        raise BrokerUnavailable("away")

    await bench.until(lambda: bench.cache.whole)
    bench.on_refill = away
    bench.cache.lose_everything()
    bench.publish(finding(1))
    await bench.until(lambda: len(bench.cache.stored) == 1)
    assert await bench.writer.flush(5.0)
    assert not bench.cache.whole


async def test_nobody_else_calls_while_the_breaker_is_open(bench: Bench) -> None:
    """`available` is false from the second failure until a probe of the writer itself succeeds."""
    await bench.until(lambda: bench.writer.available)
    bench.cache.down = True
    bench.publish(finding(1))
    await bench.until(lambda: not bench.writer.available)
    bench.cache.down = False
    await bench.until(lambda: bench.writer.available)
    assert bench.is_current


async def test_redis_that_became_a_replica_is_left_for_the_one_behind_the_same_address() -> None:
    """It keeps the connection, answers pings, and takes no writes ever again."""
    async with failed_over() as url:
        cache = connect_cache(url, prefix="t.", ttl_s=60, latest_per_class=3)
        bench = Bench(cache)
        async with at_work(bench.writer.run()):
            bench.publish(finding(1))
            assert await bench.writer.flush(5.0)
            await bench.until(lambda: bench.writer.available)
        await cache.close()
    assert bench.n_errors > 0


async def test_what_another_worker_left_behind_is_brought_once_redis_answers(bench: Bench) -> None:
    await bench.until(lambda: bench.cache.whole)
    bench.left_behind = {3: entries(finding(1)), 5: entries(finding(2), alert(1))}
    bench.cache.down = True
    bench.writer.check_ends([3])
    bench.writer.check_ends([5])
    await bench.until(lambda: not bench.writer.available)
    bench.cache.down = False
    await bench.until(lambda: len(bench.cache.stored) == 3)


async def test_ends_that_cannot_be_read_are_looked_at_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def away() -> None:
        bench.on_look = lambda: None
        raise BrokerUnavailable("away")

    monkeypatch.setattr("stream.cache_writer._REFILL_PAUSE_S", 0.01)
    bench.left_behind, bench.on_look = {0: entries(finding(1))}, away
    bench.writer.check_ends([0])
    bench.publish(finding(2))
    await bench.until(lambda: len(bench.cache.stored) == 2)


async def test_worker_that_ends_with_a_hole_leaves_that_to_the_next(bench: Bench) -> None:
    """What overflowed lies anywhere in the topic: the mark goes with the first finding that Redis takes again."""
    await bench.until(lambda: bench.cache.whole)
    bench.cache.down = True
    for number in range(3 * MAX_BUFFER):
        bench.publish(finding(number))
    bench.on_refill = lambda: pytest.fail("it ended before")
    written = bench.cache.store

    async def store_once(some: Sequence[Entry]) -> None:
        await written(some)
        bench.writer._make_whole = asyncio.Event().wait  # type: ignore[assignment,method-assign]

    bench.cache.store = store_once  # type: ignore[method-assign]
    bench.cache.down = False
    await bench.until(lambda: len(bench.cache.stored) > 0)
    assert not bench.cache.whole
