"""Brings findings and alerts from their topics to the cache: all of them, or what it lacks at the topics' ends."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from math import gcd
from typing import Final

from aiokafka import ConsumerRecord
from msgspec.structs import replace

from stream.broker import Broker
from stream.cache import MAX_WRITE, Entry, FindingCache, entry_of
from stream.errors import InvalidRecord
from stream.reader import Bounds, read_batches, topic_bounds
from stream.records import Alert, Finding, decode
from stream.topics import Topics

log = logging.getLogger(__name__)

_FIRST_LOOK: Final = 500
_FURTHER: Final = 4
_NOTHING: Final = Bounds(first=0, end=0)

OnUnreadable = Callable[[str, InvalidRecord], None]
_Record = type[Finding] | type[Alert]


async def read_entries(
    broker: Broker, topics: Topics, *, on_unreadable: OnUnreadable | None = None
) -> AsyncIterator[Entry]:
    """Yield all that the topics hold for the cache; errors are those of `read_batches`.

    `on_unreadable` is told the topic and the error of each record that is left out, else the log is.
    """
    kinds: tuple[tuple[str, _Record], ...] = ((topics.findings.name, Finding), (topics.alerts.name, Alert))
    for topic, kind in kinds:
        async for batch in read_batches(broker, topic):
            for entry in _entries(batch, kind, on_unreadable or _warn):
                yield entry


async def bring_missing(
    cache: FindingCache,
    broker: Broker,
    topics: Topics,
    *,
    source: str,
    partitions: Collection[int],
) -> int:
    """Bring what the last worker of these partitions of the topic `source` published and left; return how much it was.

    A worker leaves what it published last, so each partition of findings, and of alerts, is looked at from its end:
    further back, several times as far, as long as a look finds something that the cache lacks.

    Raises:
        BrokerUnavailable: nothing answers at `broker`.
        UnknownTopic: the broker does not have one of the topics.
    """
    findings = await topic_bounds(broker, topics.findings.name)  # first: soon this worker's own come to them
    alerts = await topic_bounds(broker, topics.alerts.name)
    n_sources = len(await topic_bounds(broker, source))
    wanted = outcomes_of(partitions, n_sources, len(findings))
    n_findings = await _bring_ends(cache, broker, topics.findings.name, Finding, findings, wanted)
    return n_findings + await _bring_ends(cache, broker, topics.alerts.name, Alert, alerts, set(alerts))


async def _bring_ends(
    cache: FindingCache, broker: Broker, topic: str, kind: _Record, kept: Mapping[int, Bounds], wanted: set[int]
) -> int:
    """Bring what the cache lacks at the ends of the wanted partitions, of which `kept` says what they hold."""
    ends = {number: kept[number].end for number in wanted}
    n_back, n_brought = _FIRST_LOOK, 0
    while ends:
        look = {number: Bounds(first=max(kept[number].first, end - n_back), end=end) for number, end in ends.items()}
        n_missing: Counter[int] = Counter()
        async for batch in read_batches(broker, topic, bounds={**dict.fromkeys(kept, _NOTHING), **look}):
            for start in range(0, len(batch), MAX_WRITE):
                missing = await cache.lacking(_entries(batch[start : start + MAX_WRITE], kind, _warn))
                await cache.restore(missing)
                n_missing[batch[0].partition] += len(missing)
        n_brought += n_missing.total()
        ends = {n: one.first for n, one in look.items() if n_missing[n] and one.first > kept[n].first}
        n_back *= _FURTHER
    return n_brought


def outcomes_of(partitions: Collection[int], n_sources: int, n_outcomes: int) -> set[int]:
    """Return the partitions where outcomes of posts may lie that come in these partitions of their topic.

    A stage puts what comes in partition p into p modulo the number of its own partitions, and there may be a stage
    between: what both numbers of partitions leave of p is its remainder modulo their greatest common divisor.
    """
    step = gcd(n_sources, n_outcomes)
    remainders = {number % step for number in partitions}
    return {number for number in range(n_outcomes) if number % step in remainders}


def _entries(records: Sequence[ConsumerRecord], kind: _Record, on_unreadable: OnUnreadable) -> list[Entry]:
    """Return what can be read, none of it later than when it was published: its own time may come from any clock."""
    entries = []
    for record in records:
        try:
            entry = entry_of(decode(record.value, kind), record.value)
        except InvalidRecord as error:  # not ours; the ledger reports it
            on_unreadable(record.topic, error)
            continue
        published_s = record.timestamp / 1000
        entries.append(entry if entry.time_s <= published_s else replace(entry, time_s=published_s))
    return entries


def _warn(topic: str, error: InvalidRecord) -> None:
    log.warning("an unreadable record on %s is left out of the cache: %s", topic, error)
