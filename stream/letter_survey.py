"""What lies on the dead-letters topic: a survey without bytes, which are read for the letters that are asked for."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import chain, zip_longest
from typing import Final

from stream.broker import Broker
from stream.headers import POST_ORIGIN, REPLAYED, VALUE_OMITTED, KafkaRecord, first_header, parse_dead_letter
from stream.reader import Bounds, read_batches, topic_bounds
from stream.records import DeadLetter

_MESSAGE_CHARS: Final = 120
_PORTION_LETTERS: Final = 5_000
_PORTION_BYTES: Final = 33_554_432
_GAP_BYTES: Final = 16_777_216  # to read over more than that takes longer than to connect again behind it


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A dead letter without its bytes: what decides about it, and where they lie in the dead-letters topic."""

    id: str
    reason: str
    message: str  # its beginning
    attempt: int
    failed_at: datetime | None
    topic: str  # that the event came from
    partition: int
    offset: int
    size_bytes: int
    before_bytes: int  # of all that lies before it in its partition
    omitted: bool  # its bytes were too large to be kept
    replayed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which dead letters are meant: all, unless ids or reasons are named."""

    ids: frozenset[str] = field(default_factory=frozenset)
    reasons: frozenset[str] = field(default_factory=frozenset)

    def matches(self, letter: DeadLetter | Stored) -> bool:
        """Whether the letter is meant."""
        return (not self.ids or letter.id in self.ids) and (not self.reasons or letter.reason in self.reasons)


def is_marker(record: KafkaRecord) -> bool:
    """Whether a record of the dead-letters topic only says that a dead letter went back."""
    names = {name for name, _ in record.headers}
    return record.value is None and REPLAYED in names and POST_ORIGIN not in names


def mark_of(letter: Stored | DeadLetter) -> str:
    return f"{letter.id}/{letter.attempt}"


class Survey:
    """The dead letters of a topic, each once, by its latest attempt, and which of them went back; keeps no bytes."""

    def __init__(self) -> None:
        self._latest: dict[str, Stored] = {}
        self._first: dict[str, tuple[int, int]] = {}
        self._marked: set[str] = set()
        self._n_bytes: Counter[int] = Counter()

    def add(self, record: KafkaRecord) -> None:
        """Note a record; those of one partition come in their order."""
        one = _stored(record, before_bytes=self._n_bytes[record.partition])
        self._n_bytes[record.partition] += one.size_bytes
        if is_marker(record):
            self._marked.add(first_header(record.headers, REPLAYED) or "")
            return
        self._latest[one.id] = min(self._latest.get(one.id, one), one, key=lambda one: (-one.attempt, _place(one)))
        self._first[one.id] = min(self._first.get(one.id, _place(one)), _place(one))

    def letters(self) -> list[Stored]:
        """Return them in the order of their partitions, within one of their first attempts."""
        letters = sorted(self._latest.values(), key=lambda one: self._first[one.id])
        return [replace(one, replayed=True) if mark_of(one) in self._marked else one for one in letters]


async def list_dead_letters(broker: Broker, topic: str, wanted: Wanted | None = None) -> list[Stored]:
    """Return the dead letters that are meant, in the order of their partitions.

    Raises:
        BrokerUnavailable: nothing answers at `broker`.
        UnknownTopic: the broker does not have the topic.
    """
    survey = Survey()
    async for batch in read_batches(broker, topic):
        for record in batch:
            survey.add(record)
    return [one for one in survey.letters() if wanted is None or wanted.matches(one)]


async def read_dead_letters(
    broker: Broker, topic: str, stored: Sequence[Stored]
) -> AsyncIterator[list[tuple[Stored, DeadLetter]]]:
    """Yield the dead letters with their bytes, in this order, as many at a time as fit well in memory.

    What the topic has deleted meanwhile is left out.

    Raises:
        BrokerUnavailable: nothing answers at `broker`.
        UnknownTopic: the broker does not have the topic.
    """
    nothing = dict.fromkeys(await topic_bounds(broker, topic), Bounds(first=0, end=0))
    for some in _portions(stored):
        places, found = set(map(_place, some)), dict[tuple[int, int], DeadLetter]()
        for bounds in _stretches(some):
            async for batch in read_batches(broker, topic, bounds=nothing | bounds):
                found |= {_place(record): parse_dead_letter(record) for record in batch if _place(record) in places}
        yield [(one, found[_place(one)]) for one in some if _place(one) in found]


def _stored(record: KafkaRecord, *, before_bytes: int) -> Stored:
    letter = parse_dead_letter(record)
    return Stored(
        id=letter.id,
        reason=letter.reason,
        message=letter.message[:_MESSAGE_CHARS],
        attempt=letter.attempt,
        failed_at=letter.failed_at,
        topic=letter.origin.topic,
        partition=record.partition,
        offset=record.offset,
        size_bytes=sum(len(part or b"") for part in (record.key, record.value, *chain.from_iterable(record.headers))),
        before_bytes=before_bytes,
        omitted=first_header(record.headers, VALUE_OMITTED) is not None,
    )


def _portions(stored: Iterable[Stored]) -> Iterator[list[Stored]]:
    """Part them into as many as are read at once."""
    some: list[Stored] = []
    n_bytes = 0
    for one in stored:
        if some and (len(some) == _PORTION_LETTERS or n_bytes + one.size_bytes > _PORTION_BYTES):
            yield some
            some, n_bytes = [], 0
        some.append(one)
        n_bytes += one.size_bytes
    if some:
        yield some


def _stretches(some: Iterable[Stored]) -> Iterator[dict[int, Bounds]]:
    """Yield what to read of each partition to have them all, in several readings where much lies between."""
    stretches: defaultdict[int, list[Bounds]] = defaultdict(list)
    read_bytes: dict[int, int] = {}
    for one in sorted(some, key=_place):
        mine, is_near = stretches[one.partition], one.before_bytes - read_bytes.get(one.partition, 0) <= _GAP_BYTES
        first = mine.pop().first if mine and is_near else one.offset
        mine.append(Bounds(first=first, end=one.offset + 1))
        read_bytes[one.partition] = one.before_bytes + one.size_bytes
    for bounds in zip_longest(*stretches.values()):
        yield {partition: one for partition, one in zip(stretches, bounds, strict=True) if one is not None}


def _place(one: Stored | KafkaRecord) -> tuple[int, int]:
    return one.partition, one.offset
