"""Brokers and Redis that crash, come back, or come back empty."""

from __future__ import annotations

import asyncio
import time

from aiokafka.admin import AIOKafkaAdminClient

from stream.cache import FindingCache, connect_cache
from stream.cache_writer import REDIS_ERRORS
from stream.reader import read_topic
from stream.records import Finding, decode
from tests.chaos.arena import Arena, Row, check, make_row
from tests.chaos.brokers import ApacheKafka
from tests.chaos.field import Field, numbered


async def broker_killed(arena: Arena) -> Row:
    """The only broker is killed in mid-flow and started again on its data."""
    n_runs, per_s = arena.pick(5, 1), 150.0
    seconds = arena.pick(60.0, 7.0)
    recovery_s = 0.0
    async with arena.field("broker", max_batch=16) as field:
        worker = field.worker(classifier="sleep:0.004")
        feeding = asyncio.create_task(field.feed(numbered(int(per_s * seconds)), per_s=per_s))
        try:
            for _ in range(n_runs):
                await asyncio.sleep(2.0)
                arena.broker.kill()
                await asyncio.sleep(arena.pick(5.0, 2.0))
                arena.broker.start()
                recovery_s = max(recovery_s, await field.recovery_s())
            n_posts = await feeding
        finally:
            feeding.cancel()
        await field.settled(120)
        assert worker.is_alive, worker.log()
        assert await field.committed_without_outcome() == 0
        ledger = await field.ledger()
    check(ledger, posts=n_posts)
    return make_row("broker killed and restarted", arena.broker.name, ledger, recovery_s=recovery_s, runs=n_runs)


async def leader_killed(arena: Arena) -> Row:
    """Of three brokers (replication 3, min.insync 2) the leader of a busy partition is killed, in mid-flow."""
    assert arena.kafka_home is not None
    n_runs = arena.pick(3, 1)
    brokers = ApacheKafka(arena.kafka_home, arena.folder / "three", n_nodes=3)
    recovery_s = 0.0
    try:
        name = f"{brokers.name}, 3 nodes"
        async with arena.field("leader", kafka=brokers.bootstrap, replication=3, max_batch=16) as field:
            field.worker(classifier="sleep:0.004")
            field.worker(classifier="sleep:0.004")
            feeding = asyncio.create_task(field.feed(numbered(n_runs * 3_000), per_s=150.0))
            try:
                for run in range(n_runs):
                    await asyncio.sleep(3.0)
                    node = await _leader(brokers.bootstrap, field.topics.findings.name, run % 4) - 1
                    brokers.kill(node)
                    recovery_s = max(recovery_s, await field.recovery_s())
                    brokers.start(node)
                    await asyncio.sleep(6.0)  # until it is in sync again
                n_posts = await feeding
            finally:
                feeding.cancel()
            await field.settled(120)
            assert await field.committed_without_outcome() == 0
            ledger = await field.ledger()
    finally:
        brokers.stop()
    check(ledger, posts=n_posts)
    return make_row("partition leader killed", name, ledger, recovery_s=recovery_s, runs=n_runs)


async def redis_killed(arena: Arena) -> Row:
    """Redis is killed, stays away while posts are classified, and comes back with what it had."""
    return await _redis_outage(arena, "Redis away, then back", empty=False, away_s=arena.pick(60.0, 3.0))


async def redis_emptied(arena: Arena) -> Row:
    """Redis is killed and comes back without its data."""
    return await _redis_outage(arena, "Redis restarted empty", empty=True, away_s=arena.pick(10.0, 1.0))


async def _redis_outage(arena: Arena, fault: str, *, empty: bool, away_s: float) -> Row:
    n_posts = arena.pick(1_000, 150)
    async with arena.field("redis", cache_buffer=50, max_batch=16) as field:
        worker = field.worker()
        cache = connect_cache(field.redis, prefix=field.prefix, ttl_s=3600, latest_per_class=1000)
        try:
            n_fed = await field.feed(numbered(n_posts))
            await field.settled(60)
            await _whole(field, cache, 30)
            arena.redis.kill()
            start = time.monotonic()
            n_fed += await field.feed(numbered(n_posts, start=n_posts))
            await field.settled(60)  # with Redis away all the while
            assert (await field.ledger()).findings == n_fed
            status, _ = await asyncio.to_thread(worker.get, "/readyz")
            assert status == 503, "a worker without Redis says that it is ready"
            await asyncio.sleep(max(0.0, away_s - (time.monotonic() - start)))
            if empty:
                arena.redis.empty()
            arena.redis.start()  # from the main thread: it dies with the thread that starts it
            recovery_s = await _whole(field, cache, 60)
            n_fed += await field.feed(numbered(n_posts, start=2 * n_posts))
            await field.settled(60)
            await _whole(field, cache, 30)
            ledger = await field.ledger()
        finally:
            await cache.close()
            arena.redis.revive()
    check(ledger, posts=n_fed)
    return make_row(fault, arena.broker.name, ledger, recovery_s=recovery_s)


async def _whole(field: Field, cache: FindingCache, timeout_s: float) -> float:
    """Wait until Redis holds every published finding, and return the seconds it took."""
    start = time.monotonic()
    published = {}
    async for record in read_topic(field.kafka, field.topics.findings.name):
        finding = decode(record.value, Finding)
        published[finding.post_id] = finding.id
    assert published
    while True:
        try:
            values = await cache.get_raw(list(published))
        except REDIS_ERRORS:
            values = []
        cached = {decode(value, Finding).id for value in values if value is not None}
        if cached == set(published.values()):
            return time.monotonic() - start
        assert time.monotonic() - start < timeout_s, f"{len(cached)} of {len(published)} findings in Redis"
        await asyncio.sleep(0.2)


async def _leader(bootstrap: str, topic: str, partition: int) -> int:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    try:
        await admin.start()
        [described] = await admin.describe_topics([topic])
    finally:
        await admin.close()
    return next(int(one["leader"]) for one in described["partitions"] if one["partition"] == partition)
