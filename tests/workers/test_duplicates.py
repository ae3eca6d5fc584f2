"""Which posts were accepted before, with Redis, without it, and without waiting for it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import pytest
import redis.exceptions
from prometheus_client import CollectorRegistry

from stream.breaker import CircuitBreaker
from stream.cache_writer import REDIS_ERRORS
from stream.records import Image, Origin, Post, encode
from tests.stream.findings import MemoryCache, finding
from workers.duplicates import DuplicateFilter
from workers.memory import PostMemory
from workers.metrics import Metrics


class LookUps(MemoryCache):
    """Findings by post id; `hangs` makes a look-up wait for ever."""

    def __init__(self) -> None:
        super().__init__()
        self.values: dict[str, bytes] = {}
        self.hangs = False

    async def get_raw(self, post_ids: Sequence[str]) -> list[bytes | None]:
        self.n_calls += 1
        if self.hangs:
            await asyncio.Event().wait()
        if self.down:
            raise redis.exceptions.ConnectionError("down")
        return [self.values.get(post_id) for post_id in post_ids]


class Bench:
    """A filter that remembers three posts."""

    def __init__(self) -> None:
        self.cache = LookUps()
        self.now_s = 0.0
        self.breaker = CircuitBreaker(failures=REDIS_ERRORS, n_failures=2, pause_s=5.0, clock=lambda: self.now_s)
        self.redis_answers = True
        self.metrics = Metrics(CollectorRegistry())
        self.filter = DuplicateFilter(
            memory=PostMemory("posts", max_posts=3),
            metrics=self.metrics,
            cache=self.cache,
            breaker=self.breaker,
            redis_answers=lambda: self.redis_answers,
        )

    async def check(self, post_id: str, offset: int, *, text: str = "bridge down", partition: int = 0) -> str:
        """Return `fresh`, `same` or `differs`."""
        [verdict] = await self.filter.check([(Post(id=post_id, text=text), at(offset, partition))])
        return "fresh" if verdict is None else "differs" if verdict.differs else "same"


def at(offset: int, partition: int = 0) -> Origin:
    return Origin(topic="posts", partition=partition, offset=offset)


@pytest.fixture
async def bench() -> Bench:
    """A filter whose Redis answers."""
    bench = Bench()
    await bench.breaker.call(bench.cache.ping)
    bench.cache.n_calls = 0
    return bench


async def test_second_record_of_a_post_is_a_duplicate(bench: Bench) -> None:
    verdicts = await bench.filter.check([(Post(id="a", text="x"), at(0)), (Post(id="a", text="y"), at(1))])
    assert verdicts[0] is None and verdicts[1] is not None
    assert (verdicts[1].first, verdicts[1].origin, verdicts[1].differs) == (at(0), at(1), True)
    assert await bench.check("a", 2, text="x") == "same"


async def test_record_delivered_again_is_no_duplicate_of_itself(bench: Bench) -> None:
    """Nor is an earlier record of the same partition, which a rebalance brings again: it stays the first."""
    assert await bench.check("a", 5) == "fresh"
    assert await bench.check("a", 5) == "fresh"
    assert await bench.check("a", 4) == "fresh"
    assert await bench.check("a", 5) == "same"
    assert await bench.check("a", 0, partition=1) == "same"


async def test_memory_is_bounded(bench: Bench) -> None:
    for number, name in enumerate("abcd"):
        await bench.check(name, number)
    assert await bench.check("a", 10) == "fresh"
    assert await bench.check("d", 11) == "same"


async def test_redis_knows_what_this_worker_never_saw(bench: Bench) -> None:
    bench.cache.values["p7"] = encode(finding(7))
    assert await bench.check("p7", 7) == "fresh"  # its own record
    assert await bench.check("p8", 7) == "fresh"
    bench.cache.values["p9"] = encode(finding(9))
    assert await bench.check("p9", 20) == "same"
    n_calls = bench.cache.n_calls
    assert await bench.check("p9", 21, text="else") == "differs"  # remembered
    assert bench.cache.n_calls == n_calls


async def test_foreign_value_in_redis_stops_nothing(bench: Bench) -> None:
    bench.cache.values["a"] = b"\xffnot a finding"
    assert await bench.check("a", 0) == "fresh"


async def test_no_post_waits_for_a_dead_redis(bench: Bench) -> None:
    """Two look-ups fail, then one is made every pause at most, and none while the writer knows that Redis is away."""
    bench.cache.down = True
    for number in range(20):
        assert await bench.check(f"x{number}", number) == "fresh"
    assert (bench.cache.n_calls, bench.breaker.state) == (2, "open")
    bench.redis_answers = False
    bench.now_s = 5.0
    assert await bench.check("y", 50) == "fresh"
    assert bench.cache.n_calls == 2
    bench.cache.down, bench.redis_answers = False, True
    bench.cache.values["p9"] = encode(finding(9))
    assert await bench.check("p9", 60) == "same"
    assert (bench.cache.n_calls, bench.breaker.state) == (3, "closed")


async def test_post_waits_a_moment_for_a_redis_that_hangs(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.duplicates._LOOK_UP_S", 0.05)
    bench.cache.hangs = True
    start = time.monotonic()
    for number in range(20):
        assert await bench.check(f"x{number}", number) == "fresh"
    assert bench.cache.n_calls == 2
    assert time.monotonic() - start < 2.0
    assert bench.metrics.registry.get_sample_value("sitrep_redis_errors_total") == 2


async def test_dead_letter_may_come_again(bench: Bench) -> None:
    await bench.check("a", 0)
    bench.filter.forget(Post(id="a"), at(1))  # of another record: nothing to forget
    assert await bench.check("a", 1) == "same"
    bench.filter.forget(Post(id="a"), at(0))
    assert await bench.check("a", 2) == "fresh"


async def test_posts_of_lost_partitions_are_forgotten(bench: Bench) -> None:
    await bench.check("a", 0)
    await bench.check("b", 0, partition=1)
    bench.filter.forget_partitions({("posts", 0)})
    assert await bench.check("a", 9, partition=1) == "fresh"
    assert await bench.check("b", 9) == "same"


async def test_other_picture_is_a_difference() -> None:
    """A post whose picture was corrected is not the one that came first."""
    bench = Bench()
    for offset, picture in enumerate((b"broken", b"whole", b"broken")):
        post = Post(id="a", text="bridge down", images=[Image(data=picture)])
        [verdict] = await bench.filter.check([(post, at(offset))])
        assert (verdict is not None and verdict.differs) is (offset == 1)


async def test_same_id_at_another_source_is_another_post() -> None:
    bench = Bench()
    for offset, source in enumerate(("bluesky", "telegram", "bluesky")):
        [verdict] = await bench.filter.check([(Post(id="77", text=source, source=source), at(offset))])
        assert (verdict is not None) is (offset == 2)


async def test_finding_of_another_source_in_redis_is_of_another_post() -> None:
    bench = Bench()
    bench.cache.values["p1"] = encode(finding(1))
    [verdict] = await bench.filter.check([(Post(id="p1", text="x", source="telegram"), at(500))])
    assert verdict is None
    [verdict] = await bench.filter.check([(Post(id="p1", text="x", source=finding(1).source), at(501))])
    assert verdict is not None
