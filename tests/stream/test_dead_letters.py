"""Dead letters as they are read back: one per event, with whether it went back."""

from __future__ import annotations

import tracemalloc
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

import msgspec
import pytest

from stream.broker import Broker
from stream.dead_letters import given_up_prepared, replay_headers
from stream.headers import (
    ATTEMPT,
    ERROR_PREFIX,
    REPLAYED,
    VALUE_OMITTED,
    Cause,
    Headers,
    attempt,
    dead_letter_headers,
    parse_dead_letter,
    pointer_headers,
)
from stream.letter_survey import Stored, Survey, Wanted, is_marker, list_dead_letters, read_dead_letters
from stream.reader import Bounds
from stream.records import Origin, Post, PreparedPost, encode, encode_prepared


@dataclass
class Record:
    topic: str = "t.posts"
    partition: int = 3
    offset: int = 41
    timestamp: int = 0
    key: bytes | None = b"p-1"
    value: bytes | None = b"\xff not json"
    headers: Headers = field(default_factory=lambda: [("traceparent", b"00-aa-bb-01"), ("content-type", b"x")])


def failed(
    record: Record, *, reason: str = "undecodable", stage: str = "prepare", partition: int = 1, offset: int = 0
) -> Record:
    try:
        raise ValueError("not JSON")
    except ValueError as error:
        headers = dead_letter_headers(record, Cause(reason=reason, stage=stage, error=error))
    return Record(
        topic="t.dead-letters", partition=partition, offset=offset, key=record.key, value=record.value, headers=headers
    )


def marker(name: str) -> Record:
    return Record(topic="t.dead-letters", partition=1, offset=9, value=None, headers=[(REPLAYED, name.encode())])


def collect(records: Iterable[Record]) -> list[Stored]:
    survey = Survey()
    for record in records:
        survey.add(record)
    return survey.letters()


def test_same_event_dead_lettered_twice_is_one_dead_letter() -> None:
    """At-least-once delivery must not replay a post twice."""
    stored = collect([failed(Record()), failed(Record(), offset=1)])

    assert [entry.id for entry in stored] == ["t.posts-3-41"]
    assert not stored[0].replayed


def test_the_post_that_a_classify_stage_gave_up() -> None:
    """A letter of another stage, of a post as it came, and one whose bytes were left out, tell of none."""
    post, origin = Post(id="p-1", text="bridge down"), Origin(topic="t.posts", partition=3, offset=41)
    prepared = PreparedPost(post=post, origin=origin, accepted_at=datetime(2026, 1, 5, tzinfo=UTC))
    forwarded = Record(topic="t.prepared", value=encode_prepared(prepared))

    assert given_up_prepared(failed(forwarded, stage="classify")) == prepared
    assert given_up_prepared(failed(forwarded)) is None
    for value in (encode(post), msgspec.msgpack.encode(post), b"", None):
        assert given_up_prepared(failed(Record(value=value), stage="classify")) is None
    assert given_up_prepared(marker("x")) is None


def test_marker_says_that_the_letter_went_back() -> None:
    """The marker may lie before or after the letter that it names; others are not touched."""
    letters = [failed(Record()), failed(Record(offset=42), offset=1)]

    for records in ([marker("t.posts-3-41/1"), *letters], [*letters, marker("t.posts-3-41/1")]):
        assert [(entry.id, entry.replayed) for entry in collect(records)] == [
            ("t.posts-3-41", True),
            ("t.posts-3-42", False),
        ]


def test_letter_keeps_the_place_of_its_first_attempt_and_counts_by_its_latest() -> None:
    """In whatever order the partitions are read; of two of one attempt the earlier counts."""
    tried = [
        failed(Record(offset=number, headers=[(ATTEMPT, b"%d" % attempt)]), partition=partition, offset=offset)
        for number, attempt, partition, offset in (
            (41, 1, 0, 0), (42, 1, 0, 1), (41, 3, 0, 2), (41, 2, 0, 3), (43, 1, 1, 0), (41, 3, 1, 1),
        )
    ]  # fmt: skip
    for records in (tried, tried[4:] + tried[:4]):
        assert [(one.id, one.attempt, one.partition, one.offset) for one in collect(records)] == [
            ("t.posts-3-41", 3, 0, 2),
            ("t.posts-3-42", 1, 0, 1),
            ("t.posts-3-43", 1, 1, 0),
        ]


def test_letter_without_its_bytes_is_told_from_one_that_had_none() -> None:
    pointer = failed(Record(value=None))
    assert [one.omitted for one in collect([pointer])] == [False]
    pointer.headers = pointer_headers(pointer.headers, size_bytes=9_000_000)
    assert [one.omitted for one in collect([pointer])] == [True]


def test_marker_is_no_dead_letter() -> None:
    """Whoever reads the topic can tell the two apart by the headers."""
    assert is_marker(marker("x"))
    assert not is_marker(failed(Record()))
    assert collect([marker("t.posts-3-41/1")]) == []


