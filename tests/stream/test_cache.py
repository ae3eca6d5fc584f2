"""Findings in a real Redis: idempotent, bounded for each class, and gone after their time."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
import redis.exceptions

from deploy.embedded import EmbeddedServices
from deploy.probes import free_port
from stream.cache import ALL, Entry, FindingCache, connect_cache
from stream.cache_writer import fill
from stream.records import Finding
from tests.stream.findings import alert, entries, finding

pytestmark = pytest.mark.integration

DAMAGE = "infrastructure_and_utility_damage"


@pytest.fixture
async def cache(services: EmbeddedServices) -> AsyncIterator[FindingCache]:
    """A cache under a prefix of its own that keeps three findings a class for a minute."""
    prefix = f"test-{secrets.token_hex(4)}."
    cache = connect_cache(services.redis, prefix=prefix, ttl_s=60, latest_per_class=3)
    yield cache
    await cache.close()


async def test_latest_of_a_class_newest_first(cache: FindingCache) -> None:
    await cache.store(entries(finding(2, label=DAMAGE), finding(1, label=DAMAGE), finding(3), alert(1), alert(2)))
    assert [one.post_id for one in await cache.latest(DAMAGE)] == ["p2", "p1"]
    assert [one.post_id for one in await cache.latest()] == ["p3", "p2", "p1"]
    assert [one.post_id for one in await cache.latest(n=1)] == ["p3"]
    assert [one.id for one in await cache.latest_alerts()] == ["a2", "a1"]
    assert await cache.latest("no_such_class") == []


async def test_post_that_got_another_class_is_shown_under_that_alone(cache: FindingCache) -> None:
    """Another model or mode may decide otherwise; the old index is asked further for as many as are wanted."""
    await cache.store(entries(finding(1, label=DAMAGE), finding(2, label=DAMAGE), finding(3, label=DAMAGE)))
    await cache.store(entries(finding(3, label="other")))
    assert [one.post_id for one in await cache.latest(DAMAGE, n=2)] == ["p2", "p1"]
    assert [one.post_id for one in await cache.latest("other", n=2)] == ["p3"]
    assert [one.post_id for one in await cache.latest()] == ["p3", "p2", "p1"]


async def test_same_finding_twice_changes_nothing(cache: FindingCache) -> None:
    for _ in range(2):
        await cache.store(entries(finding(1), finding(2), alert(1)))
    assert [one.post_id for one in await cache.latest()] == ["p2", "p1"]
    assert len(await cache.latest_alerts()) == 1
    assert await cache.get("p1") == finding(1)
    assert await cache.get("p9") is None
    assert [value is None for value in await cache.get_raw(["p1", "p9", "p2"])] == [False, True, False]


async def test_index_keeps_the_newest_only(cache: FindingCache) -> None:
    """Also when an old finding comes late, as in a refill."""
    await cache.store(entries(finding(5), finding(6), finding(7)))
    await cache.store(entries(finding(1), finding(8)))
    assert [one.post_id for one in await cache.latest(n=100)] == ["p8", "p7", "p6"]


async def test_large_write_leaves_the_same_indexes_as_many_small_ones(cache: FindingCache) -> None:
    """Of more than an index keeps only the newest are sent to it; all can be looked up."""
    some = [finding(number, label=DAMAGE if number % 3 else "other") for number in (4, 9, 1, 8, 3, 7, 2, 6, 5)]
    await cache.store(entries(*some, *[alert(number) for number in (2, 5, 1, 4, 3)]))
    assert [one.post_id for one in await cache.latest(n=100)] == ["p9", "p8", "p7"]
    assert [one.post_id for one in await cache.latest(DAMAGE, n=100)] == ["p8", "p7", "p5"]
    assert [one.post_id for one in await cache.latest("other", n=100)] == ["p9", "p6", "p3"]
    assert [one.id for one in await cache.latest_alerts()] == ["a5", "a4", "a3"]
    assert [await cache.get(one.post_id) for one in some] == some


async def test_post_that_comes_twice_in_a_write_takes_one_place(cache: FindingCache) -> None:
    await cache.store(entries(finding(1), finding(2), finding(3), finding(3), finding(3)))
    assert [one.post_id for one in await cache.latest(n=100)] == ["p3", "p2", "p1"]


async def test_later_of_two_findings_of_a_post_counts_whatever_their_labels(cache: FindingCache) -> None:
    await cache.store(entries(finding(2, label="b"), finding(1, label="a"), finding(1, label="b")))
    assert await cache.get("p1") == finding(1, label="b")
    assert [one.post_id for one in await cache.latest("b")] == ["p2", "p1"]
    assert await cache.latest("a") == []


async def test_finding_of_a_post_whose_id_is_no_ascii(cache: FindingCache) -> None:
    one = msgspec.structs.replace(finding(1), post_id="tweet/Überflutung 🌊", text="Überflutung\r\n$3\r\n")
    await cache.store(entries(one))
    assert await cache.latest() == [one]


async def test_finding_expires_and_leaves_no_hole(services: EmbeddedServices) -> None:
    prefix = f"test-{secrets.token_hex(4)}."
    cache = connect_cache(services.redis, prefix=prefix, ttl_s=0.3, latest_per_class=10)
    await cache.store(entries(finding(1)))
    assert len(await cache.latest()) == 1
    async with asyncio.timeout(10):
        while await cache.get("p1") is not None:
            await asyncio.sleep(0.05)
    assert await cache.latest() == []
    await cache.close()


async def test_clock_that_is_ahead_hides_nothing_that_comes_later(cache: FindingCache) -> None:
    """Of the feed, whose posts it dates; an alert is raised at the time of its post."""
    ahead = timedelta(days=365)
    raised_ahead = [msgspec.structs.replace(alert(n), raised_at=datetime.now(UTC) + ahead) for n in (1, 2, 3)]
    await cache.store(entries(*[_accepted(number, in_s=ahead.total_seconds()) for number in (1, 2, 3)], *raised_ahead))
    assert [one.post_id for one in await cache.latest()] == ["p3", "p2", "p1"]
    await asyncio.sleep(0.002)
    raised = msgspec.structs.replace(alert(5), raised_at=datetime.now(UTC))
    await cache.store(entries(_accepted(4), _accepted(5, in_s=0.001), raised))
    assert [one.post_id for one in await cache.latest()] == ["p5", "p4", "p3"]
    assert [one.id for one in await cache.latest_alerts()] == ["a5", "a3", "a2"]


async def test_index_from_before_lets_go_of_what_lies_ahead(cache: FindingCache) -> None:
    """A little ahead is the clock of another worker."""
    index, now_s = cache._keys.latest(ALL), time.time()
    await cache._redis.zadd(index, {f"p{number}": now_s + 86_400 + number for number in range(3)})
    await cache._redis.zadd(index, {"p8": now_s + 2})
    await cache.store(entries(finding(9)))
    assert await cache._redis.zrange(index, 0, -1) == [b"p9", b"p8"]


async def test_refill_gives_a_finding_what_is_left_of_its_time(cache: FindingCache) -> None:
    async def kept() -> AsyncIterator[Entry]:
        raised = msgspec.structs.replace(alert(4), raised_at=datetime.now(UTC))
        for one in entries(_accepted(1, in_s=-61), _accepted(2, in_s=-45), _accepted(3), raised):
            yield one

    assert await fill(cache, kept()) == (2, 1)
    assert await cache.get("p1") is None
    assert [one.post_id for one in await cache.latest()] == ["p3", "p2"]
    left_ms = [await cache._redis.pttl(cache._keys.finding(post_id)) for post_id in ("p2", "p3")]
    assert left_ms == [pytest.approx(15_000, abs=5_000), pytest.approx(60_000, abs=5_000)]


async def test_finding_of_a_post_that_waited_is_kept_as_long_as_any(cache: FindingCache) -> None:
    """A backlog, or an archive that is played again, counts from its classification."""
    await cache.store(entries(_accepted(1, in_s=-86_400)))
    assert await cache._redis.pttl(cache._keys.finding("p1")) == pytest.approx(60_000, abs=5_000)


async def test_whole_is_a_mark_that_goes_with_the_data(cache: FindingCache) -> None:
    assert not await cache.is_whole()
    await cache.mark_whole()
    assert await cache.is_whole()


async def test_redis_that_is_not_there_fails_at_once() -> None:
    """One attempt: retrying is for the writer, in the background."""
    cache = connect_cache(f"redis://127.0.0.1:{free_port()}/0", prefix="x.", ttl_s=1, latest_per_class=1)
    async with asyncio.timeout(2):
        with pytest.raises(redis.exceptions.ConnectionError):
            await cache.ping()
    await cache.close()


def _accepted(number: int, *, in_s: float = 0.0) -> Finding:
    """Return the finding of a post of so many seconds from now."""
    return msgspec.structs.replace(finding(number), accepted_at=datetime.now(UTC) + timedelta(seconds=in_s))
