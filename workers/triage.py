"""Rates posts that wait, while the policy says so, so that likely damage and casualties go first; decides nothing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from workers.device import Device
from workers.errors import ClassifierHung
from workers.metrics import Metrics
from workers.outcomes import Job
from workers.waiting import WaitingRoom

log = logging.getLogger(__name__)

_LOOK_S: Final = 0.05
_PER_CALL: Final = 64


class Triage:
    """A cheap first look at the texts of a waiting room, some at a time, between the batches."""

    def __init__(
        self,
        room: WaitingRoom[Job],
        device: Device,
        metrics: Metrics,
        *,
        is_on: Callable[[], bool],
        urgent_prob: float,
        on_fatal: Callable[[BaseException], None],
    ) -> None:
        self._room = room
        self._device = device
        self._metrics = metrics
        self._is_on = is_on
        self._urgent_prob = urgent_prob
        self._on_fatal = on_fatal

    async def run(self) -> None:
        """Rate until cancelled; returns at once when the classifier has no first look."""
        if not self._device.can_triage:
            return
        while True:
            if not self._is_on() or not await self.rate_some():
                await asyncio.sleep(_LOOK_S)

    async def rate_some(self) -> int:
        """Rate the next posts and return how many; a look that fails leaves them in their order."""
        some = self._room.to_rate(_PER_CALL)
        if not some:
            return 0
        try:
            probs = await self._device.triage([waiting.post.prepared.post.text for waiting in some])
            urgent = [prob >= self._urgent_prob for prob in probs]
            self._room.rate(some, urgent)
        except ClassifierHung as error:
            self._on_fatal(error)
            return len(some)
        except Exception as error:  # whatever a model raises: the posts are classified all the same, in order
            log.warning("triage of %d posts failed (%s), they keep their order", len(some), type(error).__name__)
            self._metrics.classifier_errors.labels("triage").inc()
            return len(some)
        n_urgent = sum(urgent)
        self._metrics.triaged.labels("urgent").inc(n_urgent)
        self._metrics.triaged.labels("other").inc(len(urgent) - n_urgent)
        return len(some)
