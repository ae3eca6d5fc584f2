"""Times a run from outside, by the growth of its output topic, and counts what arrived; knows no framework."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import psutil
from aiokafka import AIOKafkaConsumer, TopicPartition
from redis.asyncio import Redis

from stream.broker import Broker
from stream.reader import read_batches

N_INDEXES = 2  # of the one class that the free classifier knows, and of all

_LOOK_S = 0.05  # each look takes a millisecond of the cores that the run needs
_SAMPLE_S = 0.25
_FAMILY_S = 3.0


class Stalled(RuntimeError):
    """A run whose output no longer grows, or whose process ended."""


@dataclass(slots=True, kw_only=True)
class Growth:
    """How many records the topic held when, in seconds of the monotonic clock, from the last look at it empty on."""

    points: list[tuple[float, int]] = field(default_factory=list)

    @property
    def elapsed_s(self) -> float:
        """From the last look at the empty topic to the last record."""
        return self.points[-1][0] - self.points[0][0]

    def seconds_to(self, n_records: int) -> float:
        """Return the time from the last look at the empty topic until it held so many."""
        return next(when_s for when_s, n in self.points if n >= n_records) - self.points[0][0]

    @property
    def rate_per_s(self) -> float:
        """Records after the first growth over the time since: the work behind that one was done before it.

        All records over all the time where there was but one growth.
        """
        first_s, n_first = self.points[1] if len(self.points) > 2 else self.points[0]
        last_s, n_last = self.points[-1]
        return (n_last - n_first) / (last_s - first_s)


@dataclass(slots=True, kw_only=True)
class Usage:
    """What a process and its children took: processor time for the posts after the first growth, and most memory."""

    cpu_s: float = 0.0
    n_posts: int = 0
    peak_rss_bytes: int = 0


class Watch:
    """Looks at a topic and a process until the topic holds enough.

    With `redis` the last record counts only once Redis holds every finding: whoever writes there now and then
    is timed by the topic, to which its work goes all along, and ends with its last write.
    """

    def __init__(self, kafka: str, topic: str, n_partitions: int, *, redis: str | None = None) -> None:
        self._kafka = kafka
        self._partitions = [TopicPartition(topic, number) for number in range(n_partitions)]
        self._redis: Any = None if redis is None else Redis.from_url(redis)

    async def until(
        self,
        n_records: int,
        *,
        pid: int,
        is_alive: Callable[[], bool],
        timeout_s: float,
        look_s: float = _LOOK_S,
    ) -> tuple[Growth, Usage]:
        """Return once the topic has `n_records`; raise `Stalled` when it stops growing for so long."""
        consumer = AIOKafkaConsumer(bootstrap_servers=self._kafka)
        await consumer.start()
        growth, usage = Growth(), Usage()
        family = _Family(pid)
        try:
            last, last_growth_s, sampled_s, cpu_start_s = 0, time.monotonic(), 0.0, 0.0
            looked_s = last_growth_s
            while last < n_records:
                await asyncio.sleep(look_s)
                n_now = await self._n_done(consumer, n_records)
                now_s = time.monotonic()
                if n_now > last:
                    if last == 0:
                        cpu_start_s = family.cpu_s()
                        usage.n_posts = n_records - n_now
                        growth.points.append((looked_s, 0))
                    growth.points.append((now_s, n_now))
                    last, last_growth_s = n_now, now_s
                elif not is_alive():
                    raise Stalled(f"its process ended at {last} of {n_records} records")
                elif now_s - last_growth_s > timeout_s:
                    raise Stalled(f"{last} of {n_records} records after {timeout_s:g} s without another")
                looked_s = now_s
                if now_s - sampled_s > _SAMPLE_S:
                    sampled_s = now_s
                    usage.peak_rss_bytes = max(usage.peak_rss_bytes, family.rss_bytes())
            usage.cpu_s = family.cpu_s() - cpu_start_s
            usage.peak_rss_bytes = max(usage.peak_rss_bytes, family.rss_bytes())
        finally:
            await consumer.stop()
            if self._redis is not None:
                await self._redis.aclose()
        return growth, usage

    async def _n_done(self, consumer: AIOKafkaConsumer, n_wanted: int) -> int:
        n_records: int = sum((await consumer.end_offsets(self._partitions)).values())
        if self._redis is None or n_records < n_wanted:
            return n_records
        n_stored: int = await self._redis.dbsize() - N_INDEXES
        return n_records if n_stored >= n_wanted else n_wanted - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """What the output topic holds, by record key, against the posts that went in."""

    lost: int
    duplicated: int


async def count(kafka: str, topic: str, n_posts: int) -> Counted:
    """Read the topic back and count posts that are missing or there more than once, by their keys."""
    seen: set[bytes | None] = set()
    n_records = 0
    async for batch in read_batches(Broker(kafka), topic):
        n_records += len(batch)
        seen.update(record.key for record in batch)
    return Counted(lost=n_posts - len(seen), duplicated=n_records - len(seen))


def cpu_s_of(pid: int) -> float:
    """Return the processor seconds that a process and its children have taken."""
    return _Family(pid).cpu_s()


class _Family:
    """A process and its children, some of which may have ended."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._known: list[psutil.Process] = []
        self._known_s = float("-inf")

    def cpu_s(self) -> float:
        total_s = 0.0
        for process in self._members():
            try:
                times = process.cpu_times()
            except psutil.NoSuchProcess:
                continue
            total_s += times.user + times.system
        return total_s

    def rss_bytes(self) -> int:
        total = 0
        for process in self._members():
            try:
                total += process.memory_info().rss
            except psutil.NoSuchProcess:
                continue
        return total

    def _members(self) -> list[psutil.Process]:
        if time.monotonic() - self._known_s > _FAMILY_S:  # looking through all processes takes a while
            self._known_s = time.monotonic()
            try:
                self._known = [self._process, *self._process.children(recursive=True)]
            except psutil.NoSuchProcess:
                self._known = []
        return self._known
