"""Where a scenario plays: topics of its own on a broker, workers, posts fed in, and the ledger read from outside."""

from __future__ import annotations

import asyncio
import itertools
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from stream.broker import Broker
from stream.errors import StreamError
from stream.headers import Headers
from stream.ledger import Ledger, read_ledger
from stream.reader import topic_bounds
from stream.records import Post, encode
from stream.topics import Topics, create_topics, topics
from tests.chaos.processes import WorkerProcess

T = TypeVar("T")

FEEDER = "feeder"  # its client id, by which a broker's quota may leave it out
_PATIENCE_S = 60.0
_MAX_UNCONFIRMED = 2_000
_QUICK = {
    "session_timeout_s": 6,
    "drain_timeout_s": 5,
    "request_timeout_s": 5,
    "publish_timeout_s": 120,
    "linger_s": 0.02,
    "ready_stall_s": 20,
    "image_timeout_s": 3,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Raw:
    """One record for the posts topic, as bytes."""

    value: bytes | None
    key: bytes | None = None
    headers: Headers = field(default_factory=list)
    partition: int | None = None
    timestamp_ms: int | None = None


@dataclass(slots=True, kw_only=True)
class Field:
    """Everything that one scenario needs, under one prefix."""

    kafka: str
    redis: str
    prefix: str
    folder: Path
    topics: Topics
    flags: dict[str, Any]
    workers: list[WorkerProcess] = field(default_factory=list)
    flows: list[asyncio.Task[int]] = field(default_factory=list)

    def worker(
        self,
        *,
        stage: str = "all",
        classifier: str = "sleep:0.001",
        ready: bool = True,
        via: Mapping[int, int] | None = None,
        **flags: Any,
    ) -> WorkerProcess:
        """Start a worker; waits until it is ready unless told otherwise.

        `via` leads its connections to one loopback port through another, where a proxy listens.
        """
        # a worker started after a crash takes the place of the one that crashed, as under a supervisor
        taken = {worker.instance for worker in self.workers if worker.is_alive}
        instance = next(name for name in map("worker-{}".format, itertools.count()) if name not in taken)
        worker = WorkerProcess(
            flags={"instance": instance, **self.flags, **flags},
            log_file=self.folder / f"worker-{len(self.workers)}.log",
            stage=stage,
            classifier=classifier,
            via=via or {},
        )
        self.workers.append(worker)
        if ready:
            worker.wait_ready()
        return worker

    async def feed(self, records: Iterable[Raw], *, per_s: float | None = None, topic: str | None = None) -> int:
        """Deliver the records, each confirmed by the broker, and return how many; waits for a broker that is away."""
        n_sent = 0
        start = time.monotonic()
        # not idempotent: a post that the broker got twice must be told as a duplicate
        producer = AIOKafkaProducer(bootstrap_servers=self.kafka, client_id=FEEDER, acks="all", max_request_size=2**23)
        await producer.start()
        try:
            deliveries = []
            for record in records:
                if per_s is not None:
                    await asyncio.sleep(max(0.0, start + n_sent / per_s - time.monotonic()))
                deliveries.append(await producer.send(
                    topic or self.topics.posts.name, record.value, key=record.key, partition=record.partition,
                    headers=record.headers, timestamp_ms=record.timestamp_ms,
                ))  # fmt: skip
                n_sent += 1
                if len(deliveries) == _MAX_UNCONFIRMED:
                    await asyncio.gather(*deliveries)
                    deliveries.clear()
            await asyncio.gather(*deliveries)
        finally:
            await producer.stop()
        return n_sent

    def flow(self, n_posts: int, *, per_s: float) -> AbstractAsyncContextManager[asyncio.Task[int]]:
        """Feed numbered posts in the background; see `flowing`."""
        return self.flowing(numbered(n_posts), per_s=per_s)

    @asynccontextmanager
    async def flowing(self, records: Iterable[Raw], *, per_s: float) -> AsyncIterator[asyncio.Task[int]]:
        """Feed in the background; await what this yields to have all records delivered."""
        feeding = asyncio.create_task(self.feed(records, per_s=per_s))
        self.flows.append(feeding)
        try:
            yield feeding
        finally:
            feeding.cancel()

    async def committed(self, role: str = "prepare") -> dict[int, int]:
        """Return the group's committed offsets, by partition; waits for a broker that is away."""
        return await _patiently(self._committed, role)

    async def ends(self, topic: str | None = None) -> dict[int, int]:
        """Return the end offset of each partition, of the posts topic unless told otherwise; waits as `committed`."""
        bounds = await _patiently(topic_bounds, Broker(self.kafka), topic or self.topics.posts.name)
        return {partition: bound.end for partition, bound in bounds.items()}

    async def lag(self) -> int:
        """Return how many posts on their topic are not committed."""
        done = await self.committed()
        return sum(end - done.get(partition, 0) for partition, end in (await self.ends()).items())

    async def settled(self, timeout_s: float, role: str = "prepare") -> float:
        """Wait until everything on the posts topic is committed, and return the seconds it took."""
        start = time.monotonic()
        state: object = None
        while time.monotonic() - start < timeout_s:
            done, ends = await self.committed(role), await self.ends()
            state = {number: (done.get(number), end) for number, end in ends.items() if done.get(number, 0) < end}
            if not state:
                return time.monotonic() - start
            await asyncio.sleep(0.2)
        logs = "\n".join(f"--- {worker.log_file.name}\n{worker.log(2500)}" for worker in self.workers[-4:])
        raise AssertionError(f"not settled after {timeout_s} s: (committed, end) {state}\n{logs}")

    async def recovery_s(self, timeout_s: float = 90.0) -> float:
        """Return the seconds from now until every partition has committed twice, or has nothing left to commit.

        Twice, since the first may be a commit that was on its way when the fault began. While posts flow
        in, no partition has nothing left.
        """
        start = time.monotonic()
        seen = await self.committed()
        n_commits: Counter[int] = Counter()
        while True:
            now, ends = await self.committed(), await self.ends()
            n_commits.update(partition for partition in now if now[partition] > seen.get(partition, 0))
            seen = now
            flowing = any(not feeding.done() for feeding in self.flows)
            waiting = [p for p, end in ends.items() if n_commits[p] < 2 and (flowing or now.get(p, 0) < end)]
            if not waiting:
                return time.monotonic() - start
            if time.monotonic() - start > timeout_s:
                logs = "\n".join(f"--- {worker.log_file.name}\n{worker.log(2500)}" for worker in self.workers[-4:])
                raise AssertionError(f"no recovery in {timeout_s} s: {waiting} of {now} {ends}\n{logs}")
            await asyncio.sleep(0.1)

    async def ledger(self) -> Ledger:
        """Return the ledger as the topics have it."""
        return await read_ledger(Broker(self.kafka), self.topics)

    async def committed_without_outcome(self) -> int:
        """Return how many posts lie before a committed offset and have no outcome: never any, at any time."""
        done = await self.committed()  # first: what is committed now has its outcome on the topics by now
        ledger = await self.ledger()
        return sum(missing.origin.offset < done.get(missing.origin.partition, 0) for missing in ledger.missing)

    async def _committed(self, role: str) -> dict[int, int]:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.kafka, request_timeout_ms=5_000)
        try:
            await admin.start()
            stored = await admin.list_consumer_group_offsets(f"{self.prefix}{role}")
        finally:
            await admin.close()
        return {tp.partition: meta.offset for tp, meta in stored.items() if meta.offset >= 0}


