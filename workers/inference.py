"""From prepared posts to the device and on: who waits, in which batch they go, what is spared under load."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from workers.batcher import MicroBatcher
from workers.classify import ClassifyStage
from workers.device import Classifier, Device
from workers.load import LoadPolicy
from workers.metrics import Metrics
from workers.outcomes import Job, Outcomes
from workers.pace import Pace
from workers.settings import Settings
from workers.triage import Triage
from workers.waiting import Shape, WaitingRoom


class Inference:
    """The parts around one device, with the room in which posts wait for it."""

    def __init__(
        self,
        settings: Settings,
        *,
        room: WaitingRoom[Job],
        classifier: Classifier,
        outcomes: Outcomes,
        metrics: Metrics,
        load: LoadPolicy,
        on_dead_letter: Callable[[Job], None],
        on_fatal: Callable[[BaseException], None],
    ) -> None:
        self._pace = Pace(max_batch=settings.max_batch, target_latency_s=settings.target_latency_s)
        self.batcher: MicroBatcher[Job] = MicroBatcher(
            room, size=self._pace.size, linger_s=settings.linger_s, on_overtaken=metrics.overtaken_s.observe
        )
        self.device = Device(classifier, timeout_s=settings.classify_timeout_s, max_hung=settings.max_hung_batches)
        self.classify = ClassifyStage(
            device=self.device,
            outcomes=outcomes,
            metrics=metrics,
            alert_threshold=settings.alert_threshold or classifier.alert_threshold,
            max_batch=settings.max_batch,
            on_fatal=on_fatal,
            on_dead_letter=on_dead_letter,
            reliefs=lambda: load.reliefs,
            on_computed=self._computed,
        )
        self.triage = Triage(
            room,
            self.device,
            metrics,
            is_on=lambda: load.triage,
            urgent_prob=settings.triage_urgent_prob,
            on_fatal=on_fatal,
        )

    async def form_batches(self, put: Callable[[list[Job]], Awaitable[object]]) -> None:
        """Put micro-batches, each as late as the device allows, until cancelled."""
        while True:
            await self.classify.wanted()
            await put(await self.batcher.next_batch())

    def stop(self) -> None:
        """Give up what is not published yet, and let the device's threads end."""
        self.classify.stop()
        self.device.stop()

    def _computed(self, jobs: Sequence[Job], compute_s: float) -> None:
        self._pace.observe(shape(jobs[0])[0], len(jobs), compute_s)


def shape(job: Job) -> Shape:
    """Return whether the post has a picture, and the length of its text."""
    return "text" if job.prepared.image is None else "image", len(job.prepared.post.text)
