"""What the cache lacks is found at the ends of the topics, as far back as it goes and no further."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from deploy.embedded import EmbeddedServices
from stream.broker import Broker
from stream.cache import Entry, FindingCache, connect_cache, entry_of
from stream.cache_topics import bring_missing, outcomes_of, read_entries
from stream.outbox import Outbox, Outgoing
from stream.records import Alert, Finding, encode
from stream.topics import Topics, create_topics, topics
from tests.stream.findings import alert, finding

pytestmark = pytest.mark.integration

_FOR_EVER_S = 20 * 365 * 86_400  # the findings of these tests are old


class Ground:
    """Topics of its own, an outbox to publish to them, and a cache."""

    def __init__(self, kafka: str, names: Topics, outbox: Outbox, cache: FindingCache) -> None:
        self.kafka = kafka
        self.topics = names
        self.cache = cache
        self._outbox = outbox

    async def publish(self, partition: int, *records: Finding | Alert) -> None:
        for record in records:
            topic = self.topics.alerts if isinstance(record, Alert) else self.topics.findings
            await self._outbox.send(topic.name, partition, [Outgoing(key=None, value=encode(record))])

    async def bring(self, *partitions: int) -> int:
        source = self.topics.posts.name
        return await bring_missing(self.cache, Broker(self.kafka), self.topics, source=source, partitions=partitions)

    async def held(self, *numbers: int) -> list[bool]:
        found = await self.cache.get_raw([finding(number).post_id for number in numbers])
        return [one is not None for one in found]


@pytest.fixture
async def ground(services: EmbeddedServices) -> AsyncIterator[Ground]:
    prefix = f"cache-{secrets.token_hex(4)}."
    names = topics(prefix=prefix, n_partitions=3, max_record_bytes=100_000)
    await create_topics(Broker(services.kafka), names.all(), replication=1)
    outbox = Outbox(broker=Broker(services.kafka), max_batch_bytes=100_000, request_timeout_s=5, publish_timeout_s=5)
    await outbox.start()
    cache = connect_cache(services.redis, prefix=prefix, ttl_s=_FOR_EVER_S, latest_per_class=100)
    yield Ground(services.kafka, names, outbox, cache)
    await outbox.stop()
    await cache.close()


async def test_looks_further_back_while_something_is_missing(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stream.cache_topics._FIRST_LOOK", 2)
    await ground.publish(1, *map(finding, range(12)))
    await ground.cache.store([entry_of(finding(1)), entry_of(finding(11))])
    looked_at: list[int] = []
    lacking = ground.cache.lacking

    async def note(entries: Sequence[Entry]) -> list[Entry]:
        looked_at.append(len(entries))
        return await lacking(entries)

    monkeypatch.setattr(ground.cache, "lacking", note)
    assert await ground.bring(1) == 10
    assert looked_at == [2, 8, 2]
    assert all(await ground.held(*range(12)))


async def test_stops_where_nothing_is_missing(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stream.cache_topics._FIRST_LOOK", 2)
    await ground.publish(1, *map(finding, range(12)))
    await ground.cache.store([entry_of(finding(number)) for number in range(10, 12)])
    assert await ground.bring(1) == 0
    assert await ground.held(0, 11) == [False, True]


async def test_looks_at_its_own_partitions_and_at_alerts(ground: Ground) -> None:
    await ground.publish(1, finding(1))
    await ground.publish(2, finding(2))
    await ground.publish(0, alert(3))
    assert await ground.bring(1) == 2
    assert await ground.held(1, 2) == [True, False]
    assert [one.id for one in await ground.cache.latest_alerts()] == [alert(3).id]


async def test_newest_finding_of_a_post_stays(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    """Going back, the older one of two must not take the place of the newer one."""
    monkeypatch.setattr("stream.cache_topics._FIRST_LOOK", 1)
    monkeypatch.setattr("stream.cache_topics._FURTHER", 1)
    older = finding(1)
    newer = replace(older, classified_at=older.classified_at + timedelta(seconds=5))
    await ground.publish(0, older, newer, finding(2))
    assert await ground.bring(0) == 2
    assert await ground.cache.get(newer.post_id) == newer


async def test_finding_that_would_be_forgotten_by_now_is_not_brought_back(ground: Ground) -> None:
    await ground.publish(0, finding(1))
    ground.cache._ttl_ms = 3_600_000
    assert await ground.bring(0) == 0


async def test_finding_that_is_brought_is_kept_for_what_is_left_of_its_time(ground: Ground) -> None:
    ground.cache._ttl_ms = 3_600_000
    old = replace(finding(1), accepted_at=datetime.now(UTC) - timedelta(minutes=50))
    await ground.publish(0, old)
    assert await ground.bring(0) == 1
    left_ms = await ground.cache._redis.pttl(ground.cache._keys.finding(old.post_id))
    assert left_ms == pytest.approx(600_000, abs=60_000)


async def test_nothing_is_newer_than_its_record(ground: Ground) -> None:
    """Else a refill put what a clock ahead had dated before all that came since."""
    ahead = datetime.now(UTC) + timedelta(days=365)
    await ground.publish(0, replace(finding(1), accepted_at=ahead), finding(2), replace(alert(1), raised_at=ahead))
    found = {entry.id: entry.time_s async for entry in read_entries(Broker(ground.kafka), ground.topics)}
    assert found[b"p2"] == finding(2).accepted_at.timestamp()
    assert [found[b"p1"], found[b"a1"]] == [pytest.approx(time.time(), abs=60)] * 2


async def test_all_is_read_for_a_cache_that_is_empty(ground: Ground) -> None:
    await ground.publish(0, finding(1), alert(1))
    await ground.publish(2, finding(2))
    found = [entry async for entry in read_entries(Broker(ground.kafka), ground.topics)]
    assert {(one.id, one.label is None) for one in found} == {
        (finding(1).post_id.encode(), False),
        (finding(2).post_id.encode(), False),
        (alert(1).id.encode(), True),
    }


@given(st.integers(0, 100), *[st.integers(1, 24)] * 3)
def test_outcomes_lie_where_they_are_looked_for(partition: int, n_posts: int, n_prepared: int, n_findings: int) -> None:
    """By one worker, or by two stages with a topic between them."""
    partition %= n_posts
    assert partition % n_findings in outcomes_of([partition], n_posts, n_findings)
    assert partition % n_findings in outcomes_of([partition % n_prepared], n_prepared, n_findings)
