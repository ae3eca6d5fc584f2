"""The intake, on a consumer of our own: what is let in, what is committed, and what is given up when."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import (
    CommitFailedError,
    IllegalStateError,
    KafkaConnectionError,
    NoError,
    UnknownMemberIdError,
)
from aiokafka.protocol.group import HeartbeatRequest

from stream.broker import Broker
from stream.consumer import InstanceTaken, IntakeConfig
from stream.errors import StreamError
from stream.intake import Accepted, Intake
from stream.records import Origin

ZERO, ONE = TopicPartition("posts", 0), TopicPartition("posts", 1)


class Consumer:
    """Stands in for aiokafka's: gives what was put into its partitions, and fails as it is told."""

    def __init__(self, **config: Any) -> None:
        self.config = config
        self.waiting: dict[TopicPartition, list[Any]] = defaultdict(list)
        self.committed_offsets: dict[TopicPartition, int] = {}
        self.starts: dict[TopicPartition, int] = defaultdict(int)
        self.commit_errors: list[Exception] = []
        self.sought: list[tuple[TopicPartition, int]] = []
        self.assigned = {ZERO, ONE}
        self.leaderless: set[TopicPartition] = set()
        self.on_commit: Callable[[], None] = lambda: None
        self.n_fetches = 0
        self.hangs = False
        self.stopped = False
        self.answers: list[int] = []  # error codes of the broker to the coordinator's requests
        self._client = SimpleNamespace(close=self._close)
        self.closed = False
        self._coordinator = SimpleNamespace(
            _group_instance_id=config["group_instance_id"], _send_req=self._answer_to_coordinator
        )

    def put(self, partition: TopicPartition, offsets: Iterable[int], *, size_bytes: int = 10) -> None:
        self.waiting[partition] += [
            SimpleNamespace(
                topic="posts",
                partition=partition.partition,
                offset=offset,
                value=bytes(size_bytes),
                key=None,
                headers=(),
            )
            for offset in offsets
        ]

    async def start(self) -> None: ...

    async def _answer_to_coordinator(self, request: Any) -> Any:
        return SimpleNamespace(error_code=self.answers.pop(0))

    def subscribe(self, topics: list[str], listener: Any) -> None: ...

    async def getmany(self, *, timeout_ms: int, max_records: int) -> dict[TopicPartition, list[Any]]:
        self.n_fetches += 1
        await asyncio.sleep(0)
        given = {}
        for partition, records in self.waiting.items():
            given[partition] = records[:max_records]
            del records[: len(given[partition])]
            max_records -= len(given[partition])
        return given

    async def commit(self, offsets: dict[TopicPartition, int]) -> None:
        if self.hangs:
            await asyncio.Event().wait()
        if self.commit_errors:
            raise self.commit_errors.pop(0)
        self.on_commit()
        self.committed_offsets.update(offsets)

    def seek(self, partition: TopicPartition, offset: int) -> None:
        if partition not in self.assigned:
            raise IllegalStateError("not assigned")
        self.sought.append((partition, offset))

    async def end_offsets(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        if self.hangs:
            await asyncio.Event().wait()
        assert not self.stopped, "a closed client connects again"
        if self.leaderless.issuperset(partitions):
            raise KafkaConnectionError
        return dict.fromkeys(partitions, 100)

    def assignment(self) -> frozenset[TopicPartition]:
        return frozenset(self.assigned)

    async def committed(self, partition: TopicPartition) -> int | None:
        return self.committed_offsets.get(partition)

    async def position(self, partition: TopicPartition) -> int:
        return 0

    async def beginning_offsets(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        if self.leaderless.issuperset(partitions):
            raise KafkaConnectionError
        return {partition: self.starts[partition] for partition in partitions}

    async def _close(self) -> None:
        self.closed = True

    async def stop(self) -> None:
        self.stopped = True
        if self.hangs:
            await asyncio.Event().wait()


class Bench:
    """An intake with two partitions, and what it told about lost ones."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
        values: dict[str, Any] = {
            "broker": Broker("nowhere:1"),
            "topic": "posts",
            "group": "g",
            "instance": "i",
            "session_timeout_s": 6.0,
            "max_stall_s": 60.0,
            "request_timeout_s": 0.1,
            "drain_timeout_s": 0.1,
            "max_in_flight": 10,
            "max_in_flight_bytes": 1_000,
            "max_record_bytes": 1_000,
            **changes,
        }
        monkeypatch.setattr("stream.consumer.AIOKafkaConsumer", Consumer)
        monkeypatch.setattr("stream.intake._POLL_MS", 20)
        monkeypatch.setattr("stream.consumer.LEAVE_S", 0.1)
        monkeypatch.setattr("stream.intake.LEAVE_S", 0.1)
        self.lost: list[set[TopicPartition]] = []
        self.intake = Intake(IntakeConfig(**values), on_lost=self.lost.append)

    async def start(self) -> Consumer:
        await self.intake.start()
        await self.intake.on_partitions_assigned([ZERO, ONE])
        consumer = self.intake._consumer
        assert isinstance(consumer, Consumer)
        return consumer

    async def take(self) -> list[Accepted]:
        return [one for records in await self.intake.fetch() for one in records]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(monkeypatch)


async def test_nobody_commits_but_the_intake_itself(bench: Bench) -> None:
    """The consumer must not commit on a timer, or on leaving the group."""
    consumer = await bench.start()
    assert consumer.config["enable_auto_commit"] is False
    assert consumer.config["auto_offset_reset"] == "earliest"
    assert consumer.config["isolation_level"] == "read_committed"


async def test_namesake_that_takes_the_place_is_told_from_a_session_that_is_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Who paused, or whose machine did with its clock, joins again, as aiokafka does it; a namesake comes back."""
    now_s = 1_000.0
    monkeypatch.setattr("stream.consumer.time.monotonic", lambda: now_s)
    bench = Bench(monkeypatch, session_timeout_s=6.0)
    consumer = await bench.start()
    beat = HeartbeatRequest("g", 1, "member")
    taken, held = UnknownMemberIdError.errno, NoError.errno
    consumer.answers = [taken, held, taken, held, taken]
    send = consumer._coordinator._send_req

    await send(beat)
    await send(beat)
    now_s += 6.1
    await send(beat)
    await send(beat)
    now_s += 5.9
    with pytest.raises(InstanceTaken, match="another worker joined g as 'i': give each a name of its own"):
        await send(beat)


async def test_posts_in_flight_are_bounded(bench: Bench) -> None:
    consumer = await bench.start()
    consumer.put(ZERO, range(25))
    taken = await bench.take()
    assert len(taken) == 10
    n_fetches = consumer.n_fetches
    assert await bench.take() == []
    assert consumer.n_fetches == n_fetches  # not even asked
    for accepted in taken[:4]:
        accepted.confirm()
    assert [one.record.offset for one in await bench.take()] == [10, 11, 12, 13]
    assert bench.intake.n_in_flight == 10


async def test_bytes_in_flight_are_bounded(bench: Bench) -> None:
    """One fetch may pass the bound; the next comes when there is room again."""
    consumer = await bench.start()
    consumer.put(ZERO, range(3), size_bytes=400)
    taken = await bench.take()
    assert bench.intake.n_bytes_in_flight == 1_200
    consumer.put(ZERO, range(3, 5), size_bytes=400)
    assert await bench.take() == []
    taken[0].confirm()
    assert len(await bench.take()) == 2


async def test_confirmation_makes_no_room_while_the_bytes_are_too_many(bench: Bench) -> None:
    """Each would otherwise let a whole fetch in."""
    consumer = await bench.start()
    consumer.put(ZERO, range(4), size_bytes=400)
    taken = await bench.take()
    consumer.put(ZERO, range(4, 8), size_bytes=400)
    waiting = asyncio.create_task(bench.take())
    await asyncio.sleep(0)
    taken[0].confirm()
    assert await waiting == []
    assert bench.intake.n_bytes_in_flight == 1_200


async def test_full_intake_goes_on_as_soon_as_there_is_room(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stream.intake._POLL_MS", 60_000)
    consumer = await bench.start()
    consumer.put(ZERO, range(11))
    taken = await bench.take()
    waiting = asyncio.create_task(bench.take())
    await asyncio.sleep(0)
    taken[9].confirm()
    async with asyncio.timeout(5):
        assert [one.record.offset for one in await waiting] == [10]


async def test_commit_never_passes_an_unconfirmed_post(bench: Bench) -> None:
    consumer = await bench.start()
    consumer.put(ZERO, [0, 1, 2, 5])  # a gap, as compaction leaves it
    consumer.put(ONE, [7])
    taken = await bench.take()
    for index in (1, 3, 4):
        taken[index].confirm()
        taken[index].confirm()
    await bench.intake.commit()
    assert consumer.committed_offsets == {ONE: 8}
    taken[0].confirm()
    await bench.intake.commit()
    assert consumer.committed_offsets == {ZERO: 2, ONE: 8}
    taken[2].confirm()
    await bench.intake.commit()
    assert consumer.committed_offsets == {ZERO: 6, ONE: 8}
    assert (bench.intake.n_in_flight, bench.intake.n_bytes_in_flight) == (0, 0)


@pytest.mark.parametrize(
    "error", [CommitFailedError("moved"), IllegalStateError("moved"), KafkaConnectionError("away")]
)
async def test_refused_commit_is_made_again(bench: Bench, error: Exception) -> None:
    consumer = await bench.start()
    consumer.put(ZERO, range(3))
    for accepted in await bench.take():
        accepted.confirm()
    consumer.commit_errors = [error]
    await bench.intake.commit()
    assert consumer.committed_offsets == {}
    await bench.intake.commit()
    assert consumer.committed_offsets == {ZERO: 3}


async def test_post_confirmed_during_a_commit_is_committed_by_the_next(bench: Bench) -> None:
    consumer = await bench.start()
    consumer.put(ZERO, range(2))
    first, second = await bench.take()
    first.confirm()
    consumer.on_commit = second.confirm
    await bench.intake.commit()
    assert consumer.committed_offsets == {ZERO: 1}
    await bench.intake.commit()
    assert consumer.committed_offsets == {ZERO: 2}


async def test_commit_does_not_wait_for_ever(bench: Bench) -> None:
    consumer = await bench.start()
    consumer.put(ZERO, range(3))
    for accepted in await bench.take():
        accepted.confirm()
    consumer.hangs = True
    async with asyncio.timeout(5):
        await bench.intake.commit()
    consumer.hangs = False
    await bench.intake.commit()
    assert consumer.committed_offsets == {ZERO: 3}


async def test_records_without_a_lease_are_put_back(bench: Bench) -> None:
    """A fetch may return records of a partition that was revoked meanwhile; nobody may skip them."""
    consumer = await bench.start()
    await bench.intake.on_partitions_revoked([ZERO])
    consumer.put(ZERO, [4, 5])
    consumer.put(ONE, [6])
    assert [one.record.offset for one in await bench.take()] == [6]
    assert consumer.sought == [(ZERO, 4)]
    consumer.assigned.discard(ZERO)
    consumer.put(ZERO, [4, 5])
    assert await bench.take() == []  # gone to another worker: nothing to seek


async def test_revocation_finishes_what_it_can_and_gives_up_the_rest(bench: Bench) -> None:
    consumer = await bench.start()
    consumer.put(ZERO, range(3))
    consumer.put(ONE, range(2))
    taken = await bench.take()
    revoking = asyncio.create_task(bench.intake.on_partitions_revoked([ZERO]))
    await asyncio.sleep(0.02)
    assert not revoking.done()  # waits for what is in flight
    taken[0].confirm()
    async with asyncio.timeout(5):
        await revoking
    assert consumer.committed_offsets == {ZERO: 1}
    assert bench.lost == [{ZERO}]
    assert [accepted.lost for accepted in taken] == [True, True, True, False, False]
    assert bench.intake.n_in_flight == 2

    taken[1].confirm()  # too late: its next owner handles it again
    taken[3].confirm()
    await bench.intake.commit()
    assert consumer.committed_offsets == {ZERO: 1, ONE: 1}
    assert (bench.intake.n_in_flight, bench.intake.n_bytes_in_flight) == (1, 10)


async def test_commit_that_fails_for_good_gives_the_partitions_up_all_the_same(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(timeout_s: float | None = None) -> None:
        raise StreamError("transactions failed")

    consumer = await bench.start()
    consumer.put(ZERO, [0])
    [post] = await bench.take()
    monkeypatch.setattr(bench.intake, "commit", fail)
    with pytest.raises(StreamError):
        await bench.intake.on_partitions_revoked([ZERO, ONE])
    assert post.lost
    assert bench.lost == [{ZERO, ONE}]


async def test_revocation_ends_at_once_when_all_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, drain_timeout_s=60.0, session_timeout_s=180.0)
    consumer = await bench.start()
    consumer.put(ZERO, range(3))
    taken = await bench.take()
    revoking = asyncio.create_task(bench.intake.on_partitions_revoked([ZERO, ONE]))
    await asyncio.sleep(0.02)
    for accepted in taken:
        accepted.confirm()
    async with asyncio.timeout(5):
        await revoking
    assert consumer.committed_offsets == {ZERO: 3}
    assert bench.lost == [{ZERO, ONE}]


async def test_partition_that_comes_back_starts_anew(bench: Bench) -> None:
    """Confirming a record of the former assignment neither counts nor commits."""
    consumer = await bench.start()
    consumer.put(ZERO, range(3))
    former = await bench.take()
    await bench.intake.on_partitions_revoked([ZERO])
    await bench.intake.on_partitions_assigned([ZERO])
    consumer.put(ZERO, range(3))
    again = await bench.take()
    for accepted in former:
        accepted.confirm()
    await bench.intake.commit()
    assert consumer.committed_offsets == {}
    assert bench.intake.n_in_flight == 3
    again[0].confirm()
    await bench.intake.commit()
    assert consumer.committed_offsets == {ZERO: 1}


async def test_partition_assigned_without_a_revocation_starts_anew(bench: Bench) -> None:
    """A member that was thrown out of its group is told of its new partitions only."""
    consumer = await bench.start()
    consumer.put(ZERO, range(3))
    former = await bench.take()
    await bench.intake.on_partitions_assigned([ZERO, ONE])
    assert all(accepted.lost for accepted in former)
    assert (bench.intake.n_in_flight, bench.intake.n_bytes_in_flight) == (0, 0)
    consumer.put(ZERO, range(3))
    assert len(await bench.take()) == 3


async def test_drain_takes_in_no_more_and_waits_for_what_is_in_flight(bench: Bench) -> None:
    consumer = await bench.start()
    consumer.put(ZERO, range(2))
    taken = await bench.take()
    draining = asyncio.create_task(bench.intake.drain())
    await asyncio.sleep(0.01)
    consumer.put(ZERO, range(2, 4))
    assert await bench.take() == []
    taken[0].confirm()
    assert await draining is False  # one is left after the drain time
    await bench.intake.stop()
    assert consumer.committed_offsets == {ZERO: 1}
    assert consumer.stopped
    assert bench.intake.n_in_flight == 0
    taken[1].confirm()
    await bench.intake.stop()
    assert consumer.committed_offsets == {ZERO: 1}


async def test_drain_is_over_when_nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, drain_timeout_s=60.0)
    consumer = await bench.start()
    consumer.put(ZERO, range(2))
    for accepted in await bench.take():
        accepted.confirm()
    async with asyncio.timeout(5):
        assert await bench.intake.drain() is True


async def test_stop_does_not_wait_for_a_broker_that_is_away(bench: Bench) -> None:
    consumer = await bench.start()
    consumer.put(ZERO, range(2))
    for accepted in await bench.take():
        accepted.confirm()
    consumer.hangs = True
    async with asyncio.timeout(5):
        await bench.intake.stop()
    assert consumer.committed_offsets == {}
    assert consumer.closed


async def test_question_ends_when_the_intake_stops(bench: Bench) -> None:
    consumer = await bench.start()
    consumer.hangs = True
    asked = asyncio.create_task(bench.intake.lag())
    await asyncio.sleep(0)
    consumer.hangs = False
    await bench.intake.stop()
    with pytest.raises(KafkaConnectionError, match="has stopped"):
        await asked
    assert await bench.intake.lag() == {}


async def test_lag_counts_from_what_is_committed(bench: Bench) -> None:
    consumer = await bench.start()
    consumer.committed_offsets = {ZERO: 40}
    assert await bench.intake.lag() == {0: 60, 1: 100}
    await bench.intake.on_partitions_revoked([ONE])
    consumer.assigned.remove(ONE)
    assert await bench.intake.lag() == {0: 60}


async def test_lag_of_a_partition_without_a_leader_is_left_out(bench: Bench) -> None:
    consumer = await bench.start()
    consumer.leaderless = {ONE}
    assert await bench.intake.lag() == {0: 100}
    consumer.leaderless = {ZERO, ONE}
    with pytest.raises(KafkaConnectionError):
        await bench.intake.lag()


async def test_lag_of_a_partition_that_is_not_taken_over_yet_counts(bench: Bench) -> None:
    consumer = await bench.start()
    consumer.committed_offsets = {TopicPartition("posts", 2): 30}
    consumer.assigned.add(TopicPartition("posts", 2))
    assert await bench.intake.lag() == {0: 100, 1: 100, 2: 70}


async def test_offsets_that_go_back_begin_a_new_lease(bench: Bench) -> None:
    """The topic was deleted and made anew, or cut."""
    consumer = await bench.start()
    consumer.put(ZERO, range(40, 43))
    before = await bench.take()
    consumer.put(ZERO, range(2))
    after = await bench.take()
    assert (before[0].lost, after[0].lost, bench.lost) == (True, False, [{ZERO}])
    for accepted in (*before, *after):
        accepted.confirm()
    await bench.intake.commit()
    assert consumer.committed_offsets == {ZERO: 2}


@pytest.mark.parametrize(
    ("committed", "start", "n_expired"),
    [(3, 8, 5), (3, 20, 5), (3, 5, 2), (3, 0, 0), (8, 8, 0), (None, 8, 0)],
    ids=["all before", "more since", "some, then a marker", "markers", "no gap", "new group"],
)
async def test_posts_that_were_deleted_unread_are_counted_and_named(
    bench: Bench, caplog: pytest.LogCaptureFixture, committed: int | None, start: int, n_expired: int
) -> None:
    """aiokafka goes on at the log's start without a word; a gap within the log is a marker's, and nothing is lost."""
    consumer = await bench.start()
    if committed is not None:
        consumer.committed_offsets[ZERO] = committed
    consumer.starts[ZERO] = start
    consumer.put(ZERO, [8, 9])
    assert [one.record.offset for one in await bench.take()] == [8, 9]
    assert bench.intake.n_expired == n_expired
    told = [record.message for record in caplog.records if record.levelname == "ERROR"]
    assert len(told) == (n_expired > 0)
    assert all(f"{n_expired} posts from offset 3 on were deleted unread" in one for one in told)


async def test_posts_deleted_between_two_fetches_are_counted(bench: Bench) -> None:
    consumer = await bench.start()
    consumer.put(ZERO, [0, 1])
    await bench.take()
    consumer.starts[ZERO] = 7
    consumer.put(ZERO, [7])
    await bench.take()
    assert bench.intake.n_expired == 5
    consumer.put(ZERO, [8])
    await bench.take()
    assert bench.intake.n_expired == 5


async def test_posts_come_in_where_the_logs_start_is_unknown(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    consumer = await bench.start()
    consumer.leaderless.add(ZERO)
    consumer.committed_offsets[ZERO] = 3
    consumer.put(ZERO, [8])
    assert [one.record.offset for one in await bench.take()] == [8]
    assert "were posts before it deleted unread?" in caplog.text


async def test_keys_and_headers_count_as_bytes_in_flight(bench: Bench) -> None:
    consumer = await bench.start()
    consumer.put(ZERO, [0])
    [record] = consumer.waiting[ZERO]
    record.key, record.headers = bytes(5), [("x", bytes(900))]
    [accepted] = await bench.take()
    assert bench.intake.n_bytes_in_flight == 10 + 5 + 901
    accepted.confirm()
    assert bench.intake.n_bytes_in_flight == 0


async def test_member_with_little_room_fetches_before_it_is_put_out(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, max_in_flight=32, max_stall_s=0.3)
    consumer = await bench.start()
    consumer.put(ZERO, range(40))
    taken = await bench.take()
    assert len(taken) == 32
    taken[0].confirm()
    assert await bench.take() == []
    await asyncio.sleep(0.1)
    assert len(await bench.take()) == 1


async def test_posts_that_are_lost_unfinished_and_come_again_are_no_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch)
    consumer = await bench.start()
    consumer.put(ZERO, range(2))
    [first, *_] = await bench.take()
    began_s = bench.intake.last_progress_s
    await asyncio.sleep(0.01)
    await bench.intake.on_partitions_revoked([ZERO])
    await bench.intake.on_partitions_assigned([ZERO])
    consumer.put(ZERO, range(2))
    again = await bench.take()
    assert first.lost and bench.intake.last_progress_s == began_s
    again[0].confirm()
    assert bench.intake.last_progress_s > began_s


async def test_record_is_in_flight_until_its_outcome_is_confirmed(bench: Bench) -> None:
    consumer = await bench.start()
    consumer.put(ZERO, [7])
    [accepted] = await bench.take()
    origin = Origin(topic="posts", partition=0, offset=7)
    assert bench.intake.is_in_flight(origin)
    accepted.confirm()
    assert not bench.intake.is_in_flight(origin)
    assert not bench.intake.is_in_flight(Origin(topic="posts", partition=3, offset=7))


async def test_stop_leaves_the_group_when_the_last_commit_fails_for_good(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    consumer = await bench.start()

    async def commit(timeout_s: float | None = None) -> None:
        raise StreamError("transactions failed")

    monkeypatch.setattr(bench.intake, "commit", commit)
    with pytest.raises(StreamError, match="transactions failed"):
        await bench.intake.stop()
    assert consumer.stopped
