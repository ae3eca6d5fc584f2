"""Exactly-once mode on a broker: outcomes and offsets together, fenced zombies, and failures in between."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import CoordinatorNotAvailableError, KafkaConnectionError, MessageSizeTooLargeError

from deploy.embedded import EmbeddedServices
from stream.broker import Broker
from stream.consumer import IntakeConfig
from stream.errors import RecordTooLarge, StreamError
from stream.intake import Accepted, Intake
from stream.outbox import Outbox, Outgoing
from stream.reader import read_topic
from stream.topics import create_topics, topics
from stream.transactions import Transactions, check_transactions

pytestmark = pytest.mark.integration

N = 20
MAX_BATCH_BYTES = 10_000
TOPIC_LIMIT_BYTES = 2_000


class Worker:
    """An intake and its transactions, without a pipeline between."""

    def __init__(self, kafka: str, prefix: str) -> None:
        self.topics = topics(prefix=prefix, n_partitions=1, max_record_bytes=100_000)
        config = IntakeConfig(
            broker=Broker(kafka), topic=f"{prefix}posts", group=f"{prefix}prepare", instance=secrets.token_hex(4),
            session_timeout_s=6.0, max_stall_s=60.0, request_timeout_s=5.0, drain_timeout_s=1.0,
            max_in_flight=1_000, max_in_flight_bytes=10_000_000, max_record_bytes=1_000_000,
        )  # fmt: skip
        self.outbox = Outbox(
            broker=Broker(kafka), max_batch_bytes=MAX_BATCH_BYTES, request_timeout_s=5.0, publish_timeout_s=20.0
        )
        self.transactions = Transactions(
            self.outbox, broker=Broker(kafka), group=config.group, max_batch_bytes=MAX_BATCH_BYTES,
            request_timeout_s=5.0, publish_timeout_s=20.0,
        )  # fmt: skip
        self.intake = Intake(config, transactions=self.transactions)

    async def take(self, n_posts: int) -> list[Accepted]:
        """Fetch until so many posts are in flight."""
        taken: list[Accepted] = []
        async with asyncio.timeout(20):
            while len(taken) < n_posts:
                for fetched in await self.intake.fetch():
                    taken += fetched
        return taken

    async def answer(self, accepted: Accepted, *, size_bytes: int = 0) -> list[int | RecordTooLarge]:
        """Stage a finding for the post, then confirm it."""
        value = b"finding of " + accepted.record.value + bytes(size_bytes)
        record = Outgoing(key=accepted.record.key, value=value, outcome_of=accepted)
        results = await self.transactions.send(self.topics.findings.name, 0, [record])
        accepted.confirm()
        return results

    async def crash(self) -> None:
        """Vanish without a commit."""

        async def never(timeout_s: float | None = None) -> None: ...

        self.intake.commit = never  # type: ignore[method-assign]
        await self.stop()

    async def stop(self) -> None:
        await self.intake.stop()
        await self.transactions.stop()


class Ground:
    """Topics with posts on them, and workers."""

    def __init__(self, kafka: str) -> None:
        self.kafka = kafka
        self.prefix = f"txn-{secrets.token_hex(4)}."
        self.topics = topics(prefix=self.prefix, n_partitions=1, max_record_bytes=100_000)
        self.workers: list[Worker] = []

    async def worker(self, n_posts: int = N) -> tuple[Worker, list[Accepted]]:
        """Return a worker that has taken in the posts."""
        worker = Worker(self.kafka, self.prefix)
        self.workers.append(worker)
        await worker.intake.start()
        return worker, await worker.take(n_posts)

    async def findings(self, isolation_level: Any = "read_committed") -> list[bytes]:
        """Return what a consumer sees."""
        return [
            record.value
            async for record in read_topic(
                Broker(self.kafka), self.topics.findings.name, isolation_level=isolation_level
            )
        ]

    async def committed(self) -> int | None:
        """Return the group's committed offset."""
        consumer = AIOKafkaConsumer(bootstrap_servers=self.kafka, group_id=f"{self.prefix}prepare")
        await consumer.start()
        try:
            offset = await consumer.committed(TopicPartition(self.topics.posts.name, 0))
        finally:
            await consumer.stop()
        return offset


@pytest.fixture
async def ground(services: EmbeddedServices) -> AsyncIterator[Ground]:
    """A partition with posts."""
    ground = Ground(services.kafka)
    await create_topics(Broker(services.kafka), ground.topics.all(), replication=1)
    producer = AIOKafkaProducer(bootstrap_servers=services.kafka)
    await producer.start()
    for number in range(N):
        await producer.send(ground.topics.posts.name, b"post %d" % number, key=b"%d" % number, partition=0)
    await producer.stop()
    yield ground
    for worker in ground.workers:
        await worker.stop()


