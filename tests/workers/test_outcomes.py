"""Outcomes: each post is acknowledged once, and only after what became of it is delivered."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from stream.cache import Entry
from stream.errors import BrokerUnavailable, InvalidRecord, RecordTooLarge
from stream.headers import VALUE_OMITTED, Cause, first_header, parse_dead_letter
from stream.outbox import Outgoing
from stream.records import Alert, Duplicate, Finding, Origin, Post, PreparedPost, decode, decode_prepared, encode
from stream.topics import topics
from tests.stream.findings import alert, entries, finding
from workers.metrics import Metrics
from workers.outcomes import Decided, Job, Outcomes

TRACE = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
TOPICS = topics(prefix="", n_partitions=4, max_record_bytes=1_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """One record as it was delivered."""

    topic: str
    partition: int
    record: Outgoing


class Outbox:
    """Delivers into a list; refuses records above a size; `failure` stops it."""

    def __init__(self) -> None:
        self.sent: list[Sent] = []
        self.max_bytes = 100_000
        self.failure: Exception | None = None
        self.events: list[str] = []

    async def send(self, topic: str, partition: int, records: Sequence[Outgoing]) -> list[int | RecordTooLarge]:
        await asyncio.sleep(0)
        if self.failure is not None:
            raise self.failure
        results: list[int | RecordTooLarge] = []
        for record in records:
            parts = [record.key, record.value, *(value for _, value in record.headers)]
            if sum(len(part or b"") for part in parts) > self.max_bytes:
                results.append(RecordTooLarge("too large"))
                continue
            results.append(len(self.sent))
            self.sent.append(Sent(topic=topic, partition=partition, record=record))
            self.events.append(topic)
        return results

    async def partition_for(self, topic: str, partition: int) -> int:
        return partition % 4

    def on(self, topic: str) -> list[Sent]:
        return [sent for sent in self.sent if sent.topic == topic]


class Noted:
    """A lease that notes what is acknowledged."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench

    def confirm_many(self, offsets: Sequence[int], sizes: Sequence[int]) -> None:
        for offset in offsets:
            self._bench.confirmed.append(offset)
            self._bench.outbox.events.append(f"confirm {offset}")


class Bench:
    """Outcomes on an outbox of our own, and posts that note when they are acknowledged."""

    def __init__(self) -> None:
        self.outbox = Outbox()
        self.metrics = Metrics(CollectorRegistry())
        self.cached: list[Entry] = []
        self.confirmed: list[int] = []
        self.forgotten: list[str] = []
        writer: Any = SimpleNamespace(room=lambda: asyncio.sleep(0), offer=self.cached.extend)
        self.outcomes = Outcomes(
            self.outbox,  # type: ignore[arg-type]
            TOPICS,
            self.metrics,
            source="/test",
            cache_writer=writer,
            forget=lambda post, origin: self.forgotten.append(post.id),
        )

    def accepted(self, offset: int, *, partition: int = 0, value: bytes = b"{}") -> Any:
        """Return a record taken in."""
        lease = Noted(self)
        record = SimpleNamespace(
            topic="posts",
            partition=partition,
            offset=offset,
            timestamp=0,
            key=b"k",
            value=value,
            headers=[("traceparent", TRACE)],
        )
        return SimpleNamespace(
            record=record, lease=lease, confirm=lambda: lease.confirm_many([offset], [len(value)]), lost=False
        )

    def job(self, offset: int, *, partition: int = 0, text: str = "bridge down") -> Job:
        prepared = PreparedPost(
            post=Post(id=f"p{offset}", text=text),
            origin=Origin(topic="posts", partition=partition, offset=offset),
            accepted_at=finding(offset).accepted_at,
        )
        return Job(accepted=self.accepted(offset, partition=partition), prepared=prepared)

    def decided(self, offset: int, *, text: str = "bridge down", raises: bool = False) -> Decided:
        found = finding(offset, text=text)
        return Decided(
            job=self.job(offset),
            post_id=found.post_id.encode(),
            finding_id=found.id,
            label=found.label,
            value=encode(found),
            alert=alert(offset) if raises else None,
        )

    def count(self, outcome: str) -> float:
        return self.metrics.registry.get_sample_value("sitrep_posts_total", {"outcome": outcome}) or 0.0


@pytest.fixture
def bench() -> Bench:
    return Bench()


