"""Redis that crashes, comes back or comes back empty, cannot be reached, or is slow: posts must not notice."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

from stream.broker import Broker
from stream.cache import FindingCache, connect_cache
from stream.cache_writer import REDIS_ERRORS
from stream.reader import read_topic
from stream.records import Finding, decode
from tests.chaos.arena import Arena, Row, check, make_row
from tests.chaos.field import Field, numbered
from tests.chaos.processes import WorkerProcess
from tests.chaos.proxy import Proxy, Weather

_NOTICE_S = 10.0


async def redis_killed(arena: Arena) -> Row:
    """Redis is killed, stays away while posts are classified, and comes back with what it had."""
    return await _outage(arena, "Redis killed and restarted", _Killed(arena, empty=False), away_s=arena.pick(10.0, 1.0))


async def redis_emptied(arena: Arena) -> Row:
    """Redis is killed and comes back without its data."""
    return await _outage(arena, "Redis restarted empty", _Killed(arena, empty=True), away_s=arena.pick(10.0, 1.0))


async def redis_unreachable(arena: Arena) -> Row:
    """Redis cannot be reached for a minute: nothing arrives, nothing is refused or closed."""
    away_s = arena.pick(60.0, 4.0)  # longer than a call to Redis waits
    with arena.proxies("unreachable", arena.redis.port) as [proxy]:
        outage = _Weather(proxy, Weather(is_cut=True))
        return await _outage(arena, "Redis unreachable for a minute", outage, away_s=away_s)


async def redis_slow(arena: Arena) -> Row:
    """Redis answers late: within the time-out of its client."""
    with arena.proxies("slow", arena.redis.port) as [proxy]:
        slow = _Weather(proxy, Weather(delay_s=0.6), is_ready=True)
        return await _outage(arena, "Redis slow (1.2 s an answer)", slow, away_s=arena.pick(60.0, 1.0))


async def worker_ends_without_redis(arena: Arena) -> Row:
    """A worker is killed, or stopped, while its findings wait for Redis: the next one brings them."""
    n_posts = arena.pick(6_000, 150)  # in the full version more than a first look from the end of a partition finds
    recovery_s = 0.0
    async with arena.field("left", partitions=4, max_batch=16) as field:
        cache = connect_cache(field.redis, prefix=field.prefix, ttl_s=3600, latest_per_class=1000)
        endings = (WorkerProcess.kill, WorkerProcess.terminate)
        n_fed = 0
        try:
            for end in endings:
                worker = field.worker()
                n_fed += await field.feed(numbered(n_posts, start=n_fed))
                await field.settled(60)
                await _whole(field, cache, 60)
                arena.redis.kill()
                n_fed += await field.feed(numbered(n_posts, start=n_fed))
                await field.settled(60)
                end(worker)
                await asyncio.to_thread(worker.wait, 30)
                arena.redis.start()
                assert not await _is_whole(field, cache), "the worker brought all before it ended"
                following = field.worker()
                recovery_s = max(recovery_s, await _whole(field, cache, 60))
                following.terminate()
                assert await asyncio.to_thread(following.wait, 30) == 0
            ledger = await field.ledger()
        finally:
            await cache.close()
            arena.redis.revive()
    check(ledger, posts=n_fed)
    fault = "worker ends while Redis is away"
    return make_row(fault, arena.broker.name, ledger, recovery_s=recovery_s, runs=len(endings))


class _Killed:
    """Redis' process is killed."""

    is_ready = False
    route: Mapping[int, int] = {}

    def __init__(self, arena: Arena, *, empty: bool) -> None:
        self._redis = arena.redis
        self._empty = empty

    def begin(self) -> None:
        self._redis.kill()

    def end(self) -> None:
        if self._empty:
            self._redis.empty()
        self._redis.start()  # from the main thread: it dies with the thread that starts it


class _Weather:
    """The network before Redis is bad."""

    def __init__(self, proxy: Proxy, weather: Weather, *, is_ready: bool = False) -> None:
        self.is_ready = is_ready
        self.route = proxy.route
        self._proxy = proxy
        self._weather = weather

    def begin(self) -> None:
        self._proxy.weather = self._weather

    def end(self) -> None:
        self._proxy.weather = Weather()


async def _outage(arena: Arena, fault: str, outage: _Killed | _Weather, *, away_s: float) -> Row:
    n_posts = arena.pick(1_000, 150)
    async with arena.field("redis", cache_buffer=50, max_batch=16) as field:
        worker = field.worker(via=outage.route)
        cache = connect_cache(field.redis, prefix=field.prefix, ttl_s=3600, latest_per_class=1000)
        try:
            n_fed = await field.feed(numbered(n_posts))
            await field.settled(60)
            await _whole(field, cache, 30)
            outage.begin()
            start = time.monotonic()
            n_fed += await field.feed(numbered(n_posts, start=n_posts))
            await field.settled(60)  # with the fault all the while
            assert (await field.ledger()).findings == n_fed
            await asyncio.sleep(max(0.0, away_s - (time.monotonic() - start)))
            await _readiness(worker, ready=outage.is_ready)
            outage.end()
            recovery_s = await _whole(field, cache, 60)
            n_fed += await field.feed(numbered(n_posts, start=2 * n_posts))
            await field.settled(60)
            await _whole(field, cache, 30)
            assert worker.is_alive, worker.log()
            ledger = await field.ledger()
        finally:
            await cache.close()
            arena.redis.revive()
    check(ledger, posts=n_fed)
    return make_row(fault, arena.broker.name, ledger, recovery_s=recovery_s)


async def _readiness(worker: WorkerProcess, *, ready: bool) -> None:
    """Wait until the worker says that it is ready, or not; it asks Redis now and then only."""
    deadline = time.monotonic() + _NOTICE_S
    while True:
        status, answer = await asyncio.to_thread(worker.get, "/readyz")
        if (status == 200) is ready:
            return
        assert time.monotonic() < deadline, (status, answer)
        await asyncio.sleep(0.2)


async def _whole(field: Field, cache: FindingCache, timeout_s: float) -> float:
    """Wait until Redis holds every published finding, and return the seconds it took."""
    start = time.monotonic()
    while not await _is_whole(field, cache):
        assert time.monotonic() - start < timeout_s, "there are findings that Redis does not hold"
        await asyncio.sleep(0.2)
    return time.monotonic() - start


async def _is_whole(field: Field, cache: FindingCache) -> bool:
    """Whether Redis answers and holds every published finding."""
    published = {}
    async for record in read_topic(Broker(field.kafka), field.topics.findings.name):
        finding = decode(record.value, Finding)
        published[finding.post_id] = finding.id
    assert published
    try:
        values = await cache.get_raw(list(published))
    except REDIS_ERRORS:
        return False
    return {decode(value, Finding).id for value in values if value is not None} == set(published.values())
