"""A bad network between the worker and both its servers; it must come through by itself."""

from __future__ import annotations

import asyncio
import time

from tests.chaos.arena import Arena, Row, check, make_row
from tests.chaos.proxy import Weather

_PER_S = 100.0


async def slow_and_lossy(arena: Arena) -> Row:
    """Everything takes 200 ms longer each way, and 5% of it is lost and sent again."""
    seconds = arena.pick(60.0, 2.5)
    with arena.proxies("lossy", arena.kafka_port, arena.redis.port) as [kafka, redis]:
        async with arena.field("lossy", max_batch=16) as field:
            worker = field.worker(via=kafka.route | redis.route)
            async with field.flow(int(_PER_S * (seconds + 3)), per_s=_PER_S) as feeding:
                await asyncio.sleep(1.0)
                kafka.weather = redis.weather = Weather(delay_s=0.2, loss=0.05)
                before = sum((await field.committed()).values())
                await asyncio.sleep(seconds)
                assert sum((await field.committed()).values()) > before, "nothing came through the bad network"
                kafka.weather = redis.weather = Weather()
                recovery_s = await field.recovery_s()
                n_posts = await feeding
            await field.settled(60)
            assert worker.is_alive, worker.log()
            assert await field.committed_without_outcome() == 0
            ledger = await field.ledger()
    check(ledger, posts=n_posts)
    return make_row("200 ms delay each way, 5% loss", arena.broker.name, ledger, recovery_s=recovery_s)


async def half_open(arena: Arena) -> Row:
    """Every connection of the worker falls silent for good without being closed; new ones work."""
    n_runs = arena.pick(3, 1)
    recovery_s = 0.0
    with arena.proxies("half-open", arena.kafka_port, arena.redis.port) as [kafka, redis]:
        async with arena.field("half-open", max_batch=16) as field:
            worker = field.worker(via=kafka.route | redis.route)
            async with field.flow(int(_PER_S * (20 * n_runs)), per_s=_PER_S) as feeding:
                for _ in range(n_runs):
                    await asyncio.sleep(2.0)
                    assert kafka.freeze() >= 2 and redis.freeze() >= 1
                    recovery_s = max(recovery_s, await field.recovery_s())
                n_posts = await feeding
            await field.settled(60)
            await asyncio.to_thread(worker.wait_ready)
            assert await field.committed_without_outcome() == 0
            ledger = await field.ledger()
    check(ledger, posts=n_posts)
    return make_row("connections half-open", arena.broker.name, ledger, recovery_s=recovery_s, runs=n_runs)


async def network_cut(arena: Arena) -> Row:
    """The worker reaches neither Kafka nor Redis for 90 s, and then both again."""
    away_s = arena.pick(90.0, 2.0)
    with arena.proxies("cut", arena.kafka_port, arena.redis.port) as [kafka, redis]:
        async with arena.field("cut", max_batch=16) as field:
            worker = field.worker(via=kafka.route | redis.route)
            async with field.flow(int(_PER_S * (away_s + 4)), per_s=_PER_S) as feeding:
                await asyncio.sleep(2.0)
                kafka.weather = redis.weather = Weather(is_cut=True)
                start = time.monotonic()
                await asyncio.sleep(1.0)
                before = await field.committed()
                await asyncio.sleep(max(0.0, away_s - (time.monotonic() - start)))
                assert await field.committed() == before, "a commit came through the cut"
                kafka.weather = redis.weather = Weather()
                recovery_s = await field.recovery_s()
                n_posts = await feeding
            await field.settled(120)
            await asyncio.to_thread(worker.wait_ready)
            assert await field.committed_without_outcome() == 0
            ledger = await field.ledger()
    check(ledger, posts=n_posts)
    return make_row(f"network cut for {away_s:g} s", arena.broker.name, ledger, recovery_s=recovery_s)
