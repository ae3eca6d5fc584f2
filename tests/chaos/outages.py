"""Brokers that crash, lose their leader, have no room left on their disk, or slow their clients down."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from aiokafka.admin import AIOKafkaAdminClient

from tests.chaos.apache import ApacheKafka
from tests.chaos.arena import Arena, Row, check, make_row
from tests.chaos.brokers import Broker
from tests.chaos.field import FEEDER

_PER_S = 150.0


async def broker_killed(arena: Arena) -> Row:
    """The only broker is killed in mid-flow and started again on its data."""

    async def fault(broker: Broker) -> None:
        broker.kill()
        await asyncio.sleep(arena.pick(5.0, 1.0))
        broker.start()

    return await _outages(arena, "broker killed and restarted", fault)


async def disk_full(arena: Arena) -> Row:
    """The broker's disk takes nothing more, whereupon it gives up; it is started again when there is room."""

    async def fault(broker: Broker) -> None:
        broker.fill_disk()
        await asyncio.sleep(arena.pick(8.0, 3.0))
        broker.free_disk()

    return await _outages(arena, "broker's disk full", fault)


async def throttled(arena: Arena) -> Row:
    """Client quotas hold up the worker's fetches and deliveries, at last for longer than it waits for an answer."""
    broker = arena.broker
    assert isinstance(broker, ApacheKafka)
    quotas = arena.pick([20_000, 4_000, 1_000], [1_000])  # bytes a second; a finding has about 900
    seconds, recovery_s = arena.pick(30.0, 10.0), 0.0
    await asyncio.to_thread(broker.exempt, FEEDER)
    async with arena.field("quota", max_batch=16) as field:
        worker = field.worker(classifier="sleep:0.001")
        async with field.flow(int(_PER_S * len(quotas) * seconds * 2), per_s=_PER_S) as feeding:
            for bytes_per_s in quotas:
                await asyncio.sleep(2.0)
                try:
                    await asyncio.to_thread(broker.set_quota, bytes_per_s)
                    await asyncio.sleep(seconds)
                    lag = await field.lag()
                finally:
                    await asyncio.to_thread(broker.set_quota, None)
                assert lag > _PER_S * seconds / 4, f"a quota of {bytes_per_s} bytes/s held nobody up: lag {lag}"
                start = time.monotonic()
                while (lag := await field.lag()) > _PER_S:
                    assert time.monotonic() - start < 120, f"a lag of {lag} posts\n{worker.log()}"
                    await asyncio.sleep(0.2)
                recovery_s = max(recovery_s, time.monotonic() - start)
            n_posts = await feeding
        await field.settled(60)
        assert worker.is_alive, worker.log()
        assert await field.committed_without_outcome() == 0
        ledger = await field.ledger()
    check(ledger, posts=n_posts)
    return make_row("held up by client quotas", broker.name, ledger, recovery_s=recovery_s, runs=len(quotas))


async def leader_killed(arena: Arena) -> Row:
    """Of three brokers (replication 3, min.insync 2) the leader of a busy partition is killed, in mid-flow."""
    n_runs = arena.pick(3, 1)
    recovery_s = 0.0
    with _three(arena) as brokers:
        async with arena.field("leader", kafka=brokers.bootstrap, replication=3, max_batch=16) as field:
            field.worker(classifier="sleep:0.004")
            field.worker(classifier="sleep:0.004")
            async with field.flow(n_runs * 3_000, per_s=_PER_S) as feeding:
                for run in range(n_runs):
                    await asyncio.sleep(3.0)
                    node = await _leader(brokers.bootstrap, field.topics.findings.name, run % 4) - 1
                    brokers.kill(node)
                    recovery_s = max(recovery_s, await field.recovery_s())
                    brokers.start(node)
                    await asyncio.sleep(6.0)  # until it is in sync again
                n_posts = await feeding
            await field.settled(120)
            assert await field.committed_without_outcome() == 0
            ledger = await field.ledger()
    check(ledger, posts=n_posts)
    name = f"{brokers.name}, 3 nodes"
    return make_row("partition leader killed", name, ledger, recovery_s=recovery_s, runs=n_runs)


async def majority_killed(arena: Arena) -> Row:
    """Two of three brokers are killed: what is left refuses writes until one of them is back."""
    away_s = arena.pick(20.0, 8.0)
    with _three(arena) as brokers:
        async with arena.field("majority", kafka=brokers.bootstrap, replication=3, max_batch=16) as field:
            worker = field.worker(classifier="sleep:0.004")
            async with field.flow(3_000, per_s=_PER_S) as feeding:
                await asyncio.sleep(3.0)
                brokers.kill(1)
                brokers.kill(2)
                await asyncio.sleep(away_s)
                brokers.start(1)
                recovery_s = await field.recovery_s()
                brokers.start(2)
                n_posts = await feeding
            await field.settled(120)
            assert worker.is_alive, worker.log()
            assert await field.committed_without_outcome() == 0
            ledger = await field.ledger()
    check(ledger, posts=n_posts)
    return make_row("2 of 3 brokers killed", f"{brokers.name}, 3 nodes", ledger, recovery_s=recovery_s)


async def _outages(arena: Arena, fault_name: str, fault: Callable[[Broker], Awaitable[None]]) -> Row:
    n_runs, seconds = arena.pick(5, 1), arena.pick(60.0, 5.0)
    recovery_s = 0.0
    async with arena.field("outages", max_batch=16) as field:
        worker = field.worker(classifier="sleep:0.004")
        async with field.flow(int(_PER_S * seconds), per_s=_PER_S) as feeding:
            for _ in range(n_runs):
                await asyncio.sleep(2.0)
                await fault(arena.broker)
                recovery_s = max(recovery_s, await field.recovery_s())
            n_posts = await feeding
        await field.settled(120)
        assert worker.is_alive, worker.log()
        assert await field.committed_without_outcome() == 0
        ledger = await field.ledger()
    check(ledger, posts=n_posts)
    return make_row(fault_name, arena.broker.name, ledger, recovery_s=recovery_s, runs=n_runs)


@contextmanager
def _three(arena: Arena) -> Iterator[ApacheKafka]:
    assert arena.kafka_home is not None
    brokers = ApacheKafka(arena.kafka_home, arena.folder / f"three-{secrets.token_hex(2)}", n_nodes=3)
    try:
        yield brokers
    finally:
        brokers.stop()


async def _leader(bootstrap: str, topic: str, partition: int) -> int:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    try:
        await admin.start()
        [described] = await admin.describe_topics([topic])
    finally:
        await admin.close()
    return next(int(one["leader"]) for one in described["partitions"] if one["partition"] == partition)
