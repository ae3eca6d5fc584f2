"""Lists dead letters and puts them back where they came from, each once; never decodes what failed.

Marker: a record of the dead-letters topic without a value whose header `sitrep_replayed` names the dead
letter and attempt that went back. Marker and post are sent in one transaction, and the transactional id
is one for all who replay, so that a second replay, at the same time or later, finds the marker.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from aiokafka import AIOKafkaProducer, ConsumerRecord
from aiokafka.errors import IllegalOperation, KafkaError, ProducerFenced

from stream.broker import Broker
from stream.client import start_client
from stream.errors import BrokerUnavailable, InvalidRecord, StreamError
from stream.headers import (
    ATTEMPT,
    POST_ORIGIN,
    REPLAYED,
    STAGE,
    VALUE_OMITTED,
    Headers,
    KafkaRecord,
    first_header,
    original_headers,
    parse_dead_letter,
)
from stream.reader import read_batches
from stream.records import DeadLetter, PreparedPost, decode_prepared

_CONNECT_TIMEOUT_S: Final = 15.0
_LETTERS_PER_TRANSACTION: Final = 100
_ERROR_HEADROOM_BYTES: Final = 1_048_576


class ReplayRefused(StreamError):
    """Another replay of the same dead letters runs, or the broker does not do transactions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A dead letter, its partition in the dead-letters topic, and whether it went back already."""

    letter: DeadLetter
    partition: int
    replayed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which dead letters are meant: all, unless ids or reasons are named."""

    ids: frozenset[str] = field(default_factory=frozenset)
    reasons: frozenset[str] = field(default_factory=frozenset)

    def matches(self, letter: DeadLetter) -> bool:
        """Whether the letter is meant."""
        return (not self.ids or letter.id in self.ids) and (not self.reasons or letter.reason in self.reasons)


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """What a replay did: ids that went back now, that had gone back before, and that are left.

    Left are letters of other topics, and those whose bytes were too large to be kept with them; `failed_again`
    are those left that had failed too often.
    """

    sent: tuple[str, ...]
    before: tuple[str, ...]
    left: tuple[str, ...]
    failed_again: tuple[str, ...] = ()


def is_marker(record: KafkaRecord) -> bool:
    """Whether a record of the dead-letters topic only says that a dead letter went back."""
    names = {name for name, _ in record.headers}
    return record.value is None and REPLAYED in names and POST_ORIGIN not in names


def collect(records: Iterable[ConsumerRecord]) -> list[Stored]:
    """Return the dead letters among the records, each once, with whether they went back; pure."""
    found: dict[str, tuple[DeadLetter, int]] = {}
    marked: set[str] = set()
    for record in records:
        if is_marker(record):
            marked.add(first_header(record.headers, REPLAYED) or "")
            continue
        letter = parse_dead_letter(record)
        known = found.get(letter.id)
        if known is None or known[0].attempt < letter.attempt:
            found[letter.id] = (letter, record.partition)
    return [
        Stored(letter=letter, partition=partition, replayed=_mark(letter) in marked)
        for letter, partition in found.values()
    ]


def given_up_prepared(record: KafkaRecord) -> PreparedPost | None:
    """Return the prepared post that a classify stage of its own gave up, None for any other record of the topic."""
    if first_header(record.headers, STAGE) != "classify" or record.value is None:
        return None
    try:
        return decode_prepared(record.value)
    except InvalidRecord:  # the stages are not apart, so these are the bytes of a post; or of nothing
        return None


def replay_headers(letter: DeadLetter) -> Headers:
    """Return the headers a letter goes back with: its own, and the number of the coming attempt."""
    return [*original_headers(letter.headers), (ATTEMPT, str(letter.attempt + 1).encode())]


