"""Lists dead letters and puts them back where they came from, each once; never decodes what failed.

Marker: a record of the dead-letters topic without a value whose header `sitrep_replayed` names the dead
letter and attempt that went back. Marker and post are sent in one transaction, and the transactional id
is one for all who replay, so that a second replay, at the same time or later, finds the marker.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from aiokafka import AIOKafkaProducer
from aiokafka.errors import IllegalOperation, KafkaError, ProducerFenced

from stream.broker import Broker
from stream.client import start_client
from stream.errors import BrokerUnavailable, InvalidRecord, StreamError
from stream.headers import ATTEMPT, REPLAYED, STAGE, Headers, KafkaRecord, first_header, original_headers
from stream.letter_survey import Stored, Wanted, list_dead_letters, mark_of, read_dead_letters
from stream.records import DeadLetter, PreparedPost, decode_prepared

_CONNECT_TIMEOUT_S: Final = 15.0
_LETTERS_PER_TRANSACTION: Final = 100
_ERROR_HEADROOM_BYTES: Final = 1_048_576


class ReplayRefused(StreamError):
    """Another replay of the same dead letters runs, or the broker does not do transactions."""


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

        def is_ours(one: Stored) -> bool:
            return one.topic in targets and not one.omitted

        def spent(one: Stored) -> bool:
            return one.attempt > max_attempts and one.id not in wanted.ids

        ours = list(filter(is_ours, stored))
        todo = [one for one in ours if not one.replayed and not spent(one)]
        sent: list[str] = []
        async for some in read_dead_letters(broker, topic, todo):
            for start in range(0, len(some), _LETTERS_PER_TRANSACTION):
                await _send_back(producer, topic, some[start : start + _LETTERS_PER_TRANSACTION])
            sent += [one.id for one, _ in some]
    except (ProducerFenced, IllegalOperation) as error:
        raise ReplayRefused("another replay of these dead letters took over: look again with `list`") from error
    except KafkaError as error:
        raise ReplayRefused(f"the broker at {broker} refused the replay: {error or type(error).__name__}") from error
    finally:
        await producer.stop()
    return Replayed(
        sent=tuple(sent),
        before=tuple(one.id for one in ours if one.replayed),
        left=tuple(one.id for one in stored if not is_ours(one)),
        failed_again=tuple(one.id for one in ours if not one.replayed and spent(one)),
    )


async def _send_back(producer: AIOKafkaProducer, topic: str, letters: Sequence[tuple[Stored, DeadLetter]]) -> None:
    async with producer.transaction():
        deliveries = []
        for one, letter in letters:
            n_partitions = len(await producer.partitions_for(letter.origin.topic))
            home = letter.origin.partition % n_partitions  # a topic that was made anew may have fewer than it had
            value = b"" if letter.key is letter.value is None else letter.value  # aiokafka sends no record of nothing
            post = (letter.origin.topic, value, letter.key, home, replay_headers(letter))
            marker = (topic, None, letter.id.encode(), one.partition, [(REPLAYED, mark_of(letter).encode())])
            for to, sent, key, partition, headers in (post, marker):
                delivery = await producer.send(to, sent, key=key, partition=partition, headers=headers)
                delivery.add_done_callback(lambda one: one.cancelled() or one.exception())  # the first failure tells
                deliveries.append(delivery)
        await asyncio.gather(*deliveries)
