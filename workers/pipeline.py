"""The service beside the agents: it connects the stages, feeds the channels, commits, and drains on stop."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable, Collection, Coroutine, Sequence
from pathlib import Path
from typing import Any, Literal

from aiokafka import TopicPartition
from mode import Service

from stream.breaker import CircuitBreaker
from stream.cache import FindingCache, connect_cache
from stream.cache_topics import bring_missing, read_entries
from stream.cache_writer import REDIS_ERRORS, CacheWriter
from stream.consumer import IntakeConfig
from stream.ending import end_tasks
from stream.errors import BrokerUnavailable, StreamError
from stream.images import ImagePool
from stream.intake import Accepted, Intake
from stream.outbox import Outbox
from stream.reader import tail_topic
from stream.topics import Topics, topics
from stream.transactions import Transactions
from workers.channel import DurableChannel
from workers.device import Classifier, Device
from workers.duplicates import DuplicateFilter
from workers.errors import WorkerError
from workers.gauges import Gauges
from workers.inference import Inference, shape
from workers.load import LoadPolicy
from workers.memory import PostMemory
from workers.metrics import Metrics
from workers.outcomes import Job, Outcomes
from workers.prepare import PrepareStage
from workers.settings import Settings
from workers.waiting import Waiting, WaitingRoom

log = logging.getLogger(__name__)

Stage = Literal["all", "prepare", "classify"]

_COMMIT_S = 0.5
_TRANSACTION_S = 0.05  # outcomes are not seen before
_LETTERS_PAUSE_S = 5.0
_NOT_URGENT_SHARE = 0.75  # of the room for decoded pictures; the rest is for urgent posts


class Pipeline(Service):  # type: ignore[misc]  # mode is untyped
    """Owns intake, outbox, cache and stages of one worker; the agents call `on_fetched` and `on_batch`."""

    def __init__(
        self,
        settings: Settings,
        *,
        stage: Stage,
        classifier: Classifier | None,
        metrics: Metrics,
        fetched: DurableChannel,
        batches: DurableChannel,
        on_fatal: Callable[[BaseException], None],
    ) -> None:
        super().__init__()
        self.settings = settings
        self.stage = stage
        self.metrics = metrics
        self.topics: Topics = topics(
            prefix=settings.prefix, n_partitions=settings.partitions, max_record_bytes=settings.max_record_bytes
        )
        self._fetched = fetched
        self._batches = batches
        self._on_fatal = on_fatal
        self.cache: FindingCache = connect_cache(
            settings.redis,
            prefix=settings.prefix,
            ttl_s=settings.finding_ttl_s,
            latest_per_class=settings.latest_per_class,
        )
        self.breakers = {
            "writes": CircuitBreaker(failures=REDIS_ERRORS, n_failures=1, pause_s=0.5),
            "look_ups": CircuitBreaker(failures=REDIS_ERRORS, n_failures=2, pause_s=5.0),
        }
        self.cache_writer = CacheWriter(
            self.cache,
            breaker=self.breakers["writes"],
            max_buffer=settings.cache_buffer,
            refill=lambda: read_entries(settings.broker, self.topics),
            bring_missing=self._bring_missing,
            on_error=metrics.redis_errors.inc,
        )
        self.outbox = Outbox(
            broker=settings.broker,
            max_batch_bytes=self.topics.findings.max_message_bytes,
            request_timeout_s=settings.request_timeout_s,
            publish_timeout_s=settings.publish_timeout_s,
        )
        config = self._intake_config()
        self.transactions: Transactions | None = None
        if settings.exactly_once:
            self.transactions = Transactions(
                self.outbox,
                broker=settings.broker,
                group=config.group,
                max_batch_bytes=self.topics.findings.max_message_bytes,
                request_timeout_s=settings.request_timeout_s,
                publish_timeout_s=settings.publish_timeout_s,
            )
        duplicates = DuplicateFilter(
            memory=PostMemory(self.topics.posts.name, max_posts=settings.remembered_posts),
            metrics=metrics,
            cache=self.cache,
            breaker=self.breakers["look_ups"],
            redis_answers=lambda: self.cache_writer.available,
        )
        outcomes = Outcomes(
            self.transactions or self.outbox,
            self.topics,
            metrics,
            source=f"/sitrep/{settings.prefix.strip('.-_') or 'default'}",
            cache_writer=None if stage == "prepare" else self.cache_writer,
            forget=duplicates.forget,
        )
        self.intake = Intake(config, on_granted=self._granted, on_lost=self._lost, transactions=self.transactions)
        self.images = ImagePool(
            n_processes=settings.image_processes,
            timeout_s=settings.image_timeout_s,
            edge=settings.image_edge,
            max_pixels=settings.max_image_pixels,
            folder=Path(settings.image_folder) if settings.image_folder else None,
            max_bytes=settings.max_record_bytes,
        )
        self.load = LoadPolicy(settings, on_change=metrics.mode.state)
        room: WaitingRoom[Job] = WaitingRoom(
            shape, window_posts=settings.triage_window_posts, max_overtake_s=settings.max_overtake_s
        )
        self.prepare = PrepareStage(
            images=self.images,
            duplicates=duplicates,
            outcomes=outcomes,
            metrics=metrics,
            room=room,
            forward=outcomes.forward if stage == "prepare" else self._to_batcher,
            forward_decoded=None if stage == "prepare" else self._decoded_to_batcher,
            max_record_bytes=settings.max_record_bytes,
            on_fatal=on_fatal,
            is_in_flight=self.intake.is_in_flight,
            has_room=self._has_room,
            reliefs=lambda: self.load.reliefs,
        )
        self._gauges = Gauges(self)
        self._loops: list[asyncio.Task[None]] = []
        self.inference: Inference | None = None
        if classifier is not None:
            self.inference = Inference(
                settings,
                room=room,
                classifier=classifier,
                outcomes=outcomes,
                metrics=metrics,
                load=self.load,
                on_dead_letter=self.prepare.forget,
                on_fatal=on_fatal,
            )

    async def on_start(self) -> None:
        """Connect; the intake comes last, when all that handles its posts is there."""
        if self.inference is not None:
            self._tell_limits(self.inference.device)
        await self.outbox.start()
        if self.stage != "classify":
            try:
                await self.images.start()
            except StreamError:
                if not self.should_stop:
                    raise
        if self.should_stop:  # told to stop while it started: a member that joins now would never leave
            return
        if self.stage == "prepare":
            self._run(self._follow_letters())
        await self.intake.start()
        self._run(self._fetch())
        self._run(self._commit())
        self._run(self._gauges.run())
        self._run(self.cache_writer.run())
        self._run(self.cache_writer.run_checks())
        if self.inference is not None:
            self._run(self.inference.form_batches(self._batches.put))
            self._run(self.inference.triage.run())

    async def drain(self) -> None:
        """Stop fetching, finish what is in flight within the deadline, commit and leave the group."""
        start = time.monotonic()
        if self.inference is not None:
            self.inference.batcher.hurry()
        done = await self.intake.drain()
        n_unfinished = self.intake.n_in_flight
        await self.intake.stop()
        if not done:
            log.warning("stopped with %d posts unfinished; the next worker handles them", n_unfinished)
        left_s = max(0.5, self.settings.drain_timeout_s - (time.monotonic() - start))
        if self.cache_writer.available:
            await self.cache_writer.flush(left_s)
        if self.cache_writer.n_buffered:
            log.warning("%d findings did not reach Redis; the next worker brings them", self.cache_writer.n_buffered)

    async def on_stop(self) -> None:
        """Close what `on_start` opened."""
        try:
            await self.intake.stop()
        finally:  # its last transaction may fail for good
            await end_tasks(self._loops)
            if self.inference is not None:
                self.inference.stop()
            await self.images.stop()
            if self.transactions is not None:
                await self.transactions.stop()
            await self.outbox.stop()
            await self.cache.close()

    async def on_fetched(self, fetched: Sequence[Accepted]) -> None:
        """Handle the records of one fetch of one partition."""
        if self.stage == "classify":
            assert self.inference is not None
            await self._to_batcher(await self.inference.classify.read_prepared(fetched))
        else:
            await self.prepare.run(fetched)

    async def on_batch(self, jobs: Sequence[Job]) -> None:
        """Start to classify one micro-batch."""
        assert self.inference is not None
        await self.inference.classify.run(jobs)

    @property
    def stalled_s(self) -> float:
        """Seconds since an outcome was confirmed while posts wait, here or on their topic; 0 when none do."""
        return self._gauges.stalled_s

    def _tell_limits(self, device: Device) -> None:
        """Log what these settings and this classifier do not do together."""
        settings, classifier = self.settings, device.classifier
        taught_edge: int = getattr(classifier, "image_edge_px", 0)
        if taught_edge > settings.image_edge:
            log.warning(
                "image_edge = %d, less than the %d px of the pictures that the classifier was trained on: raise it",
                settings.image_edge,
                taught_edge,
            )
        if settings.triage_lag_posts and not device.can_triage:
            log.info("%s has no first look at texts: posts keep their order under load", classifier.version)

    def _intake_config(self) -> IntakeConfig:
        settings = self.settings
        topic = self.topics.prepared if self.stage == "classify" else self.topics.posts
        role = "classify" if self.stage == "classify" else "prepare"
        return IntakeConfig(
            broker=settings.broker,
            topic=topic.name,
            group=f"{settings.prefix}{role}",
            instance=settings.instance or f"{socket.gethostname()}-{settings.web_port or os.getpid()}",
            session_timeout_s=settings.session_timeout_s,
            max_stall_s=settings.max_stall_s,
            request_timeout_s=settings.request_timeout_s,
            drain_timeout_s=settings.drain_timeout_s,
            max_in_flight=settings.max_in_flight,
            max_in_flight_bytes=settings.max_in_flight_bytes,
            max_record_bytes=topic.max_message_bytes,
        )

    async def _to_batcher(self, jobs: Sequence[Job]) -> None:
        assert self.inference is not None
        self.inference.batcher.put(jobs)

    async def _decoded_to_batcher(self, waiting: Waiting[Job], job: Job) -> None:
        assert self.inference is not None
        self.inference.batcher.put_decoded(waiting, job)

    def _has_room(self, urgent: bool) -> bool:
        """Whether one more picture may be decoded; some room is kept for urgent ones."""
        share = 1.0 if urgent else _NOT_URGENT_SHARE
        return self.intake.n_bytes_held < share * self.settings.max_in_flight_bytes

    async def _fetch(self) -> None:
        while not self.should_stop:
            for fetched in await self.intake.fetch():
                if fetched:
                    await self._fetched.put(fetched)

    async def _commit(self) -> None:
        while not self.should_stop:
            await asyncio.sleep(_COMMIT_S if self.transactions is None else _TRANSACTION_S)
            await self.intake.commit()

    async def _follow_letters(self) -> None:
        """Read what the classify stage gives up, so that `prepare` lets it come again; a break in it loses no post."""
        while not self.should_stop:
            try:
                async for letter in tail_topic(self.settings.broker, self.topics.dead_letters.name):
                    self.prepare.forget_letter(letter)
            except BrokerUnavailable as error:
                log.warning("dead letters are not read for now, posts that come again count as duplicates: %s", error)
                await asyncio.sleep(_LETTERS_PAUSE_S)

    def _granted(self, partition: TopicPartition) -> None:
        if self.stage != "prepare":  # whose worker publishes nothing that the cache holds
            self.cache_writer.check_ends([partition.partition])

    def _lost(self, partitions: set[TopicPartition]) -> None:
        self.prepare.forget_partitions(partitions)

    async def _bring_missing(self, partitions: Collection[int]) -> int:
        return await bring_missing(
            self.cache, self.settings.broker, self.topics, source=self.intake.topic, partitions=partitions
        )

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        """Start one of the loops that `on_stop` ends; Service's own futures are cancelled once, which may get lost."""
        self._loops.append(asyncio.create_task(self._guard(work)))

    async def _guard(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except asyncio.CancelledError:
            raise
        except Exception as error:  # a worker without one of its loops must not look alive
            if not self.should_stop:
                self._on_fatal(error if isinstance(error, Exception) else WorkerError(str(error)))
