"""Publishes what became of posts, and acknowledges each only after its outcome is delivered."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final

from msgspec import Struct

from stream.cache import Entry, entry_of
from stream.cache_writer import CacheWriter
from stream.errors import RecordTooLarge
from stream.headers import (
    POST_ORIGIN,
    Cause,
    Headers,
    cloudevents,
    dead_letter_headers,
    pointer_headers,
    trace_context,
)
from stream.intake import Accepted, confirm_all
from stream.outbox import Outbox, Outgoing
from stream.records import Alert, Duplicate, Origin, Post, PreparedPost, encode, encode_prepared
from stream.topics import Topics
from stream.transactions import Transactions
from workers.findings import now_utc
from workers.metrics import Metrics

FINDING_TYPE: Final = "org.sitrep.finding.v1"
ALERT_TYPE: Final = "org.sitrep.alert.v1"
DUPLICATE_TYPE: Final = "org.sitrep.duplicate.v1"
_MAX_POINTER_KEY_BYTES: Final = 1_024


class Job(Struct, frozen=True, kw_only=True, gc=False):
    """A post on its way through the stages, with the record to acknowledge."""

    accepted: Accepted
    prepared: PreparedPost


_Letter = tuple[Accepted, Cause, Headers]


class Decided(Struct, frozen=True, kw_only=True, gc=False):
    """A post with its finding, as JSON already, and an alert when the finding calls for one."""

    job: Job
    post_id: bytes  # the key of its records
    finding_id: str
    label: str
    value: bytes
    alert: Alert | None


class Outcomes:
    """Delivers findings, alerts, duplicates, prepared posts and dead letters."""

    def __init__(
        self,
        outbox: Outbox | Transactions,
        topics: Topics,
        metrics: Metrics,
        *,
        source: str,
        cache_writer: CacheWriter | None,
        forget: Callable[[Post, Origin], None] = lambda post, origin: None,
    ) -> None:
        """`forget` is told each post that became a dead letter here, so that it may come again after a fix."""
        self._outbox = outbox
        self._topics = topics
        self._metrics = metrics
        self._source = source
        self._cache_writer = cache_writer
        self._forget = forget

    async def publish(self, decided: Sequence[Decided]) -> None:
        """Deliver findings with their alerts, then acknowledge their posts and hand them to the cache."""
        now = now_utc()
        by_partition: dict[int, list[Decided]] = defaultdict(list)
        for one in decided:
            by_partition[one.job.prepared.origin.partition].append(one)
        await asyncio.gather(
            *(self._publish_partition(partition, some, now) for partition, some in by_partition.items())
        )

    async def forward(self, jobs: Sequence[Job]) -> None:
        """Deliver prepared posts to the classify stage, then acknowledge them here."""
        by_partition: dict[int, list[Job]] = defaultdict(list)
        for job in jobs:
            by_partition[job.prepared.origin.partition].append(job)
        topic = self._topics.prepared.name
        for number, some in by_partition.items():
            partition = await self._outbox.partition_for(topic, number)
            records = [
                Outgoing(
                    key=job.prepared.post.id.encode(),
                    value=encode_prepared(job.prepared),
                    headers=[(POST_ORIGIN, _origin_text(job.prepared.origin)), *_trace(job)],
                    outcome_of=job.accepted,
                )
                for job in some
            ]
            sent = []
            for job, result in zip(some, await self._outbox.send(topic, partition, records), strict=True):
                if isinstance(result, RecordTooLarge):
                    self._forget(job.prepared.post, job.prepared.origin)
                    await self.dead_letter(
                        job.accepted, Cause(reason="record_too_large", stage="prepare", error=result)
                    )
                else:
                    sent.append(job.accepted)
            confirm_all(sent)

    async def duplicates(self, duplicates: Sequence[tuple[Accepted, Duplicate]]) -> None:
        """Record duplicates, then acknowledge them."""
        headers = cloudevents(source=self._source, event_type=DUPLICATE_TYPE, time=now_utc())
        by_partition: dict[int, list[tuple[Accepted, Duplicate]]] = defaultdict(list)
        for accepted, duplicate in duplicates:
            by_partition[duplicate.origin.partition].append((accepted, duplicate))
        topic = self._topics.duplicates.name
        for number, some in by_partition.items():
            partition = await self._outbox.partition_for(topic, number)
            records = [
                Outgoing(
                    key=duplicate.post_id.encode(),
                    value=encode(duplicate),
                    headers=headers("-".join(_origin_text(duplicate.origin).decode().split("/"))),
                    outcome_of=accepted,
                )
                for accepted, duplicate in some
            ]
            _all_sent(await self._outbox.send(topic, partition, records))
            self._metrics.posts.labels("duplicate").inc(len(some))
            confirm_all(accepted for accepted, _ in some)

    async def dead_letter(self, accepted: Accepted, cause: Cause, *, post_origin: Origin | None = None) -> None:
        """Deliver the event's original bytes with the reason, then acknowledge it."""
        headers = dead_letter_headers(accepted.record, cause, post_origin=post_origin)
        await self._deliver_letters([(accepted, cause, headers)])

    async def dead_letters(self, letters: Sequence[tuple[Accepted, Cause]]) -> None:
        """Deliver the original bytes of the events of one fetch with the reasons, then acknowledge them."""
        await self._deliver_letters(
            [(accepted, cause, dead_letter_headers(accepted.record, cause)) for accepted, cause in letters]
        )

    async def _deliver_letters(self, letters: Sequence[_Letter]) -> None:
        topic = self._topics.dead_letters.name
        partition = await self._outbox.partition_for(topic, letters[0][0].record.partition)
        records = [
            Outgoing(key=accepted.record.key, value=accepted.record.value, headers=headers, outcome_of=accepted)
            for accepted, _, headers in letters
        ]
        results = await self._outbox.send(topic, partition, records)
        pointers = [
            _pointer(accepted, headers)
            for (accepted, _, headers), result in zip(letters, results, strict=True)
            if isinstance(result, RecordTooLarge)
        ]
        if pointers:  # where the topic does not take these either, nobody is told, so the events must wait
            _all_sent(await self._outbox.send(topic, partition, pointers))
        self._metrics.posts.labels("dead_letter").inc(len(letters))
        for _, cause, _ in letters:
            self._metrics.dead_letters.labels(cause.reason).inc()
        confirm_all([accepted for accepted, _, _ in letters])

    async def _publish_partition(self, number: int, decided: list[Decided], now: datetime) -> None:
        topic = self._topics.findings.name
        partition = await self._outbox.partition_for(topic, number)
        records = self._findings(decided, now)
        results = await self._outbox.send(topic, partition, records)
        if self._cache_writer is not None:
            await self._cache_writer.room()
        delivered, refused = decided, []
        if RecordTooLarge in map(type, results):
            refused = [(one, why) for one, why in zip(decided, results, strict=True) if isinstance(why, RecordTooLarge)]
            delivered = [one for one, why in zip(decided, results, strict=True) if not isinstance(why, RecordTooLarge)]
        entries = [
            Entry(
                id=one.post_id,
                label=one.label,
                time_s=one.job.prepared.accepted_at.timestamp(),
                value=one.value,
            )
            for one in delivered
        ]
        alerts = self._alerts(delivered, now)
        if alerts:
            _all_sent(await self._outbox.send(self._topics.alerts.name, 0, alerts))
            self._metrics.alerts.inc(len(alerts))
        self._count(entries)
        if self._cache_writer is not None:
            self._cache_writer.offer(entries)
            self._cache_writer.offer([entry_of(one.alert) for one in delivered if one.alert is not None])
        confirm_all([one.job.accepted for one in delivered])
        for one, why in refused:
            self._forget(one.job.prepared.post, one.job.prepared.origin)
            cause = Cause(reason="finding_too_large", stage="classify", error=why)
            await self.dead_letter(one.job.accepted, cause, post_origin=one.job.prepared.origin)

    def _count(self, delivered: Sequence[Entry]) -> None:
        metrics, delivered_s = self._metrics, now_utc().timestamp()
        metrics.posts.labels("finding").inc(len(delivered))
        for label, n_findings in Counter([one.label for one in delivered]).items():
            metrics.findings.labels(label).inc(n_findings)
        metrics.latency_s.observe_many([delivered_s - one.time_s for one in delivered])

    def _findings(self, decided: Sequence[Decided], now: datetime) -> list[Outgoing]:
        headers = cloudevents(source=self._source, event_type=FINDING_TYPE, time=now)
        return [
            Outgoing(
                key=one.post_id,
                value=one.value,
                headers=headers(one.finding_id, trace_context(one.job.accepted.record.headers)),
                outcome_of=one.job.accepted,
            )
            for one in decided
        ]

    def _alerts(self, decided: Sequence[Decided], now: datetime) -> list[Outgoing]:
        headers = cloudevents(source=self._source, event_type=ALERT_TYPE, time=now)
        return [
            Outgoing(
                key=one.alert.id.encode(),
                value=encode(one.alert),
                headers=headers(one.alert.id, trace_context(one.job.accepted.record.headers)),
                outcome_of=one.job.accepted,
            )
            for one in decided
            if one.alert is not None
        ]


def _all_sent(results: Sequence[int | RecordTooLarge]) -> None:
    for result in results:
        if isinstance(result, RecordTooLarge):
            raise result


def _pointer(accepted: Accepted, headers: Headers) -> Outgoing:
    """Where the event is, which may be too large by its key and headers; better this than a worker that loops."""
    record = accepted.record
    key = record.key if len(record.key or b"") <= _MAX_POINTER_KEY_BYTES else None
    headers = pointer_headers(headers, size_bytes=len(record.value or b""))
    return Outgoing(key=key, value=None, headers=headers, outcome_of=accepted)


def _trace(job: Job) -> Headers:
    context = trace_context(job.accepted.record.headers)
    return [(name, value.encode("ascii", "replace")) for name, value in context.items()]


def _origin_text(origin: Origin) -> bytes:
    return f"{origin.topic}/{origin.partition}/{origin.offset}".encode()
