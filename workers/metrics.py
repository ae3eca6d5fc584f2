"""What the worker reports to Prometheus: base units, few fixed labels, on a registry that it is given."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter as Tally
from collections.abc import Sequence
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Enum, Gauge, Histogram, Info

from workers.load import MODES

_LATENCY_S: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900)
_STAGE_S: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_BATCH: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class BatchHistogram(Histogram):
    """A histogram that takes the observations of a whole batch at the price of a few."""

    def observe_many(self, amounts: Sequence[float]) -> None:
        """Observe each of the amounts; those below 0, of clocks that differ, count as 0."""
        if not amounts:
            return
        if min(amounts) < 0:
            amounts = [max(0.0, amount) for amount in amounts]
        self._sum.inc(sum(amounts))
        lowest, highest = (bisect_left(self._upper_bounds, amount) for amount in (min(amounts), max(amounts)))
        if lowest == highest:  # as for posts that came together
            self._buckets[lowest].inc(len(amounts))
            return
        for index, n in Tally(bisect_left(self._upper_bounds, amount) for amount in amounts).items():
            self._buckets[index].inc(n)


class Metrics:
    """All metrics of one worker."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self.posts = Counter("sitrep_posts", "Posts by outcome", ["outcome"], registry=registry)
        self.expired = Counter(
            "sitrep_expired_posts", "Posts that their topic deleted before they were read", registry=registry
        )
        self.findings = Counter("sitrep_findings", "Findings by class", ["label"], registry=registry)
        self.alerts = Counter("sitrep_alerts", "Alerts raised", registry=registry)
        self.dead_letters = Counter("sitrep_dead_letters", "Dead letters by reason", ["reason"], registry=registry)
        self.image_failures = Counter(
            "sitrep_image_failures", "Images that could not be used, by reason", ["reason"], registry=registry
        )
        self.redis_errors = Counter("sitrep_redis_errors", "Calls to Redis that failed", registry=registry)
        self.classifier_errors = Counter(
            "sitrep_classifier_errors", "Micro-batches that failed and were split", ["kind"], registry=registry
        )
        self.device_busy_s = Counter(
            "sitrep_device_busy_seconds", "Time the classifier's thread was computing", registry=registry
        )
        self.batch_size = Histogram(
            "sitrep_batch_size_posts", "Posts in a micro-batch", buckets=_BATCH, registry=registry
        )
        self.batch_fill = Histogram(
            "sitrep_batch_fill_ratio",
            "Share of the largest micro-batch that was used",
            buckets=[i / 10 for i in range(1, 11)],
            registry=registry,
        )
        self.stage_s = Histogram(
            "sitrep_stage_seconds",
            "Time per stage (decode: one fetch; image: one picture; encode, classify, publish: one micro-batch)",
            ["stage"],
            buckets=_STAGE_S,
            registry=registry,
        )
        self.latency_s = BatchHistogram(
            "sitrep_end_to_end_latency_seconds",
            "Finding published minus post accepted",
            buckets=_LATENCY_S,
            registry=registry,
        )
        self.in_flight = Gauge("sitrep_in_flight_posts", "Posts accepted and not acknowledged", registry=registry)
        self.in_flight_bytes = Gauge("sitrep_in_flight_bytes", "Bytes of these, decoded too", registry=registry)
        self.queue_depth = Gauge("sitrep_queue_depth_posts", "Posts that wait for a micro-batch", registry=registry)
        self.cache_buffered = Gauge("sitrep_cache_buffered_findings", "Findings that wait for Redis", registry=registry)
        self.redis_up = Gauge("sitrep_redis_up", "1 while Redis answers", registry=registry)
        self.redis_circuit = Enum(
            "sitrep_redis_circuit",
            "The circuit breakers on Redis",
            ["calls"],
            states=["closed", "half_open", "open"],
            registry=registry,
        )
        self.lag = Gauge(
            "sitrep_consumer_lag_posts", "Log-end offset minus committed offset", ["partition"], registry=registry
        )
        self.mode = Enum("sitrep_mode", "What findings are made from under load", states=list(MODES), registry=registry)
        self.triage = Gauge("sitrep_triage_active", "1 while likely damage and casualties go first", registry=registry)
        self.triaged = Counter("sitrep_triaged_posts", "Posts that triage rated", ["verdict"], registry=registry)
        self.overtaken_s = Histogram(
            "sitrep_overtaken_seconds",
            "How long after its turn the first post of a micro-batch was taken",
            buckets=_LATENCY_S,
            registry=registry,
        )
        self.rebalances = Gauge("sitrep_rebalances", "Assignments since the start", registry=registry)
        self.build = Info("sitrep_build", "Version of Sitrep and of the model", registry=registry)