async def test_finding_and_alert_are_delivered_before_the_post_is_acknowledged(bench: Bench) -> None:
    """The finding first, which an alert points at; a crash in between repeats both with their ids."""
    await bench.outcomes.publish([bench.decided(1), bench.decided(2, raises=True)])
    assert bench.outbox.events == ["findings", "findings", "alerts", "confirm 1", "confirm 2"]
    [sent] = bench.outbox.on("alerts")
    assert decode(sent.record.value or b"", Alert).id == "a2"
    first = bench.outbox.on("findings")[0]
    assert decode(first.record.value or b"", Finding) == finding(1)
    assert first.record.key == b"p1"
    assert first_header(first.record.headers, "ce_id") == finding(1).id
    assert first_header(first.record.headers, "traceparent") == TRACE.decode()
    assert bench.cached == entries(finding(1), finding(2), alert(2))
    assert bench.count("finding") == 2


async def test_nothing_is_acknowledged_when_deliveries_fail(bench: Bench) -> None:
    bench.outbox.failure = BrokerUnavailable("away")
    for work in (
        bench.outcomes.publish([bench.decided(1)]),
        bench.outcomes.forward([bench.job(2)]),
        bench.outcomes.duplicates([(bench.accepted(3), duplicate(3))]),
        bench.outcomes.dead_letter(bench.accepted(4), cause()),
    ):
        with pytest.raises(BrokerUnavailable):
            await work
    assert (bench.confirmed, bench.cached) == ([], [])
    assert [bench.count(outcome) for outcome in ("finding", "duplicate", "dead_letter")] == [0, 0, 0]


async def test_finding_too_large_becomes_a_dead_letter_and_the_others_go_on(bench: Bench) -> None:
    bench.outbox.max_bytes = 2_000
    await bench.outcomes.publish([bench.decided(1), bench.decided(2, text="x" * 3_000, raises=True), bench.decided(3)])
    assert sorted(bench.confirmed) == [1, 2, 3]
    assert bench.cached == entries(finding(1), finding(3))
    [sent] = bench.outbox.on("dead-letters")
    assert first_header(sent.record.headers, "sitrep_reason") == "finding_too_large"
    assert sent.record.value == b"{}"  # the event's own bytes
    assert bench.forgotten == ["p2"]  # it may come again, with a larger limit
    assert bench.outbox.on("alerts") == []  # it would point at nothing
    assert (bench.count("finding"), bench.count("dead_letter")) == (2, 1)


async def test_dead_letter_too_large_leaves_a_pointer(bench: Bench) -> None:
    """The event is still at its origin, which the headers name; the worker must get past it."""
    bench.outbox.max_bytes = 8_000
    await bench.outcomes.dead_letter(bench.accepted(7, value=bytes(9_000)), cause())
    [sent] = bench.outbox.on("dead-letters")
    assert sent.record.value is None
    assert first_header(sent.record.headers, VALUE_OMITTED) == "9000"
    assert first_header(sent.record.headers, "sitrep_post_origin") == "posts/0/7"
    assert bench.confirmed == [7]


async def test_pointer_has_a_bound_whatever_its_sender_wrote(bench: Bench) -> None:
    """Headers and key may be what is too large; a pointer that is refused as well would lose the post."""
    bench.outbox.max_bytes = 9_000
    accepted = bench.accepted(7)
    accepted.record.key = bytes(20_000)
    accepted.record.headers = [("note", bytes(20_000)), ("tracestate", b"a=1" * 9_000)]
    accepted.record.headers += [("__streams.errors.note", bytes(20_000)), ("sitrep_reason", bytes(20_000))]
    await bench.outcomes.dead_letter(accepted, cause())
    [sent] = bench.outbox.on("dead-letters")
    assert (sent.record.key, sent.record.value) == (None, None)
    assert first_header(sent.record.headers, "sitrep_post_origin") == "posts/0/7"
    assert first_header(sent.record.headers, "note") is None
    assert bench.confirmed == [7]


async def test_post_whose_dead_letter_is_refused_is_not_acknowledged(bench: Bench) -> None:
    bench.outbox.max_bytes = 10
    with pytest.raises(RecordTooLarge):
        await bench.outcomes.dead_letter(bench.accepted(7), cause())
    assert bench.confirmed == []


@pytest.mark.parametrize("refused", ["alert", "duplicate"])
async def test_post_whose_alert_or_duplicate_is_refused_is_not_acknowledged(bench: Bench, refused: str) -> None:
    taken = bench.outbox.send

    async def send(topic: str, partition: int, records: Sequence[Outgoing]) -> list[int | RecordTooLarge]:
        if topic in ("alerts", "duplicates"):
            return [RecordTooLarge("too large")] * len(records)
        return await taken(topic, partition, records)

    bench.outbox.send = send  # type: ignore[method-assign]
    work = {
        "alert": bench.outcomes.publish([bench.decided(1, raises=True)]),
        "duplicate": bench.outcomes.duplicates([(bench.accepted(3), duplicate(3))]),
    }
    with pytest.raises(RecordTooLarge):
        await work.pop(refused)
    for other in work.values():
        other.close()
    assert bench.confirmed == []


