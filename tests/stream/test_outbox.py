"""The outbox, on a producer of our own: records arrive once, in order, or are named as too large; never dropped."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import (
    KafkaConnectionError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    NotLeaderForPartitionError,
    OutOfOrderSequenceNumber,
)

from stream.broker import Broker
from stream.errors import BrokerUnavailable, RecordTooLarge
from stream.outbox import Outbox, Outgoing

MAX_BATCH_BYTES = 100
TOO_LARGE_FOR_BROKER = 50


class Batch:
    """Records of one batch, with aiokafka's habits: the first always fits, and what does not is dropped."""

    def __init__(self) -> None:
        self.values: list[bytes] = []

    def append(self, *, timestamp: None, key: bytes | None, value: bytes, headers: list[Any]) -> object:
        if self.values and self.size() + len(value) > MAX_BATCH_BYTES:
            return None
        self.values.append(value)
        return object()

    def size(self) -> int:
        return sum(map(len, self.values))


class Cluster:
    """What all producers of a test send to; `script` says what happens to the next batches."""

    def __init__(self) -> None:
        self.log: list[bytes] = []
        self.batches: list[list[bytes]] = []
        self.script: list[Callable[[], Any]] = []
        self.producers: list[Producer] = []
        self.is_away = False
        self.n_partitions = 4

    def take(self, producer: Producer, batch: Batch) -> asyncio.Future[Any]:
        delivery: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        assert not producer.stopped
        self.batches.append(batch.values)
        if self.script:
            happens = self.script.pop(0)()
            if happens is not None:
                if isinstance(happens, Exception):
                    delivery.set_exception(happens)
                return delivery
        if any(len(value) > TOO_LARGE_FOR_BROKER for value in batch.values):
            delivery.set_exception(MessageSizeTooLargeError())
        else:
            delivery.set_result(SimpleNamespace(offset=len(self.log)))
            self.log += batch.values
        return delivery


class Producer:
    """Stands in for aiokafka's."""

    def __init__(self, broker: Cluster, **config: Any) -> None:
        self.broker = broker
        self.config = config
        self.stopped = False
        self.stop_hangs = False
        self._sender = SimpleNamespace(close=self._close)
        self.client = SimpleNamespace(close=self._close)
        self._message_accumulator = SimpleNamespace(_batches={})
        self._txn_manager = None

    async def start(self) -> None:
        if self.broker.is_away:
            raise KafkaConnectionError("away")
        self.broker.producers.append(self)

    async def stop(self) -> None:
        if self.stop_hangs:
            await asyncio.Event().wait()
        self.stopped = True

    def create_batch(self) -> Batch:
        return Batch()

    async def send_batch(self, batch: Batch, topic: str, *, partition: int) -> asyncio.Future[Any]:
        return self.broker.take(self, batch)

    async def partitions_for(self, topic: str) -> set[int]:
        if self.broker.is_away:
            raise KafkaConnectionError("away")
        return set(range(self.broker.n_partitions))

    async def _close(self) -> None:
        self.stopped = True


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    broker = Cluster()
    monkeypatch.setattr("stream.producer.AIOKafkaProducer", lambda **config: Producer(broker, **config))
    monkeypatch.setattr("stream.producer._CLOSE_S", 0.05)
    return broker


async def started(*, publish_timeout_s: float = 20.0) -> Outbox:
    outbox = Outbox(
        broker=Broker("nowhere:1"),
        max_batch_bytes=MAX_BATCH_BYTES,
        request_timeout_s=1.0,
        publish_timeout_s=publish_timeout_s,
    )
    await outbox.start()
    return outbox


def records(*sizes: int) -> list[Outgoing]:
    """Return records of these sizes, each with bytes of its own."""
    return [Outgoing(key=None, value=bytes([number]) * size) for number, size in enumerate(sizes)]


def values(outgoing: list[Outgoing]) -> list[bytes | None]:
    return [one.value for one in outgoing]


async def test_producer_keeps_the_promise(broker: Cluster) -> None:
    outbox = await started()
    [producer] = broker.producers
    assert producer.config["acks"] == "all" and producer.config["enable_idempotence"] is True
    await outbox.stop()
    assert producer.stopped


async def test_records_arrive_in_order_in_as_many_batches_as_it_takes(broker: Cluster) -> None:
    outbox = await started()
    sent = records(*[30] * 8)
    assert await outbox.send("t", 0, sent) == list(range(8))
    assert broker.log == values(sent)
    assert [len(batch) for batch in broker.batches] == [3, 3, 2]
    assert await outbox.send("t", 0, []) == []
    await outbox.stop()


@pytest.mark.parametrize("place", [0, 3, 7])
async def test_record_too_large_for_any_batch_is_named_and_the_others_arrive(broker: Cluster, place: int) -> None:
    outbox = await started()
    sizes = [10] * 8
    sizes[place] = MAX_BATCH_BYTES + 1
    sent = records(*sizes)
    results = await outbox.send("t", 0, sent)
    assert [isinstance(result, RecordTooLarge) for result in results] == [size > 10 for size in sizes]
    assert broker.log == [value for value in values(sent) if value and len(value) == 10]
    assert [result for result in results if isinstance(result, int)] == list(range(7))
    assert len(broker.producers) == 1  # it never reached the broker
    await outbox.stop()