async def list_dead_letters(broker: Broker, topic: str, wanted: Wanted | None = None) -> list[Stored]:
    """Return the dead letters that are meant, in the order of their partitions.

    Raises:
        BrokerUnavailable: nothing answers at `broker`.
        UnknownTopic: the broker does not have the topic.
    """
    stored: list[ConsumerRecord] = []
    async for batch in read_batches(broker, topic):
        stored.extend(batch)
    stored.sort(key=lambda record: (record.partition, record.offset))
    return [entry for entry in collect(stored) if wanted is None or wanted.matches(entry.letter)]


async def replay_dead_letters(
    broker: Broker, topic: str, wanted: Wanted, *, targets: frozenset[str], max_record_bytes: int, max_attempts: int = 1
) -> Replayed:
    """Put the wanted dead letters back on their topics, unless they went back before.

    Letters that came from a topic which is not among `targets`, or without bytes, stay where they are. So do those
    whose post failed more than `max_attempts` times, unless their id is wanted: it would fail again, for ever.

    Returns after the broker has confirmed them. Stopped halfway, it may be called again: what went
    back stays marked.

    Raises:
        BrokerUnavailable: nothing answers at `broker`.
        ReplayRefused: another replay took over, or the broker does not do transactions.
    """
    producer = AIOKafkaProducer(
        **broker.options(),
        transactional_id=f"{topic}-replay",
        max_batch_size=2 * max_record_bytes + _ERROR_HEADROOM_BYTES,
        max_request_size=2 * max_record_bytes + _ERROR_HEADROOM_BYTES,
    )
    try:
        # waits for, or ends, the transaction of a replay that runs or died; then its markers can be read
        await start_client(producer, _CONNECT_TIMEOUT_S)
    except (KafkaError, OSError, TimeoutError) as error:
        await producer.stop()
        why = await broker.unreachable(error)
        raise BrokerUnavailable(f"{why} (a replay needs a broker that has transactions)") from error
    try:
        stored = await list_dead_letters(broker, topic, wanted)
        ours = [entry for entry in stored if entry.letter.origin.topic in targets and not _omitted(entry.letter)]

        def spent(letter: DeadLetter) -> bool:
            return letter.attempt > max_attempts and letter.id not in wanted.ids

        todo = [entry for entry in ours if not entry.replayed and not spent(entry.letter)]
        for start in range(0, len(todo), _LETTERS_PER_TRANSACTION):
            await _send_back(producer, topic, todo[start : start + _LETTERS_PER_TRANSACTION])
    except (ProducerFenced, IllegalOperation) as error:
        raise ReplayRefused("another replay of these dead letters took over: look again with `list`") from error
    except KafkaError as error:
        raise ReplayRefused(f"the broker at {broker} refused the replay: {error or type(error).__name__}") from error
    finally:
        await producer.stop()
    return Replayed(
        sent=tuple(entry.letter.id for entry in todo),
        before=tuple(entry.letter.id for entry in ours if entry.replayed),
        left=tuple(entry.letter.id for entry in stored if entry not in ours),
        failed_again=tuple(entry.letter.id for entry in ours if not entry.replayed and spent(entry.letter)),
    )


async def _send_back(producer: AIOKafkaProducer, topic: str, entries: Sequence[Stored]) -> None:
    async with producer.transaction():
        deliveries = []
        for entry in entries:
            letter = entry.letter
            n_partitions = len(await producer.partitions_for(letter.origin.topic))
            home = letter.origin.partition % n_partitions  # a topic that was made anew may have fewer than it had
            post = (letter.origin.topic, letter.value, letter.key, home, replay_headers(letter))
            marker = (topic, None, letter.id.encode(), entry.partition, [(REPLAYED, _mark(letter).encode())])
            for to, value, key, partition, headers in (post, marker):
                delivery = await producer.send(to, value, key=key, partition=partition, headers=headers)
                delivery.add_done_callback(lambda one: one.cancelled() or one.exception())  # the first failure tells
                deliveries.append(delivery)
        await asyncio.gather(*deliveries)


def _mark(letter: DeadLetter) -> str:
    return f"{letter.id}/{letter.attempt}"


def _omitted(letter: DeadLetter) -> bool:
    return first_header(letter.headers, VALUE_OMITTED) is not None
