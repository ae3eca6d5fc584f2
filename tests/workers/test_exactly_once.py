"""Exactly-once mode, in whole workers: whoever reads committed records sees every outcome once, whatever crashes."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from deploy.embedded import EmbeddedServices
from stream.broker import Broker
from stream.headers import dead_letter_origin
from stream.reader import read_topic
from stream.records import Alert, Duplicate, Finding, decode
from tests.chaos.field import Field, playing_field
from tests.regressions.ground import posts

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

N = 600
N_PARTITIONS = 3
N_APART = 2_000  # so many that a quick worker is still seen in mid-flow


@pytest.fixture
async def wide(services: EmbeddedServices, tmp_path: Path) -> AsyncIterator[Field]:
    """Topics of a few partitions, whose workers commit in transactions."""
    async with playing_field(
        kafka=services.kafka, redis=services.redis, name="once", folder=tmp_path, partitions=N_PARTITIONS,
        exactly_once=True, max_batch=16,
    ) as field:  # fmt: skip
        yield field


async def test_no_outcome_is_seen_twice_although_workers_are_killed(wide: Field) -> None:
    """Findings, alerts, duplicates and dead letters; some of the transactions are cut short."""
    for partition in range(N_PARTITIONS):
        texts = {5: "[raise]", 6: "[damage]"} if partition == 0 else {}
        records = posts(N // N_PARTITIONS, texts=texts, partition=partition, name=f"post-{partition}")
        await wide.feed([*records, records[0]])  # the first comes twice
    worker = wide.worker(classifier="sleep:0.01")
    for _ in range(3):
        await asyncio.sleep(0.9)
        assert sum((await wide.committed()).values()) < N, "it was killed too late to be in mid-flow"
        worker.kill()
        worker = wide.worker(classifier="sleep:0.01", ready=False)
    await wide.settled(60)
    worker.terminate()
    assert await asyncio.to_thread(worker.wait, 30) == 0, worker.log()

    findings = Counter([decode(one.value, Finding).post_id async for one in _read(wide, wide.topics.findings.name)])
    alerts = [decode(one.value, Alert).id async for one in _read(wide, wide.topics.alerts.name)]
    duplicates = [decode(one.value, Duplicate).origin async for one in _read(wide, wide.topics.duplicates.name)]
    dead = [dead_letter_origin(one.headers) async for one in _read(wide, wide.topics.dead_letters.name)]
    assert set(findings.values()) == {1}
    assert (len(findings), len(alerts), len(duplicates), len(dead)) == (N - 1, 1, N_PARTITIONS, 1)
    ledger = await wide.ledger()
    assert (ledger.missing, ledger.extra, ledger.repeated) == ((), (), ())


async def test_stages_apart_are_exactly_once_as_well(wide: Field) -> None:
    """The prepared posts are committed with the posts' offsets, the findings with those of the prepared posts."""
    await wide.feed(posts(N_APART))
    wide.worker(stage="classify", classifier="sleep:0.001")
    prepare = wide.worker(stage="prepare", max_in_flight=5, ready=False)
    async with asyncio.timeout(40):
        while not 0 < sum((await wide.committed()).values()) < N_APART:
            await asyncio.sleep(0.01)
    prepare.kill()
    wide.worker(stage="prepare")
    await wide.settled(60)
    async with asyncio.timeout(40):
        while len(seen := [one.key async for one in _read(wide, wide.topics.findings.name)]) < N_APART:
            await asyncio.sleep(0.2)
    assert len(seen) == len(set(seen)) == N_APART
    prepared = [one.key async for one in _read(wide, wide.topics.prepared.name)]
    assert len(prepared) == len(set(prepared)) == N_APART


def _read(field: Field, topic: str) -> AsyncIterator:  # type: ignore[type-arg]
    return read_topic(Broker(field.kafka), topic, isolation_level="read_committed")