@asynccontextmanager
async def playing_field(
    *,
    kafka: str,
    redis: str,
    name: str,
    folder: Path,
    partitions: int = 4,
    replication: int = 1,
    findings_bytes: int | None = None,
    **flags: Any,
) -> AsyncIterator[Field]:
    """Make the topics, with a limit of its own for findings if told so, and end every worker afterwards."""
    prefix = f"{name}-{secrets.token_hex(4)}."
    settings = {**_QUICK, "kafka": kafka, "redis": redis, "prefix": prefix, "partitions": partitions, **flags}
    wanted = topics(
        prefix=prefix, n_partitions=partitions, max_record_bytes=int(settings.get("max_record_bytes", 2_097_152))
    )
    if findings_bytes is not None:
        wanted = replace(wanted, findings=replace(wanted.findings, max_message_bytes=findings_bytes))
    folder = folder / prefix.rstrip(".")
    folder.mkdir(parents=True)
    ground = Field(kafka=kafka, redis=redis, prefix=prefix, folder=folder, topics=wanted, flags=settings)
    await create_topics(Broker(kafka), wanted.all(), replication=replication)
    try:
        yield ground
    finally:
        for worker in ground.workers:
            worker.end()


async def _patiently(ask: Callable[..., Awaitable[T]], *args: Any) -> T:
    """Ask a broker that may be away or new until it answers."""
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return await ask(*args)
        except (KafkaError, OSError, StreamError):
            if time.monotonic() > deadline:
                raise
        await asyncio.sleep(0.1)


def numbered(n_posts: int, *, start: int = 0, word: str = "bridge down") -> list[Raw]:
    """Return numbered posts, spread over the partitions by their ids."""
    posts = [Post(id=f"post-{number:06}", text=f"{word} number {number}") for number in range(start, start + n_posts)]
    return [Raw(key=post.id.encode(), value=encode(post)) for post in posts]