def test_sender_cannot_pass_a_letter_off_as_a_marker() -> None:
    """Nor as one whose bytes were left out, nor give it an attempt that is no number."""
    headers = [(REPLAYED, b"t.posts-3-41/1"), (VALUE_OMITTED, b"9"), (ATTEMPT, b"7" * 5_000), ("mine", b"kept")]

    for value in (b"x", None):
        letter = failed(Record(value=value, headers=headers))
        [stored] = collect([letter])
        assert not stored.replayed
        assert (stored.attempt, stored.omitted) == (1, False)
        assert replay_headers(parse_dead_letter(letter)) == [("mine", b"kept"), (ATTEMPT, b"2")]


@pytest.mark.parametrize("text", ["7" * 19, "²", "-1", "0", ""])
def test_attempt_that_is_no_number_is_the_first(text: str) -> None:
    assert attempt([(ATTEMPT, text.encode())]) == 1


def test_letter_goes_back_with_its_own_headers_and_the_next_attempt() -> None:
    """The error headers stay behind; a second failure then counts as the second attempt."""
    letter = parse_dead_letter(failed(Record()))

    headers = replay_headers(letter)

    assert letter.value == b"\xff not json"
    assert headers == [("traceparent", b"00-aa-bb-01"), ("content-type", b"x"), (ATTEMPT, b"2")]
    again = failed(Record(headers=headers))
    assert attempt(again.headers) == 2
    assert replay_headers(parse_dead_letter(again))[-1] == (ATTEMPT, b"3")
    assert not any(name.startswith(ERROR_PREFIX) for name, _ in headers)


@pytest.mark.parametrize(
    ("wanted", "matches"),
    [
        (Wanted(), True),
        (Wanted(reasons=frozenset({"undecodable"})), True),
        (Wanted(reasons=frozenset({"timeout"})), False),
        (Wanted(ids=frozenset({"t.posts-3-41"})), True),
        (Wanted(ids=frozenset({"t.posts-3-4"})), False),
        (Wanted(ids=frozenset({"t.posts-3-41"}), reasons=frozenset({"timeout"})), False),
    ],
)
def test_letters_are_chosen_by_id_and_reason(wanted: Wanted, matches: bool) -> None:
    """An empty choice means all; both given means both."""
    assert wanted.matches(parse_dead_letter(failed(Record()))) is matches


class LargeTopic:
    """Stands in for the reader: a topic of large dead letters, which come to be when they are read."""

    n_letters, value_bytes = 100, 1_000_000

    def __init__(self) -> None:
        self.n_read = 0

    async def topic_bounds(self, broker: Broker, topic: str) -> dict[int, Bounds]:
        return {number: Bounds(first=0, end=self.n_letters) for number in (0, 1)}

    async def read_batches(
        self, broker: Broker, topic: str, *, bounds: Mapping[int, Bounds] | None = None
    ) -> AsyncIterator[list[Record]]:
        for partition, bound in (bounds or await self.topic_bounds(broker, topic)).items():
            for offset in range(bound.first, bound.end):
                self.n_read += 1
                letter = Record(partition=partition, offset=offset, value=bytes(self.value_bytes))
                yield [failed(letter, partition=partition, offset=offset)]


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> LargeTopic:
    topic = LargeTopic()
    for name in ("topic_bounds", "read_batches"):
        monkeypatch.setattr(f"stream.letter_survey.{name}", getattr(topic, name))
    monkeypatch.setattr("stream.letter_survey._PORTION_BYTES", 5 * topic.value_bytes)
    return topic


async def test_memory_does_not_grow_with_the_letters(large: LargeTopic) -> None:
    """A bad feed leaves more than fits: neither a list nor the letters that are read for it hold them all."""
    broker = Broker("nowhere:1")
    tracemalloc.start()
    try:
        stored = await list_dead_letters(broker, "t.dead-letters")
        listing_bytes = tracemalloc.get_traced_memory()[1]
        read = []
        async for some in read_dead_letters(broker, "t.dead-letters", stored):
            read += [(one, letter.id, len(letter.value or b"")) for one, letter in some]
        reading_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(stored) == 2 * large.n_letters
    assert read == [(one, one.id, large.value_bytes) for one in stored]
    assert listing_bytes < 4 * large.value_bytes
    assert reading_bytes < 4 * 5 * large.value_bytes


async def test_few_letters_are_read_without_what_lies_between_them(large: LargeTopic) -> None:
    """Nor are they read again for those that failed once more, far behind."""
    broker = Broker("nowhere:1")
    stored = await list_dead_letters(broker, "t.dead-letters")
    large.n_read = 0
    wanted = [stored[number] for number in (90, 3, 5, 100 + 99, 100, 95)]
    read = [one async for some in read_dead_letters(broker, "t.dead-letters", wanted) for one, _ in some]
    assert read == wanted
    assert large.n_read <= 12