async def test_dead_letters_of_one_fetch_are_delivered_together(bench: Bench) -> None:
    bench.outbox.max_bytes = 8_000
    letters = [(bench.accepted(offset, value=bytes(9_000 if offset == 2 else 9)), cause()) for offset in range(4)]
    batches: list[int] = []
    taken = bench.outbox.send

    async def send(topic: str, partition: int, records: Sequence[Outgoing]) -> list[int | RecordTooLarge]:
        batches.append(len(records))
        return await taken(topic, partition, records)

    bench.outbox.send = send  # type: ignore[method-assign]
    await bench.outcomes.dead_letters(letters)
    assert batches == [4, 1]  # and the pointer of the one that was too large
    assert bench.confirmed == [0, 1, 2, 3]
    assert bench.count("dead_letter") == 4


async def test_long_trace_is_not_carried_on(bench: Bench) -> None:
    """A valid post must not fail for what only travels with it."""
    decided = bench.decided(1)
    decided.job.accepted.record.headers.append(("tracestate", b"a" * 5_000))
    await bench.outcomes.publish([decided])
    [sent] = bench.outbox.on("findings")
    assert first_header(sent.record.headers, "traceparent") == TRACE.decode()
    assert first_header(sent.record.headers, "tracestate") is None


async def test_dead_letter_says_why_and_keeps_the_event(bench: Bench) -> None:
    accepted = bench.accepted(7, partition=3, value=b"\xff\x00")
    await bench.outcomes.dead_letter(accepted, cause())
    [sent] = bench.outbox.on("dead-letters")
    record: Any = SimpleNamespace(topic="dead-letters", partition=3, offset=0, timestamp=0, **fields(sent.record))
    letter = parse_dead_letter(record)
    assert (letter.value, letter.key, letter.reason, letter.stage) == (b"\xff\x00", b"k", "undecodable", "prepare")
    assert letter.origin == Origin(topic="posts", partition=3, offset=7)
    assert sent.partition == 3


async def test_prepared_posts_go_to_the_partition_of_their_post(bench: Bench) -> None:
    await bench.outcomes.forward([bench.job(1, partition=2), bench.job(2, partition=5), bench.job(3, partition=2)])
    sent = bench.outbox.on("prepared")
    assert sorted((one.partition, decode_prepared(one.record.value).post.id) for one in sent) == [
        (1, "p2"), (2, "p1"), (2, "p3"),
    ]  # fmt: skip
    assert sorted(bench.confirmed) == [1, 2, 3]


async def test_prepared_post_too_large_becomes_a_dead_letter(bench: Bench) -> None:
    bench.outbox.max_bytes = 5_000
    await bench.outcomes.forward([bench.job(1, text="x" * 6_000)])
    assert bench.forgotten == ["p1"]
    [sent] = bench.outbox.on("dead-letters")
    assert first_header(sent.record.headers, "sitrep_reason") == "record_too_large"
    assert bench.confirmed == [1]


async def test_duplicates_are_recorded_before_they_are_acknowledged(bench: Bench) -> None:
    await bench.outcomes.duplicates([(bench.accepted(3), duplicate(3)), (bench.accepted(4), duplicate(4))])
    assert bench.outbox.events == ["duplicates", "duplicates", "confirm 3", "confirm 4"]
    [first, _] = bench.outbox.on("duplicates")
    assert decode(first.record.value or b"", Duplicate) == duplicate(3)
    assert bench.count("duplicate") == 2


async def test_every_record_names_the_post_whose_outcome_it_is(bench: Bench) -> None:
    """In exactly-once mode a record without it could not be committed with its post."""
    await bench.outcomes.publish([bench.decided(1, raises=True), bench.decided(2)])
    await bench.outcomes.forward([bench.job(3)])
    await bench.outcomes.duplicates([(bench.accepted(4), duplicate(4))])
    await bench.outcomes.dead_letter(bench.accepted(5), cause())
    offsets = [one.record.outcome_of.record.offset for one in bench.outbox.sent]  # type: ignore[union-attr]
    assert offsets == [1, 2, 1, 3, 4, 5]


def cause() -> Cause:
    return Cause(reason="undecodable", stage="prepare", error=InvalidRecord("undecodable", "not a post"))


def duplicate(offset: int) -> Duplicate:
    first = Origin(topic="posts", partition=0, offset=0)
    return Duplicate(post_id="p0", origin=Origin(topic="posts", partition=0, offset=offset), first=first, differs=False)


def fields(record: Outgoing) -> dict[str, Any]:
    return {"key": record.key, "value": record.value, "headers": record.headers}