@pytest.mark.parametrize("sizes", [[60], [60, 10, 10], [10, 60, 10], [10, 10, 60], [60, 10, 60, 10]])
async def test_record_that_the_broker_refuses_is_found_in_its_batch(broker: Cluster, sizes: list[int]) -> None:
    """The broker refuses the whole batch; its records are sent one by one, by fresh producers, in order."""
    outbox = await started()
    sent = records(*sizes)
    results = await outbox.send("t", 0, sent)
    assert [isinstance(result, RecordTooLarge) for result in results] == [size == 60 for size in sizes]
    assert broker.log == [value for value in values(sent) if value and len(value) == 10]
    assert len(broker.producers) > 1
    assert await outbox.send("t", 0, records(10)) == [len(broker.log) - 1]
    await outbox.stop()
    assert all(producer.stopped for producer in broker.producers)


@pytest.mark.parametrize(
    ("error", "n_producers"),
    [
        (NotLeaderForPartitionError(), 2),
        (OutOfOrderSequenceNumber(), 2),
        (KafkaConnectionError("away"), 2),
        (ConnectionResetError("cut"), 2),
        (KafkaTimeoutError("queue full"), 1),  # the producer never took it in, and is as good as before
    ],
)
async def test_failed_delivery_is_made_again(broker: Cluster, error: Exception, n_producers: int) -> None:
    """By a fresh producer: an idempotent one that lost a batch cannot go on."""
    outbox = await started()
    broker.script = [lambda: None, lambda: error]
    sent = records(*[30] * 8)
    assert await outbox.send("t", 0, sent) == list(range(8))
    assert broker.log == values(sent)  # what was confirmed before is not sent again
    assert len(broker.producers) == n_producers
    await outbox.stop()


async def test_publish_time_out_ends_in_broker_unavailable(broker: Cluster) -> None:
    """Without an answer, or with nothing but errors, until the bound; the message says the last reason."""
    outbox = await started(publish_timeout_s=0.3)
    broker.script = [asyncio.Event] * 10  # never answered
    with pytest.raises(BrokerUnavailable, match=r"deliveries to t failed for 0\.3 s: no answer"):
        await outbox.send("t", 0, records(10))
    broker.script = [lambda: NotLeaderForPartitionError("moved")] * 1_000
    with pytest.raises(BrokerUnavailable, match="moved"):
        await outbox.send("t", 0, records(10))
    broker.script = []
    assert await outbox.send("t", 0, records(10)) == [0]
    await outbox.stop()


async def test_broker_that_is_away_for_a_while_is_waited_for(broker: Cluster) -> None:
    outbox = await started()

    def goes_away() -> Exception:
        broker.is_away = True
        asyncio.get_running_loop().call_later(0.2, setattr, broker, "is_away", False)
        return KafkaConnectionError("away")

    broker.script = [goes_away]
    async with asyncio.timeout(15):
        assert await outbox.send("t", 0, records(10, 10)) == [0, 1]
    await outbox.stop()


async def test_no_broker_at_the_start_is_one_clear_error(broker: Cluster) -> None:
    broker.is_away = True
    with pytest.raises(BrokerUnavailable, match="no Kafka broker answers at nowhere:1"):
        await started()


async def test_others_that_wait_on_a_broken_producer_go_on_with_the_next(broker: Cluster) -> None:
    """A delivery that hangs on a producer which was replaced is made again, not waited for."""
    outbox = await started()
    broker.script = [asyncio.Event, KafkaConnectionError]  # the first never answers, the second fails
    first = asyncio.create_task(outbox.send("t", 0, records(10)))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    second = asyncio.create_task(outbox.send("t", 1, records(20)))
    async with asyncio.timeout(15):
        await asyncio.gather(first, second)
    assert sorted(map(len, broker.log)) == [10, 20]
    await outbox.stop()


async def test_producer_that_cannot_say_goodbye_is_closed_by_force(broker: Cluster) -> None:
    outbox = await started()
    broker.producers[0].stop_hangs = True
    async with asyncio.timeout(5):
        await outbox.stop()
    assert broker.producers[0].stopped


async def test_partition_is_the_same_number_where_the_topic_has_it(broker: Cluster) -> None:
    outbox = await started(publish_timeout_s=0.2)
    assert [await outbox.partition_for("t", number) for number in (0, 3, 4, 7)] == [0, 3, 0, 3]
    broker.n_partitions = 1
    assert await outbox.partition_for("t", 3) == 3  # known already
    assert await outbox.partition_for("u", 3) == 0
    broker.is_away = True
    with pytest.raises(BrokerUnavailable, match="partitions of v"):
        await outbox.partition_for("v", 0)
    await outbox.stop()


async def test_record_refused_in_one_partition_strands_none_in_another(broker: Cluster) -> None:
    """A refusal retires the producer; who waits in it for a topic's partitions would never be woken."""
    outbox = await started()
    [first] = broker.producers
    is_waiting = asyncio.Event()

    async def never_learns_the_partitions(batch: Batch, topic: str, *, partition: int) -> asyncio.Future[Any]:
        if partition == 0:
            return broker.take(first, batch)
        is_waiting.set()
        return await asyncio.Event().wait()  # type: ignore[return-value]

    first.send_batch = never_learns_the_partitions  # type: ignore[method-assign]
    stranded = asyncio.create_task(outbox.send("t", 1, records(10)))
    await is_waiting.wait()
    [refused] = await outbox.send("t", 0, records(60))
    assert isinstance(refused, RecordTooLarge)
    assert await asyncio.wait_for(stranded, 2) == [0]
    await outbox.stop()
