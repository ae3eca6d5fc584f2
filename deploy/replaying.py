"""Sends a file's posts to the posts topic and, when asked, waits for their outcomes; classifies nothing."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Final

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, MessageSizeTooLargeError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from deploy.awaiting import outcome_ends, wait_for_outcomes
from deploy.options import topics_of
from deploy.render import safe
from stream.client import start_client
from stream.feeds import FeedCounts, ReplayCounts, read_feed, replay
from stream.headers import Headers
from stream.ledger import read_ledger
from stream.outbox import Outgoing
from stream.topics import check_topics
from workers.settings import Settings

log = logging.getLogger(__name__)

_STOP_S: Final = 5.0
_N_NAMED: Final = 5


@asynccontextmanager
async def post_producer(settings: Settings) -> AsyncIterator[AIOKafkaProducer]:
    """Connect a producer that can send any post the topic takes, and some that it refuses."""
    limit_bytes = 2 * settings.max_record_bytes + 65_536
    producer = AIOKafkaProducer(
        **settings.broker.options(),
        enable_idempotence=True,
        max_batch_size=max(262_144, limit_bytes),
        max_request_size=limit_bytes,
        linger_ms=2,
    )
    try:
        await start_client(producer)
    except (KafkaError, OSError, ValueError) as error:
        await producer.stop()
        raise await settings.broker.unreachable(error) from error
    try:
        yield producer
    finally:
        try:  # flushes, which a broker that went away would hold up for ever
            await asyncio.wait_for(producer.stop(), _STOP_S)
        except TimeoutError:
            log.warning("the producer of %s could not be closed in time", settings.kafka)


class _Noting:
    """Sends through a producer, and keeps what only its answers tell: where records lie, which were too large."""

    def __init__(self, producer: AIOKafkaProducer, *, keep_places: bool) -> None:
        self.places: defaultdict[int, set[int]] = defaultdict(set)  # offsets by partition
        self.too_large: list[str] = []
        self._producer = producer
        self._keep_places = keep_places

    async def send(
        self, topic: str, value: bytes | None = None, key: bytes | None = None, *, headers: Headers
    ) -> asyncio.Future[object]:
        try:
            delivery: asyncio.Future[object] = await self._producer.send(topic, value=value, key=key, headers=headers)
        except MessageSizeTooLargeError:
            self.too_large.append(_name(key))
            raise
        delivery.add_done_callback(partial(self._delivered, key))
        return delivery

    def _delivered(self, key: bytes | None, delivery: asyncio.Future[Any]) -> None:
        error = None if delivery.cancelled() else delivery.exception()
        if isinstance(error, MessageSizeTooLargeError):
            self.too_large.append(_name(key))
        elif error is None and not delivery.cancelled() and self._keep_places:
            place = delivery.result()
            self.places[place.partition].add(place.offset)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Left:
    """Rows of a table that were left out, the first is row 1, and ids of posts without their image, by reason."""

    empty: list[str] = field(default_factory=list)
    without_image: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))


def _noted(records: Iterator[Outgoing], counts: FeedCounts, left: _Left) -> Iterator[Outgoing]:
    """Yield the records; the feed only counts what it leaves out, and this says which."""
    while True:
        n_rows, n_empty = counts.n_posts + counts.n_empty, counts.n_empty
        n_images, images = counts.images_left_out.total(), counts.images_left_out.copy()
        record = next(records, None)
        left.empty.extend(f"row {n_rows + number}" for number in range(1, counts.n_empty - n_empty + 1))
        if record is None:
            return
        if counts.images_left_out.total() > n_images:
            for reason in counts.images_left_out - images:
                left.without_image[reason].append(_name(record.key))
        yield record


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
        """Send, report, wait if asked; return False when posts were left out, or the ledger does not balance.

        Posts of others that wait for their outcome do not count.
        """
        topics = topics_of(self.settings)
        counts, left = FeedCounts(), _Left()
        records = read_feed(
            self.file, images_dir=self.images, max_image_bytes=self.settings.max_record_bytes // 2, counts=counts
        )
        await check_topics(self.settings.broker, topics.all())
        before = await outcome_ends(self.settings.broker, topics)
        console = Console(soft_wrap=True)
        start = time.monotonic()
        async with post_producer(self.settings) as producer:
            noting = _Noting(producer, keep_places=self.wait)
            with _progress() as progress:
                task = progress.add_task("sending", total=self._n_expected())
                done = await replay(
                    noting,
                    topics.posts.name,
                    _noted(islice(records, self.limit), counts, left),
                    rate_per_s=self.rate_per_s,
                    on_sent=lambda _: progress.advance(task),
                    stall_s=self.settings.publish_timeout_s,
                )
                progress.update(task, total=done.n_sent)
        _report(console, done, counts, left, noting.too_large)
        if not self.wait:
            return not done.n_too_large
        with _progress() as progress:
            task = progress.add_task("outcomes", total=done.n_sent)
            latencies_s = await wait_for_outcomes(
                self.settings.broker,
                topics,
                noting.places,
                since=before,
                on_progress=lambda n: progress.update(task, completed=n),
            )
        elapsed_s = time.monotonic() - start
        console.print(f"every outcome after {elapsed_s:.1f} s: {done.n_sent / elapsed_s:,.1f} posts/s end to end")
        if latencies_s:
            p50, p99 = (latencies_s[int(share * (len(latencies_s) - 1))] for share in (0.5, 0.99))
            console.print(f"end-to-end latency of {len(latencies_s):,} findings: p50 {p50:.3f} s, p99 {p99:.3f} s")
        ledger = await read_ledger(self.settings.broker, topics)
        console.print(ledger.summary(), highlight=False)
        if ledger.missing:
            console.print(f"the {len(ledger.missing)} missing are not of this file: `sitrep ledger check` names them")
        return not (done.n_too_large or ledger.extra or ledger.differing)

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


def _report(console: Console, done: ReplayCounts, counts: FeedCounts, left: _Left, too_large: list[str]) -> None:
    speed = done.n_sent / done.elapsed_s if done.elapsed_s else 0.0
    console.print(f"sent {done.n_sent:,} posts in {done.elapsed_s:.2f} s: {speed:,.1f} posts/s")

    def tell(line: str, names: list[str]) -> None:
        console.print(f"{line}: {_few(names)}", markup=False, highlight=False)

    if done.n_too_large:
        tell(f"left out: {done.n_too_large} posts larger than the topic takes (max_record_bytes)", too_large)
    if counts.n_empty:
        tell(f"left out: {counts.n_empty} rows with neither text nor a usable image", left.empty)
    for reason, n in counts.images_left_out.most_common():
        tell(f"sent without their image: {n} posts ({reason})", left.without_image[reason])
    if done.late_s > 1:
        console.print(f"fell up to {done.late_s:.1f} s behind the wanted rate")


def _name(key: bytes | None) -> str:
    return "a post without an id" if key is None else safe(key.decode("utf-8", "replace"))


def _few(names: list[str]) -> str:
    more = f" and {len(names) - _N_NAMED} more" if len(names) > _N_NAMED else ""
    return ", ".join(names[:_N_NAMED]) + more
