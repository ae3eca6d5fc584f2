"""Looks at a pipeline some times a second and keeps its gauges; knows when it stands still."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Final

from aiokafka.errors import KafkaError

if TYPE_CHECKING:
    from workers.pipeline import Pipeline

log = logging.getLogger(__name__)

_LOOK_S: Final = 0.25
_LAG_S: Final = 1.0  # the load policy acts on it
_LAG_TIMEOUT_S: Final = 5.0


class Gauges:
    """What one pipeline holds, and how far it is behind."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._caught_up_s = time.monotonic()
        self._lag = 0
        self._busy_s = 0.0
        self._n_expired = 0

    @property
    def stalled_s(self) -> float:
        """Seconds since an outcome was confirmed while posts wait, here or on their topic; 0 when none do."""
        intake = self._pipeline.intake
        if intake.n_in_flight == 0 and self._lag == 0:
            return 0.0
        return time.monotonic() - max(intake.last_progress_s, self._caught_up_s)

    async def run(self) -> None:
        """Keep the gauges until the pipeline stops."""
        last_lag_s = 0.0
        while not self._pipeline.should_stop:
            self._look()
            if time.monotonic() - last_lag_s >= _LAG_S:
                last_lag_s = time.monotonic()
                await self._measure_lag()
            await asyncio.sleep(_LOOK_S)

    def _look(self) -> None:
        pipeline, metrics = self._pipeline, self._pipeline.metrics
        if pipeline.intake.n_in_flight == 0 and self._lag == 0:
            self._caught_up_s = time.monotonic()
        metrics.in_flight.set(pipeline.intake.n_in_flight)
        metrics.in_flight_bytes.set(pipeline.intake.n_bytes_in_flight + pipeline.intake.n_bytes_held)
        metrics.cache_buffered.set(pipeline.cache_writer.n_buffered)
        metrics.triage.set(float(pipeline.load.triage))
        metrics.redis_up.set(float(pipeline.cache_writer.available))
        for calls, breaker in pipeline.breakers.items():
            metrics.redis_circuit.labels(calls).state(breaker.state)
        metrics.rebalances.set(pipeline.intake.n_rebalances)
        metrics.expired.inc(pipeline.intake.n_expired - self._n_expired)
        self._n_expired = pipeline.intake.n_expired
        if pipeline.inference is not None:
            metrics.queue_depth.set(len(pipeline.inference.batcher))
            busy_s = pipeline.inference.device.busy_s
            metrics.device_busy_s.inc(busy_s - self._busy_s)
            self._busy_s = busy_s

    async def _measure_lag(self) -> None:
        try:
            lags = await asyncio.wait_for(self._pipeline.intake.lag(), _LAG_TIMEOUT_S)
        except (KafkaError, TimeoutError) as error:
            log.info("lag unknown: %s", str(error) or type(error).__name__)
            return
        self._lag = sum(lags.values())
        # what is done and waits for an overtaken post before it is no load
        self._pipeline.load.update(max(0, self._lag - self._pipeline.intake.n_done), time.monotonic())
        metrics = self._pipeline.metrics
        metrics.lag.clear()
        for partition, lag in lags.items():
            metrics.lag.labels(str(partition)).set(lag)
