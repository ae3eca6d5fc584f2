"""Posts that come a hundred times faster than they can be classified: the worker's memory does not follow."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

from stream.records import Post, encode
from tests.chaos.arena import Arena, Row, check, make_row
from tests.chaos.field import Raw

_SLOW_S = 0.2  # a post
_TEXT_CHARS = 8_000
_MAX_IN_FLIGHT = 200
_MAX_GROWTH = 48 * 1_048_576  # the client fetches ahead: 2 MB a partition, twice, and takes them apart


async def flooded(arena: Arena) -> Row:
    """A slow classifier, and many times the memory that the worker may take waiting on the topic."""
    n_posts, seconds = arena.pick(30_000, 2_000), arena.pick(60.0, 3.0)
    async with arena.field("flood", max_in_flight=_MAX_IN_FLIGHT, max_batch=8) as field:
        worker = field.worker(classifier=f"sleep:{_SLOW_S}")
        n_fed = await field.feed(_long(50, "before"))
        await field.settled(60)
        before_bytes, handled = worker.rss_bytes(), sum((await field.committed()).values())
        start = time.monotonic()
        n_fed += await field.feed(_long(n_posts, "flood"))
        fed_per_s = n_posts / (time.monotonic() - start)
        highest_bytes, most_in_flight = 0, 0.0
        while time.monotonic() - start < seconds:
            highest_bytes = max(highest_bytes, worker.rss_bytes())
            most_in_flight = max(most_in_flight, worker.metrics()["sitrep_in_flight_posts"])
            await asyncio.sleep(0.5)
        handled = sum((await field.committed()).values()) - handled
        per_s = handled / (time.monotonic() - start)
        report = (
            f"fed {fed_per_s:.0f} posts/s, handled {per_s:.1f}/s; memory {before_bytes / 2**20:.0f} MiB, at most"
            f" {highest_bytes / 2**20:.0f} MiB; in flight at most {most_in_flight:.0f}; lag {await field.lag()}"
        )
        print(report, flush=True)
        assert worker.is_alive, worker.log()
        assert 0 < most_in_flight <= _MAX_IN_FLIGHT, report
        assert highest_bytes - before_bytes < _MAX_GROWTH, report
        assert arena.short or fed_per_s >= 100 * per_s, f"no flood: {report}"
        worker.terminate()
        assert await asyncio.to_thread(worker.wait, 30) == 0, worker.log()
        field.worker(classifier="sleep:0")
        recovery_s = await field.settled(300)
        assert await field.committed_without_outcome() == 0
        ledger = await field.ledger()
    check(ledger, posts=n_fed)
    fault = "feed 100 times faster than the classifier"
    return make_row(fault, arena.broker.name, ledger, recovery_s=recovery_s)


def _long(n_posts: int, word: str) -> Iterator[Raw]:
    for number in range(n_posts):
        post = Post(id=f"{word}-{number:06}", text=f"bridge {number} ".ljust(_TEXT_CHARS, "x"))
        yield Raw(key=post.id.encode(), value=encode(post))
