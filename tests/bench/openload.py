"""An open-loop load: posts are due on a schedule whatever the pipeline does, and latency counts from then."""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from aiokafka import AIOKafkaProducer

from stream.broker import Broker
from stream.reader import read_batches

_TICK_S = 0.002


@dataclass(slots=True, kw_only=True)
class Sent:
    """When each post was due, in seconds since the epoch, and how late the last of them was sent."""

    due_s: dict[bytes, float] = field(default_factory=dict)
    late_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Latencies:
    """From due to the broker's stamp on the finding, in seconds, and how many posts have none."""

    values: Sequence[float]
    lost: int
    duplicated: int

    def percentile(self, share: float) -> float:
        """Return the latency that this share of the posts stays below."""
        return statistics.quantiles(self.values, n=1000, method="inclusive")[round(share * 1000) - 1]


async def send(
    kafka: str,
    topic: str,
    n_partitions: int,
    posts: Sequence[dict[str, Any]],
    *,
    rate_per_s: float,
    for_s: float,
    name: str,
) -> Sent:
    """Send posts at a steady rate, each to the next partition; returns when all are delivered."""
    producer = AIOKafkaProducer(bootstrap_servers=kafka, acks="all", max_request_size=4 * 1_048_576)
    await producer.start()
    sent = Sent()
    deliveries = []
    try:
        start_s = time.time() + 0.05
        for number in range(max(1, int(rate_per_s * for_s))):
            due_s = start_s + number / rate_per_s
            while (wait_s := due_s - time.time()) > 0:
                await asyncio.sleep(max(wait_s, _TICK_S))
            key = f"{name}-{number:07d}"
            value = json.dumps({**posts[number % len(posts)], "id": key}, ensure_ascii=False).encode()
            sent.due_s[key.encode()] = due_s
            sent.late_s = max(sent.late_s, time.time() - due_s)
            deliveries.append(await producer.send(topic, value, key=key.encode(), partition=number % n_partitions))
        await asyncio.gather(*deliveries)
    finally:
        await producer.stop()
    return sent


async def latencies(kafka: str, topic: str, sent: Sent) -> Latencies:
    """Return the latencies of what was sent; reads the whole topic."""
    first: dict[bytes, float] = {}
    n_records = 0
    async for batch in read_batches(Broker(kafka), topic):
        for record in batch:
            if record.key in sent.due_s:
                n_records += 1
                first.setdefault(record.key, record.timestamp / 1000 - sent.due_s[record.key])
    return Latencies(values=list(first.values()), lost=len(sent.due_s) - len(first), duplicated=n_records - len(first))
