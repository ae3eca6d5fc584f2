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

from stream.reader import read_batches

N_INDEXES = 2  # of the one class that the free classifier knows, and of all

_LOOK_S = 0.02
_SAMPLE_S = 0.25


class Stalled(RuntimeError):
    """A run whose output no longer grows, or whose process ended."""


@dataclass(slots=True, kw_only=True)
class Growth:
    """How many records the topic held when, in seconds of the monotonic clock, from the first growth on."""

    points: list[tuple[float, int]] = field(default_factory=list)

    @property
    def elapsed_s(self) -> float:
        """From the first growth seen to the last record."""
        return self.points[-1][0] - self.points[0][0]

    @property
    def rate_per_s(self) -> float:
        """Records after the first growth seen, over the time they took."""
        (start_s, first), (end_s, last) = self.points[0], self.points[-1]
        return (last - first) / (end_s - start_s) if end_s > start_s else float("nan")


@dataclass(slots=True, kw_only=True)
class Usage:
    """What a process and its children took: processor time between the first and the last look, and most memory."""

    cpu_s: float = 0.0
    peak_rss_bytes: int = 0


class Watch:
    """Looks at a topic and a process until the topic holds enough; with `redis`, until Redis does too."""

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
            last, last_growth_s, sampled_s, cpu_start_s = 0, time.monotonic(), 0.0, None
            while last < n_records:
                await asyncio.sleep(look_s)
                n_now = await self._n_done(consumer)
                now_s = time.monotonic()
                if n_now > last:
                    if last == 0:
                        cpu_start_s = family.cpu_s()
                    growth.points.append((now_s, n_now))
                    last, last_growth_s = n_now, now_s
                elif not is_alive():
                    raise Stalled(f"its process ended at {last} of {n_records} records")
                elif now_s - last_growth_s > timeout_s:
                    raise Stalled(f"{last} of {n_records} records after {timeout_s:g} s without another")
                if now_s - sampled_s > _SAMPLE_S:
                    sampled_s = now_s
                    usage.peak_rss_bytes = max(usage.peak_rss_bytes, family.rss_bytes())
            usage.cpu_s = family.cpu_s() - (cpu_start_s or 0.0)
            usage.peak_rss_bytes = max(usage.peak_rss_bytes, family.rss_bytes())
        finally:
            await consumer.stop()
            if self._redis is not None:
                await self._redis.aclose()
        return growth, usage

    async def _n_done(self, consumer: AIOKafkaConsumer) -> int:
        """Return how many findings are on the topic, and in Redis too where that is asked for."""
        n_records = sum((await consumer.end_offsets(self._partitions)).values())
        if self._redis is None:
            return n_records
        return min(n_records, max(0, await self._redis.dbsize() - N_INDEXES))


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """What the output topic holds, by record key, against the posts that went in."""

    lost: int
    duplicated: int


async def count(kafka: str, topic: str, n_posts: int) -> Counted:
    """Read the topic back and count posts that are missing or there more than once, by their keys."""
    seen: set[bytes | None] = set()
    n_records = 0
    async for batch in read_batches(kafka, topic):
        n_records += len(batch)
        seen.update(record.key for record in batch)
    return Counted(lost=n_posts - len(seen), duplicated=n_records - len(seen))


class _Family:
    """A process and its children, some of which may have ended."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)

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
        try:
            return [self._process, *self._process.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []
