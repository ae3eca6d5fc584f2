"""Brings findings and alerts from their topics to the cache: all of them, or what it lacks at the topics' ends."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import AsyncIterator, Collection, Sequence
from math import gcd
from typing import Final

from aiokafka import ConsumerRecord

from stream.cache import MAX_WRITE, Entry, FindingCache, entry_of
from stream.errors import InvalidRecord
from stream.reader import Bounds, read_batches, topic_bounds
from stream.records import Alert, Finding, decode
from stream.topics import Topics

log = logging.getLogger(__name__)

_FIRST_LOOK: Final = 500
_FURTHER: Final = 4
_NOTHING: Final = Bounds(first=0, end=0)

_Record = type[Finding] | type[Alert]


async def read_entries(bootstrap: str, topics: Topics) -> AsyncIterator[Entry]:
    """Yield all that the topics hold for the cache; errors are those of `read_batches`."""
    kinds: tuple[tuple[str, _Record], ...] = ((topics.findings.name, Finding), (topics.alerts.name, Alert))
    for topic, kind in kinds:
        async for batch in read_batches(bootstrap, topic):
            for entry in _entries(batch, kind):
                yield entry


async def bring_missing(
    cache: FindingCache,
    bootstrap: str,
    topics: Topics,
    *,
    source: str,
    partitions: Collection[int],
) -> int:
    """Bring what the last worker of these partitions of the topic `source` published and left; return how much it was.

    A worker leaves what it published last, so each partition of findings, and of alerts, is looked at from its end:
    further back, several times as far, as long as a look finds something that the cache lacks.

    Raises:
        BrokerUnavailable: nothing answers at `bootstrap`.
        UnknownTopic: the broker does not have one of the topics.
    """
    findings = await topic_bounds(bootstrap, topics.findings.name)  # first: soon this worker's own come to them
    alerts = await topic_bounds(bootstrap, topics.alerts.name)
    n_sources = len(await topic_bounds(bootstrap, source))
    wanted = {number: findings[number] for number in outcomes_of(partitions, n_sources, len(findings))}
    n_brought = 0
    looks: tuple[tuple[str, _Record, dict[int, Bounds]], ...] = (
        (topics.findings.name, Finding, wanted),
        (topics.alerts.name, Alert, alerts),
    )
    for topic, kind, left in looks:
        n_back = _FIRST_LOOK
        while left:
            look = {number: Bounds(first=max(one.first, one.end - n_back), end=one.end) for number, one in left.items()}
            n_missing: Counter[int] = Counter()
            bounds = {**dict.fromkeys(range(len(findings) + len(alerts)), _NOTHING), **look}
            async for batch in read_batches(bootstrap, topic, bounds=bounds):
                for start in range(0, len(batch), MAX_WRITE):
                    entries = _entries(batch[start : start + MAX_WRITE], kind)
                    missing = await cache.lacking(entries)
                    await cache.store(missing)
                    n_missing[batch[0].partition] += len(missing)
            n_brought += n_missing.total()
            left = {
                number: Bounds(first=left[number].first, end=one.first)
                for number, one in look.items()
                if n_missing[number] and one.first > left[number].first
            }
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


def _entries(records: Sequence[ConsumerRecord], kind: _Record) -> list[Entry]:
    entries = []
    for record in records:
        try:
            entries.append(entry_of(decode(record.value, kind), record.value))
        except InvalidRecord as error:  # not ours; the ledger reports it
            log.warning("an unreadable record on %s is left out of the cache: %s", record.topic, error)
    return entries
