"""Sends a file's posts to the posts topic and, when asked, waits for their outcomes; classifies nothing."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

import msgspec
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from msgspec import Struct
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from deploy.failure import CommandFailed
from deploy.options import topics_of
from stream.errors import BrokerUnavailable
from stream.feeds import FeedCounts, ReplayCounts, read_feed, replay
from stream.ledger import Ledger, read_ledger
from stream.reader import Bounds, read_batches, topic_bounds
from stream.records import Timestamp
from stream.topics import Topics, check_topics
from workers.settings import Settings

log = logging.getLogger(__name__)

_POLL_S: Final = 0.5
_STOP_S: Final = 5.0
_PATIENCE_S: Final = 120.0  # without any new outcome


@asynccontextmanager
async def post_producer(settings: Settings) -> AsyncIterator[AIOKafkaProducer]:
    """Connect a producer that can send any post the topic takes, and some that it refuses."""
    limit_bytes = 2 * settings.max_record_bytes + 65_536
    producer = AIOKafkaProducer(
        bootstrap_servers=settings.kafka,
        enable_idempotence=True,
        max_batch_size=max(262_144, limit_bytes),
        max_request_size=limit_bytes,
        linger_ms=2,
    )
    try:
        await producer.start()
    except (KafkaError, OSError, ValueError) as error:
        await producer.stop()
        raise BrokerUnavailable(
            f"no Kafka broker answers at {settings.kafka}: start one or give another address (--kafka)"
        ) from error
    try:
        yield producer
    finally:
        try:  # flushes, which a broker that went away would hold up for ever
            await asyncio.wait_for(producer.stop(), _STOP_S)
        except TimeoutError:
            log.warning("the producer of %s could not be closed in time", settings.kafka)


class _Timed(Struct):
    accepted_at: Timestamp


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """One replay of one file."""

    settings: Settings
    file: Path
    images: Path | None
    rate_per_s: float | None
    limit: int | None
    wait: bool

    async def run(self) -> bool:
        """Send, report, wait if asked; return False when the ledger does not balance."""
        topics = topics_of(self.settings)
        counts = FeedCounts()
        records = read_feed(
            self.file, images_dir=self.images, max_image_bytes=self.settings.max_record_bytes // 2, counts=counts
        )
        await check_topics(self.settings.kafka, topics.all())
        before = await self._outcome_bounds(topics)
        console = Console(soft_wrap=True)
        start = time.monotonic()
        async with post_producer(self.settings) as producer:
            with _progress() as progress:
                task = progress.add_task("sending", total=self._n_expected())
                done = await replay(
                    producer,
                    topics.posts.name,
                    islice(records, self.limit),
                    rate_per_s=self.rate_per_s,
                    on_sent=lambda _: progress.advance(task),
                    stall_s=self.settings.publish_timeout_s,
                )
                progress.update(task, total=done.n_sent)
        _report(console, done, counts)
        if not self.wait:
            return True
        ledger = await self._outcomes(topics, before, done.n_sent)
        elapsed_s = time.monotonic() - start
        console.print(f"every outcome after {elapsed_s:.1f} s: {done.n_sent / elapsed_s:,.1f} posts/s end to end")
        latencies = await self._latencies_s(topics, before[topics.findings.name])
        if latencies:
            p50, p99 = (latencies[int(share * (len(latencies) - 1))] for share in (0.5, 0.99))
            console.print(f"end-to-end latency of {len(latencies):,} findings: p50 {p50:.3f} s, p99 {p99:.3f} s")
        console.print(ledger.summary(), highlight=False)
        return ledger.balanced

    async def _outcomes(self, topics: Topics, before: dict[str, dict[int, Bounds]], n_sent: int) -> Ledger:
        n_seen, last_progress = 0, time.monotonic()
        with _progress() as progress:
            task = progress.add_task("outcomes", total=n_sent)
            while True:
                after = await self._outcome_bounds(topics)
                n_now = sum(
                    after[topic][partition].end - bound.end
                    for topic, bounds in before.items()
                    for partition, bound in bounds.items()
                )
                progress.update(task, completed=min(n_now, n_sent))
                if n_now > n_seen:
                    n_seen, last_progress = n_now, time.monotonic()
                if n_now >= n_sent:
                    ledger = await read_ledger(self.settings.kafka, topics)
                    if not ledger.missing:
                        return ledger
                if time.monotonic() - last_progress > _PATIENCE_S:
                    raise CommandFailed(
                        f"no outcome for {_PATIENCE_S:g} s, {n_seen} of {n_sent} so far: is a worker running? "
                        "(`sitrep ledger check` tells which posts are missing)"
                    )
                await asyncio.sleep(_POLL_S)

    async def _outcome_bounds(self, topics: Topics) -> dict[str, dict[int, Bounds]]:
        names = (topics.findings.name, topics.duplicates.name, topics.dead_letters.name)
        return {name: await topic_bounds(self.settings.kafka, name) for name in names}

    async def _latencies_s(self, topics: Topics, before: dict[int, Bounds]) -> list[float]:
        """Return the seconds from accepted to published of the findings since, sorted."""
        decoder = msgspec.json.Decoder(_Timed)
        latencies = []
        ends = {partition: bound.end for partition, bound in before.items()}
        async for batch in read_batches(self.settings.kafka, topics.findings.name, from_offsets=ends):
            for record in batch:
                accepted_s = decoder.decode(record.value).accepted_at.timestamp()
                latencies.append(record.timestamp / 1000 - accepted_s)
        return sorted(latencies)

    def _n_expected(self) -> int | None:
        """Return about how many posts the file holds; lines are quicker to count than posts."""
        with self.file.open("rb") as file:
            n_lines = sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))
        return n_lines if self.limit is None else min(n_lines, self.limit)


class _Speed(ProgressColumn):
    def render(self, task: Task) -> Text:
        elapsed_s = task.finished_time if task.finished else task.elapsed
        return Text(f"{task.completed / elapsed_s:,.0f}/s" if elapsed_s else "", style="dim")


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description:<9}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Speed(),
        TimeRemainingColumn(),
    )


def _report(console: Console, done: ReplayCounts, counts: FeedCounts) -> None:
    speed = done.n_sent / done.elapsed_s if done.elapsed_s else 0.0
    console.print(f"sent {done.n_sent:,} posts in {done.elapsed_s:.2f} s: {speed:,.1f} posts/s")
    if done.n_too_large:
        console.print(f"left out: {done.n_too_large} posts larger than the topic takes (max_record_bytes)")
    if counts.n_empty:
        console.print(f"left out: {counts.n_empty} rows with neither text nor a usable image")
    for reason, n in counts.images_left_out.most_common():
        console.print(f"sent without their image: {n} posts ({reason})")
    if done.late_s > 1:
        console.print(f"fell up to {done.late_s:.1f} s behind the wanted rate")
