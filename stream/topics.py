"""The topics: names, partitions, retention and limits, created explicitly and described in one place."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code

from stream.broker import Broker
from stream.client import start_client
from stream.errors import StreamError

DAY_MS: Final = 86_400_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Topic:
    """One topic's contract; `key` says what the record key is."""

    name: str
    purpose: str
    key: str
    n_partitions: int
    retention_ms: int
    cleanup_policy: str
    max_message_bytes: int
    from_others: bool = False

    def config(self, replication: int = 1) -> dict[str, str]:
        """Return the settings of a topic with so many replicas as Kafka names them.

        A majority of them confirms a record: Kafka's own default is content with the leader, whose disk may be lost.
        What others send is stamped by the broker, else it would keep a post by the time of its event and delete an
        old one unread; and stored as it is, so that the limit holds for what a compressed batch unpacks to.
        """
        settings = {
            "retention.ms": str(self.retention_ms),
            "cleanup.policy": self.cleanup_policy,
            "max.message.bytes": str(self.max_message_bytes),
            "min.insync.replicas": str(replication // 2 + 1),
        }
        if self.from_others:
            settings |= {"message.timestamp.type": "LogAppendTime", "compression.type": "uncompressed"}
        return settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Topics:
    """Every topic of one installation; posts, prepared, findings and duplicates share partition numbers."""

    posts: Topic
    prepared: Topic
    findings: Topic
    alerts: Topic
    duplicates: Topic
    dead_letters: Topic
    control: Topic

    def all(self) -> tuple[Topic, ...]:
        """Return the topics in the order of the data flow."""
        return (
            self.posts, self.prepared, self.findings, self.alerts, self.duplicates, self.dead_letters, self.control,
        )  # fmt: skip


def topics(*, prefix: str, n_partitions: int, max_record_bytes: int) -> Topics:
    """Return the topics under `prefix`; `max_record_bytes` bounds a post's record."""

    def topic(
        name: str, purpose: str, key: str, days: int, *, n: int = n_partitions, from_others: bool = False
    ) -> Topic:
        return Topic(
            from_others=from_others,
            name=f"{prefix}{name}",
            purpose=purpose,
            key=key,
            n_partitions=n,
            retention_ms=days * DAY_MS,
            cleanup_policy="delete",
            # twice, so that a post over the limit still comes in, to become a dead letter with its bytes
            max_message_bytes=2 * max_record_bytes + 131_072,
        )

    return Topics(
        posts=topic("posts", "posts as the feeds bring them", "post id", 7, from_others=True),
        prepared=topic("prepared", "validated posts with their image as pixels", "post id", 7),
        findings=topic("findings", "labelled, explained posts", "post id", 30),
        alerts=topic("alerts", "infrastructure damage for responders", "alert id", 90, n=1),
        duplicates=topic("duplicates", "records of posts accepted before", "post id", 30),
        dead_letters=topic("dead-letters", "events that could not be processed", "original key", 90),
        control=topic("control", "reserved for commands to workers", "none", 1, n=1),
    )


async def create_topics(broker: Broker, wanted: Sequence[Topic], *, replication: int) -> list[str]:
    """Create the topics that do not exist and return their names.

    Raises:
        BrokerUnavailable: nothing answers at `broker`.
        StreamError: the broker refuses a topic.
    """
    async with _admin(broker) as admin:
        existing = set(await admin.list_topics())
        missing = [topic for topic in wanted if topic.name not in existing]
        if not missing:
            return []
        response = await admin.create_topics(
            [
                NewTopic(
                    name=topic.name,
                    num_partitions=topic.n_partitions,
                    replication_factor=replication,
                    topic_configs=topic.config(replication),
                )
                for topic in missing
            ]
        )
    created = []
    for name, code, *rest in response.topic_errors:
        error_type = for_code(code)
        if code == 0:
            created.append(name)
        elif error_type is not TopicAlreadyExistsError:
            detail = rest[0] if rest and rest[0] else error_type.__name__
            raise StreamError(f"the broker refuses topic {name}: {detail}")
    return created


async def check_topics(broker: Broker, wanted: Sequence[Topic]) -> None:
    """Return when all topics exist.

    Raises:
        BrokerUnavailable: nothing answers at `broker`.
        StreamError: a topic is missing.
    """
    async with _admin(broker) as admin:
        existing = set(await admin.list_topics())
    missing = [topic.name for topic in wanted if topic.name not in existing]
    if missing:
        raise StreamError(f"no topic {', '.join(missing)} at {broker}: run `sitrep topics create`")


@asynccontextmanager
async def _admin(broker: Broker) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(**broker.options(), request_timeout_ms=15_000)
    try:
        try:
            await start_client(admin)
        except (KafkaError, OSError, ValueError) as error:
            raise await broker.unreachable(error) from error
        yield admin
    finally:
        await admin.close()