@pytest.fixture
def topic_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse larger batches as Kafka does and the emulator does not."""
    send_batch = AIOKafkaProducer.send_batch

    async def refuse(producer: AIOKafkaProducer, batch: Any, topic: str, *, partition: int) -> Any:
        if batch.size() <= TOPIC_LIMIT_BYTES:
            return await send_batch(producer, batch, topic, partition=partition)
        delivery = asyncio.get_running_loop().create_future()
        delivery.set_exception(MessageSizeTooLargeError())
        return delivery

    monkeypatch.setattr(AIOKafkaProducer, "send_batch", refuse)


def answers(*numbers: int) -> list[bytes]:
    return [b"finding of post %d" % number for number in numbers]


async def test_outcomes_and_offset_are_committed_together(ground: Ground) -> None:
    worker, taken = await ground.worker()
    for accepted in taken:
        assert await worker.answer(accepted) == [-1]
    assert await ground.findings() == []
    await worker.intake.commit()
    assert await ground.findings() == answers(*range(N))
    assert await ground.committed() == N
    assert worker.transactions.n_staged == 0


async def test_only_the_outcomes_before_the_first_open_post_are_published(ground: Ground) -> None:
    """The others would be published again after a crash."""
    worker, taken = await ground.worker()
    for accepted in (*taken[:3], *taken[5:]):
        await worker.answer(accepted)
    await worker.intake.commit()
    assert await ground.findings() == answers(0, 1, 2)
    assert (await ground.committed(), worker.transactions.n_staged) == (3, N - 5)
    await worker.crash()

    other, again = await ground.worker(N - 3)
    assert [accepted.record.offset for accepted in again] == list(range(3, N))
    for accepted in again:
        await other.answer(accepted)
    await other.intake.commit()
    assert await ground.findings() == answers(*range(N))


async def test_zombie_is_fenced_and_publishes_nothing(ground: Ground) -> None:
    """A worker that overslept its session holds outcomes of posts which another worker has handled meanwhile."""
    zombie, taken = await ground.worker()
    for accepted in taken:
        await zombie.answer(accepted)
    # the group would tell the other worker so after the session time-out
    other = Worker(ground.kafka, ground.prefix)
    ground.workers.append(other)
    await other.transactions.open(taken[0].lease.partition)
    await zombie.intake.commit()
    assert all(accepted.lost for accepted in taken)
    assert (await ground.findings(), await ground.committed()) == ([], None)
    assert (zombie.transactions.n_staged, zombie.intake.n_in_flight) == (0, 0)


async def test_zombie_that_opens_anew_finds_that_others_got_further(ground: Ground) -> None:
    """Its transaction failed; by the time it tries again, the posts have their outcomes from another worker."""
    zombie, taken = await ground.worker()
    for accepted in taken[:10]:
        await zombie.answer(accepted)
    other = Worker(ground.kafka, ground.prefix)
    ground.workers.append(other)
    partition = taken[0].lease.partition
    await zombie.transactions._discard(partition, zombie.transactions._producers[partition])
    await other.transactions.open(partition)
    producer = other.transactions._producers[partition]
    await producer.begin_transaction()
    await producer.send_offsets_to_transaction({partition: 15}, f"{ground.prefix}prepare")
    await producer.commit_transaction()
    await zombie.intake.commit()
    assert all(accepted.lost for accepted in taken)
    assert (await ground.findings(), await ground.committed()) == ([], 15)


async def test_partition_that_is_still_its_own_is_taken_back(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    """The zombie may fence the rightful owner, by opening after it; that one goes on after a session time-out."""
    worker, taken = await ground.worker()
    assert worker.intake._claims is not None
    worker.intake._claims._session_timeout_s = 0.3
    for accepted in taken[:5]:
        await worker.answer(accepted)
    await worker.intake.commit()
    zombie = Worker(ground.kafka, ground.prefix)
    ground.workers.append(zombie)
    await zombie.transactions.open(taken[0].lease.partition)
    for accepted in taken[5:]:
        await worker.answer(accepted)
    await worker.intake.commit()
    assert taken[-1].lost
    again = await worker.take(N - 5)
    assert [accepted.record.offset for accepted in again] == list(range(5, N))
    for accepted in again:
        await worker.answer(accepted)
    await worker.intake.commit()
    assert await ground.findings() == answers(*range(N))


@pytest.mark.parametrize("place", ["send_batch", "send_offsets_to_transaction", "commit_transaction"])
@pytest.mark.parametrize("is_done", [False, True])
async def test_failed_transaction_is_made_again_once(ground: Ground, place: str, is_done: bool) -> None:
    """Also when it was committed and only the answer was lost: then it is not repeated."""
    worker, taken = await ground.worker()
    for accepted in taken:
        await worker.answer(accepted)
    [producer] = worker.transactions._producers.values()
    real = getattr(producer, place)

    async def failing(*args: Any, **kwargs: Any) -> Any:
        if is_done:
            await real(*args, **kwargs)
        raise KafkaConnectionError("cut")

    setattr(producer, place, failing)
    await worker.intake.commit()
    assert not taken[0].lost
    assert len(await ground.findings()) == (N if is_done and place == "commit_transaction" else 0)
    await worker.intake.commit()
    await worker.intake.commit()
    assert await ground.findings() == answers(*range(N))
    assert await ground.committed() == N


async def test_outcome_too_large_is_said_at_once(ground: Ground) -> None:
    worker, taken = await ground.worker()
    [result] = await worker.answer(taken[0], size_bytes=MAX_BATCH_BYTES)
    assert isinstance(result, RecordTooLarge)
    for accepted in taken[1:]:
        await worker.answer(accepted, size_bytes=3_000)  # several batches
    await worker.intake.commit()
    assert len(await ground.findings()) == N - 1


@pytest.mark.usefixtures("topic_limit")
async def test_batch_over_the_topics_limit_is_sent_one_outcome_a_batch(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In several transactions where there are many: one of them must end in time."""
    monkeypatch.setattr("stream.transactions._MAX_ALONE", 8)
    worker, taken = await ground.worker()
    for accepted in taken:
        await worker.answer(accepted, size_bytes=900)  # two batches
    await worker.intake.commit()
    assert [finding.rstrip(b"\0") for finding in await ground.findings()] == answers(*range(N))
    assert (await ground.committed(), worker.transactions.n_staged) == (N, 0)


