"""The prepare stage: what a lost partition leaves behind, and how long the pictures of one post may take."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from aiokafka import TopicPartition
from prometheus_client import CollectorRegistry

from stream.accepted import Accepted, Fetched
from stream.breaker import CircuitBreaker
from stream.cache_writer import REDIS_ERRORS
from stream.errors import ImageUnavailable
from stream.headers import Cause
from stream.offsets import Lease
from stream.records import Duplicate, Image, Post, PreparedImage, PreparedPost, encode
from tests.stream.findings import MemoryCache
from workers.duplicates import DuplicateFilter
from workers.inference import shape
from workers.memory import PostMemory
from workers.metrics import Metrics
from workers.outcomes import Job
from workers.prepare import PrepareStage
from workers.waiting import WaitingRoom

PARTITION = TopicPartition("posts", 0)
SPOILT = Image(data=b"spoilt")
GOOD = Image(data=b"good")


class Images:
    """Takes `cost_s` for each picture, if it has so long; only `GOOD` can be used then."""

    n_processes = 1

    def __init__(self) -> None:
        self.cost_s = 0.0
        self.timeout_s = 5.0

    async def prepare(self, image: Image, *, index: int, deadline_s: float) -> PreparedImage:
        left_s = deadline_s - asyncio.get_running_loop().time()
        await asyncio.sleep(min(self.cost_s, left_s))
        if self.cost_s > left_s:
            raise ImageUnavailable("timeout", "too slow")
        if image != GOOD:
            raise ImageUnavailable("unreadable", "spoilt")
        return PreparedImage(index=index, width=1, height=1, original_width=1, original_height=1, pixels=b"rgb")


class Ledger:
    """Outcomes that are delivered while `broker_answers` is set."""

    def __init__(self) -> None:
        self.broker_answers = asyncio.Event()
        self.broker_answers.set()
        self.dead: list[int] = []
        self.known: list[Duplicate] = []

    async def dead_letters(self, letters: Sequence[tuple[Accepted, Cause]]) -> None:
        await self.broker_answers.wait()
        self.dead += [accepted.record.offset for accepted, _ in letters]

    async def duplicates(self, duplicates: Sequence[tuple[Accepted, Duplicate]]) -> None:
        self.known += [duplicate for _, duplicate in duplicates]


class Bench:
    """A stage without Redis; `forwarded` are the jobs that it made."""

    def __init__(self) -> None:
        self.images = Images()
        self.ledger = Ledger()
        self.forwarded: asyncio.Queue[Job] = asyncio.Queue()
        self.fatal: list[BaseException] = []
        metrics = Metrics(CollectorRegistry())
        self.stage = PrepareStage(
            images=self.images,  # type: ignore[arg-type]
            duplicates=DuplicateFilter(
                memory=PostMemory(PARTITION.topic, max_posts=100),
                metrics=metrics,
                cache=MemoryCache(),
                breaker=CircuitBreaker(failures=REDIS_ERRORS, n_failures=1, pause_s=1.0),
                redis_answers=lambda: False,
            ),
            outcomes=self.ledger,  # type: ignore[arg-type]
            metrics=metrics,
            room=WaitingRoom(shape, window_posts=10, max_overtake_s=60.0),
            forward=self._forward,
            max_record_bytes=10_000,
            on_fatal=self.fatal.append,
        )

    async def _forward(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            self.forwarded.put_nowait(job)

    async def next(self) -> PreparedPost:
        async with asyncio.timeout(5):
            return (await self.forwarded.get()).prepared


def fetched(lease: Lease, values: dict[int, bytes]) -> Fetched:
    """Return records by their offsets, accepted under the lease."""
    lease.accept(values, 0)
    records: list[Any] = [
        SimpleNamespace(
            topic=PARTITION.topic,
            partition=PARTITION.partition,
            offset=offset,
            timestamp=0,
            key=None,
            value=value,
            headers=(),
        )
        for offset, value in values.items()
    ]
    return Fetched(records, lease)


async def test_posts_of_a_partition_lost_during_a_slow_delivery_are_not_remembered() -> None:
    """Or the post, put back once the partition returns, would count as a duplicate of one that others gave up."""
    bench, lease = Bench(), Lease(PARTITION)
    post = encode(Post(id="a", text="bridge down"))
    bench.ledger.broker_answers.clear()
    running = asyncio.create_task(bench.stage.run(fetched(lease, {4: b"broken", 5: post})))
    await asyncio.sleep(0.01)
    lease.give_up()
    bench.stage.forget_partitions({PARTITION})
    bench.ledger.broker_answers.set()
    await running
    assert (bench.ledger.dead, bench.forwarded.qsize()) == ([4], 0)
    await bench.stage.run(fetched(Lease(PARTITION), {9: post}))
    assert (await bench.next()).origin.offset == 9
    assert bench.ledger.known == []


async def test_all_images_of_a_post_share_one_time_to_be_decoded() -> None:
    """Those that it does not reach are marked like one that is too slow by itself, and the text goes on."""
    bench = Bench()
    bench.images.timeout_s, bench.images.cost_s = 0.2, 0.15
    post = Post(id="a", text="bridge down", images=[SPOILT] * 4)
    await bench.stage.run(fetched(Lease(PARTITION), {0: encode(post)}))
    prepared = await bench.next()
    assert prepared.image is None
    assert prepared.degraded == ["image_unreadable"] + ["image_timeout"] * 3
    assert bench.fatal == []


async def test_image_that_can_be_used_follows_those_that_cannot() -> None:
    bench = Bench()
    post = Post(id="a", text="", images=[SPOILT, GOOD, SPOILT])
    await bench.stage.run(fetched(Lease(PARTITION), {0: encode(post)}))
    prepared = await bench.next()
    assert prepared.image is not None and prepared.image.index == 1
    assert prepared.degraded == ["image_unreadable", "further_images_unread"]
