"""Micro-batches: full or after the linger, of one kind, and of a size that holds the latency target."""

from __future__ import annotations

import asyncio
import time

import pytest

from workers.batcher import MicroBatcher
from workers.pace import Pace
from workers.waiting import WaitingRoom


def batcher(*, max_batch: int = 10, linger_s: float = 0.2, **options: object) -> MicroBatcher[int]:
    """Return a batcher of numbers, of which the negative ones are of another kind."""
    room: WaitingRoom[int] = WaitingRoom(
        lambda number: ("image" if number < 0 else "text", 0), window_posts=100, max_overtake_s=60.0
    )
    return MicroBatcher(room, size=lambda kind: max_batch, linger_s=linger_s, **options)  # type: ignore[arg-type]


async def test_linger_counts_from_the_first_post() -> None:
    """Posts that trickle in share a batch; the wait starts with the first of them, not with the last batch."""
    some = batcher()
    await asyncio.sleep(0.25)  # idle longer than the linger
    some.put([1])
    start = time.monotonic()
    waiting = asyncio.create_task(some.next_batch())
    await asyncio.sleep(0.05)
    some.put([2, 3])
    assert await waiting == [1, 2, 3]
    assert 0.15 <= time.monotonic() - start < 1.0
    some.put(range(25))
    assert [len(await some.next_batch()) for _ in range(3)] == [10, 10, 5]


async def test_hurried_batcher_lingers_no_more() -> None:
    """A worker that stops does not wait for a batch to fill."""
    some = batcher(linger_s=30)
    some.put([1])
    waiting = asyncio.create_task(some.next_batch())
    await asyncio.sleep(0)
    some.hurry()
    assert await asyncio.wait_for(waiting, 1) == [1]
    some.put([2, 3])
    assert await asyncio.wait_for(some.next_batch(), 1) == [2, 3]


async def test_full_batch_of_another_kind_does_not_wait_for_the_linger_of_the_first() -> None:
    now_s = 0.0
    some = batcher(max_batch=3, linger_s=1.0, clock=lambda: now_s)
    some.put([1, -1, -2, -3])
    assert await some.next_batch() == [-1, -2, -3]
    some.put([-4])
    now_s = 1.0
    assert await some.next_batch() == [1]


async def test_batch_tells_how_long_its_first_post_was_overtaken() -> None:
    told: list[float] = []
    now_s = 0.0
    some = batcher(max_batch=1, linger_s=0.0, clock=lambda: now_s, on_overtaken=told.append)
    some.put([1, 2, 3])
    [second] = some._room.to_rate(2)[1:]
    some._room.rate([second], [True])
    assert await some.next_batch() == [2]
    now_s = 5.0
    assert [await some.next_batch(), await some.next_batch()] == [[1], [3]]
    assert told == [0.0, 5.0, 0.0]


@pytest.mark.parametrize(
    ("per_post_s", "expected"), [(0.001, 32), (0.061, 5), (0.014, 23), (2.0, 1)], ids=["cheap", "image", "text", "slow"]
)
def test_batches_shrink_until_three_of_them_fit_the_target(per_post_s: float, expected: int) -> None:
    """A post that need not queue waits for the batch that runs, for the one that is ready, and for its own."""
    pace = Pace(max_batch=32, target_latency_s=1.0)
    assert pace.size("text") == 32
    for _ in range(20):
        n_posts = pace.size("text")
        pace.observe("text", n_posts, n_posts * per_post_s)
    assert pace.size("text") == expected
    assert pace.size("image") == 32


def test_size_finds_back_after_a_slow_batch() -> None:
    pace = Pace(max_batch=32, target_latency_s=1.0)
    pace.observe("text", 4, 8.0)
    assert pace.size("text") == 1
    for _ in range(30):
        n_posts = pace.size("text")
        pace.observe("text", n_posts, n_posts * 0.01)
    assert pace.size("text") >= 31


def test_cost_per_batch_does_not_keep_batches_small() -> None:
    """On a device where a batch costs 50 ms whatever it holds, a size that starts at 1 grows to what fits."""
    pace = Pace(max_batch=256, target_latency_s=1.0)
    pace.observe("text", 1, 10.0)
    for _ in range(40):
        n_posts = pace.size("text")
        pace.observe("text", n_posts, 0.05 + n_posts * 0.0005)
    assert pace.size("text") == 256