@pytest.mark.usefixtures("topic_limit")
async def test_outcome_over_the_topics_limit_is_one_clear_error(ground: Ground) -> None:
    worker, taken = await ground.worker()
    for accepted in taken[:-1]:
        await worker.answer(accepted)
    await worker.answer(taken[-1], size_bytes=TOPIC_LIMIT_BYTES)
    too_large = f"refuses an outcome of 2018 bytes for {ground.topics.findings.name}: raise .*max.message.bytes"
    with pytest.raises(StreamError, match=too_large):
        await worker.intake.commit()
    assert (await ground.findings(), await ground.committed()) == ([], None)
    await worker.crash()


@pytest.mark.usefixtures("topic_limit")
async def test_lease_lost_while_a_batch_is_refused_commits_nothing(ground: Ground) -> None:
    """Not even through the producer that a later lease on the partition has by then."""
    worker, taken = await ground.worker()
    for accepted in taken:
        await worker.answer(accepted, size_bytes=900)
    lease, transactions = taken[0].lease, worker.transactions
    discard = transactions._discard

    async def discard_and_open(*args: Any) -> None:
        transactions._discard = discard  # type: ignore[method-assign]
        await discard(*args)
        worker.intake._give_up(lease)
        await transactions.open(lease.partition)

    transactions._discard = discard_and_open  # type: ignore[method-assign]
    await worker.intake.commit()
    assert (await ground.findings(), await ground.committed()) == ([], None)


async def test_partition_that_cannot_be_taken_over_is_one_clear_error(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has no lease, and so no lag: nobody would see that its posts wait."""

    async def refuse(sender: Any) -> None:
        raise CoordinatorNotAvailableError()

    monkeypatch.setattr("aiokafka.producer.sender.Sender._maybe_wait_for_pid", refuse)
    worker = Worker(ground.kafka, ground.prefix)
    ground.workers.append(worker)
    worker.transactions.publish_timeout_s = 1.5
    await worker.intake.start()
    why = rf"partition 0 of {ground.topics.posts.name} could not be taken over for 1.5 s: .*CoordinatorNotAvailable"

    async def commit_for_ever() -> None:
        while True:
            await worker.intake.fetch()
            await worker.intake.commit()

    with pytest.raises(StreamError, match=why):
        await asyncio.wait_for(commit_for_ever(), 15)


async def test_broker_with_transactions_is_told(ground: Ground) -> None:
    await check_transactions(Broker(ground.kafka), name=f"{ground.prefix}check", timeout_s=20)


@pytest.mark.parametrize("answers_it", [True, False])
async def test_broker_without_transactions_is_one_clear_error(
    answers_it: bool, ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it refuses to give a transactional producer its id, or never does."""

    async def refuse(sender: Any) -> None:
        if answers_it:
            raise CoordinatorNotAvailableError()
        await asyncio.Event().wait()

    monkeypatch.setattr("aiokafka.producer.sender.Sender._maybe_wait_for_pid", refuse)
    with pytest.raises(StreamError, match=r"has no transactions .*: leave out exactly_once") as error:
        await check_transactions(Broker(ground.kafka), name="x", timeout_s=0.5)
    assert "\n" not in str(error.value)
