"""The classify stage: micro-batches to findings; a failing batch is split until the bad post stands alone."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from datetime import datetime

from model import Prediction
from stream.errors import InvalidRecord
from stream.headers import Cause, dead_letter_origin
from stream.intake import Accepted
from stream.records import ModelInfo, decode_prepared, encode
from workers.device import Computed, Device
from workers.errors import ClassifierHung, ClassifierTimeout
from workers.findings import check_prediction, example, make_alert, make_finding, now_utc
from workers.load import Reliefs, relieve
from workers.metrics import Metrics
from workers.outcomes import Decided, Job, Outcomes

log = logging.getLogger(__name__)

_STAGE = "classify"
_MAX_PUBLISHING = 4
_MAX_AHEAD = 2  # micro-batches at the device: the one it computes, and the next


class ClassifyStage:
    """Classifies micro-batches: one is computed, the next is made ready, and others are published at a time."""

    def __init__(
        self,
        *,
        device: Device,
        outcomes: Outcomes,
        metrics: Metrics,
        alert_threshold: float,
        max_batch: int,
        on_fatal: Callable[[BaseException], None],
        on_dead_letter: Callable[[Job], None] = lambda job: None,
        reliefs: Callable[[], Reliefs] = Reliefs,
        on_computed: Callable[[Sequence[Job], float], None] = lambda jobs, compute_s: None,
    ) -> None:
        classifier = device.classifier
        self._device = device
        self._outcomes = outcomes
        self._metrics = metrics
        self._alert_threshold = alert_threshold
        self._max_batch = max_batch
        self._on_fatal = on_fatal
        self._on_dead_letter = on_dead_letter
        self._reliefs = reliefs
        self._on_computed = on_computed
        self._model = ModelInfo(name=classifier.name, version=classifier.version, digest=classifier.digest)
        self._classes = tuple(classifier.classes)
        self._languages = tuple(classifier.languages)
        self._running: set[asyncio.Task[None]] = set()
        self._publishing: set[asyncio.Task[None]] = set()
        self._room = asyncio.Semaphore(_MAX_AHEAD)
        self._slots = asyncio.Semaphore(_MAX_PUBLISHING)

    async def wanted(self) -> None:
        """Wait until another micro-batch is wanted, so that it is formed no sooner; once before each `run`."""
        await self._room.acquire()

    async def run(self, jobs: Sequence[Job]) -> None:
        """Start on a micro-batch; never waits for it."""
        task = asyncio.create_task(self._run(jobs))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def idle(self) -> None:
        """Wait until every micro-batch so far is published."""
        while tasks := [*self._running, *self._publishing]:
            await asyncio.wait(tasks)

    def stop(self) -> None:
        """Give up what is not published yet; unconfirmed, the next worker handles it."""
        for task in (*self._running, *self._publishing):
            task.cancel()

    async def read_prepared(self, fetched: Sequence[Accepted]) -> list[Job]:
        """Return the jobs in records of the prepared topic; what is not one becomes a dead letter."""
        jobs = []
        for accepted in fetched:
            try:
                jobs.append(Job(accepted=accepted, prepared=decode_prepared(accepted.record.value)))
            except InvalidRecord as error:
                cause = Cause(reason=error.reason, stage=_STAGE, error=error)
                origin = dead_letter_origin(accepted.record.headers)
                await self._outcomes.dead_letter(accepted, cause, post_origin=origin)
        return jobs

    async def _run(self, jobs: Sequence[Job]) -> None:
        try:
            mine = [job for job in jobs if not job.accepted.lost]
            if mine:
                await self._classify(mine)
        except Exception as error:  # ours: a worker without its batches must not look alive
            self._on_fatal(error)
        finally:
            self._room.release()

    async def _classify(self, jobs: Sequence[Job]) -> None:
        self._metrics.batch_size.observe(len(jobs))
        self._metrics.batch_fill.observe(min(1.0, len(jobs) / self._max_batch))
        reliefs = self._reliefs()
        if reliefs.mode != "full":
            jobs = [Job(accepted=job.accepted, prepared=relieve(job.prepared, reliefs)) for job in jobs]
        decided: list[Decided] = []
        hung: ClassifierHung | None = None
        try:
            await self._decide(jobs, decided)
        except ClassifierHung as error:
            hung = error
        decided = [one for one in decided if not one.job.accepted.lost]
        if decided:
            await self._slots.acquire()
            task = asyncio.create_task(self._publish(decided))
            self._publishing.add(task)
            task.add_done_callback(self._publishing.discard)
        if hung is not None:
            # what was decided is published first: else the next worker would hang on the same posts for ever
            await asyncio.gather(*self._publishing)
            self._on_fatal(hung)

    async def _publish(self, decided: list[Decided]) -> None:
        start = time.perf_counter()
        try:
            await self._outcomes.publish(decided)
        except Exception as error:  # deliveries failed beyond their bound: nothing is acknowledged, start anew
            self._on_fatal(error)
        finally:
            self._slots.release()
            self._metrics.stage_s.labels("publish").observe(time.perf_counter() - start)

    async def _decide(self, jobs: Sequence[Job], decided: list[Decided]) -> None:
        """Add a finding to `decided` for each job that is not a dead letter."""
        try:
            computed = await self._compute(jobs)
            predictions = computed.predictions
            if len(predictions) != len(jobs):
                raise ValueError(f"{len(predictions)} predictions for {len(jobs)} posts")
        except ClassifierHung:
            raise
        except Exception as error:  # whatever a model raises, the bad post is found and the rest goes on
            await self._split(jobs, error, decided)
            return
        now = now_utc()
        for job, prediction in zip(jobs, predictions, strict=True):
            try:
                decided.append(self._decided(job, prediction, now))
            except Exception as error:  # this one prediction cannot be published
                await self._dead_letter(job, error)

    async def _compute(self, jobs: Sequence[Job]) -> Computed:
        start = time.perf_counter()
        encoded = await self._device.encode([example(job.prepared) for job in jobs])
        self._metrics.stage_s.labels("encode").observe(time.perf_counter() - start)
        computed = await self._device.predict(encoded)
        self._metrics.stage_s.labels("classify").observe(computed.compute_s)
        self._on_computed(jobs, computed.compute_s)
        return computed

    async def _split(self, jobs: Sequence[Job], error: Exception, decided: list[Decided]) -> None:
        kind = _reason(error)
        self._metrics.classifier_errors.labels(kind).inc()
        if len(jobs) == 1:
            await self._dead_letter(jobs[0], error)
            return
        log.warning("a micro-batch of %d posts failed (%s), split", len(jobs), kind)
        # after a hang one by one, since each further hang costs a thread; else in halves
        size = 1 if isinstance(error, ClassifierTimeout) else (len(jobs) + 1) // 2
        for start in range(0, len(jobs), size):
            await self._decide(jobs[start : start + size], decided)

    def _decided(self, job: Job, prediction: Prediction, now: datetime) -> Decided:
        check_prediction(prediction, self._classes)
        finding = make_finding(job.prepared, prediction, self._model, languages=self._languages, now=now)
        return Decided(
            job=job,
            post_id=finding.post_id.encode(),
            finding_id=finding.id,
            label=finding.label,
            value=encode(finding),
            alert=make_alert(finding, threshold=self._alert_threshold),
        )

    async def _dead_letter(self, job: Job, error: Exception) -> None:
        self._on_dead_letter(job)
        cause = Cause(reason=_reason(error), stage=_STAGE, error=error)
        await self._outcomes.dead_letter(job.accepted, cause, post_origin=job.prepared.origin)


def _reason(error: Exception) -> str:
    if isinstance(error, ClassifierTimeout):
        return "classifier_timeout"
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return "out_of_memory"
    if type(error).__name__ == "InvalidPrediction":
        return "invalid_prediction"
    return "classifier_error"
