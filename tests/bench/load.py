"""Offers posts to one worker with the shipped checkpoint and watches it from outside: rate, latency, busy share."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from aiokafka import AIOKafkaProducer

from stream.broker import Broker
from stream.reader import read_topic
from stream.records import MODE_MARKS, Finding, decode
from tests.chaos.field import Field
from tests.chaos.processes import WorkerProcess

_PATIENCE_S = 240.0
_LOOK_S = 0.5


@dataclass(slots=True, kw_only=True)
class Watch:
    """The worker's own account, some times a second, in seconds since the first post was due."""

    worker: WorkerProcess
    start_s: float
    seen: list[dict[str, Any]] = field(default_factory=list)

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            metrics = await asyncio.to_thread(self.worker.metrics)
            modes = [name for name in metrics if name.startswith("sitrep_mode{") and metrics[name]]
            self.seen.append(
                {
                    "at_s": round(time.time() - self.start_s, 2),
                    "lag_posts": sum(v for k, v in metrics.items() if k.startswith("sitrep_consumer_lag_posts{")),
                    "mode": modes[0].partition("=")[2].rstrip("}") if modes else "full",
                    "triage": bool(metrics.get("sitrep_triage_active", 0.0)),
                    "busy_s": metrics.get("sitrep_device_busy_seconds_total", 0.0),
                    "n_batches": metrics.get("sitrep_batch_size_posts_count", 0.0),
                    "n_posts": metrics.get("sitrep_batch_size_posts_sum", 0.0),
                }
            )
            await asyncio.sleep(_LOOK_S)


@dataclass(frozen=True, slots=True, kw_only=True)
class Offered:
    """What came of the posts that were offered."""

    due_s: dict[str, float]  # by post id, since the first was due
    published_s: dict[str, float]
    model: str  # the version that decided
    degraded: dict[str, str]  # the mode marked on a finding
    late_s: float  # how far sending fell behind its schedule
    missing: int
    differing: int
    seen: list[dict[str, Any]]

    def latencies_s(self, kind: str) -> list[float]:
        """Return, for the posts whose id begins so, published minus due, in the order of being due."""
        return [
            self.published_s[post_id] - due_s
            for post_id, due_s in self.due_s.items()
            if post_id.startswith(kind) and post_id in self.published_s
        ]

    def saturated(self) -> dict[str, float]:
        """Return rate, busy share and batch size over the middle of the time in which posts were published."""
        times = sorted(self.published_s.values())
        first, last = times[len(times) // 5], times[len(times) * 9 // 10]
        inside = [one for one in self.seen if first <= one["at_s"] <= last]
        span_s = inside[-1]["at_s"] - inside[0]["at_s"]
        n_posts, n_batches = (inside[-1][key] - inside[0][key] for key in ("n_posts", "n_batches"))
        return {
            "posts_per_s": round(sum(first <= one <= last for one in times) / (last - first), 2),
            "device_busy_share": round((inside[-1]["busy_s"] - inside[0]["busy_s"]) / span_s, 4),
            "posts_per_batch": round(n_posts / max(1.0, n_batches), 1),
            "measured_s": round(span_s, 1),
        }


async def offer(ground: Field, worker: WorkerProcess, posts: Sequence[bytes], *, per_s: float | None) -> Offered:
    """Send the posts on their schedule (None: at once), wait for all outcomes, and read back what came of them."""
    start_s = time.time() + 0.5
    watch = Watch(worker=worker, start_s=start_s)
    watching = asyncio.create_task(watch.run())
    try:
        due_s, late_s = await _send(ground, posts, start_s, per_s)
        await ground.settled(_PATIENCE_S)
        await asyncio.sleep(3.0)  # so that what switches off is seen to do so
    finally:
        watching.cancel()
    ledger = await ground.ledger()
    published_s, degraded, model = {}, {}, ""
    async for record in read_topic(Broker(ground.kafka), ground.topics.findings.name):
        finding = decode(record.value, Finding)
        published_s[finding.post_id] = record.timestamp / 1000 - start_s
        model = finding.model.version
        degraded[finding.post_id] = next((mark for mark in MODE_MARKS if mark in finding.degraded), "")
    return Offered(
        due_s=due_s,
        published_s=published_s,
        model=model,
        degraded=degraded,
        late_s=round(late_s, 3),
        missing=len(ledger.missing) + len(due_s) - ledger.findings,
        differing=len(ledger.differing),
        seen=watch.seen,
    )


async def _send(
    ground: Field, posts: Sequence[bytes], start_s: float, per_s: float | None
) -> tuple[dict[str, float], float]:
    producer = AIOKafkaProducer(bootstrap_servers=ground.kafka, acks="all", max_request_size=4_194_304, linger_ms=2)
    await producer.start()
    due_s: dict[str, float] = {}
    deliveries, late_s = [], 0.0
    try:
        for number, value in enumerate(posts):
            due = number / per_s if per_s else 0.0
            ahead_s = start_s + due - time.time()
            late_s = max(late_s, -ahead_s if per_s else 0.0)
            if ahead_s > 0:
                await asyncio.sleep(ahead_s)
            post_id = value[7 : value.index(b'"', 7)].decode()
            due_s[post_id] = due
            deliveries.append(await producer.send(ground.topics.posts.name, value, key=post_id.encode()))
        await asyncio.gather(*deliveries)
    finally:
        await producer.stop()
    return due_s, late_s


def summary(latencies_s: Sequence[float]) -> dict[str, float]:
    """Return how many there are, with their median, 95th percentile and longest, in seconds."""
    ordered = sorted(latencies_s)
    return {
        "n": len(ordered),
        "p50_s": round(statistics.median(ordered), 2),
        "p95_s": round(ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))], 2),
        "max_s": round(ordered[-1], 2),
    }
