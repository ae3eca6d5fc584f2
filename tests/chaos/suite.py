"""The scenarios by name, what each needs, and how one is run; the same for pytest and for the command."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from tests.chaos import caches, crashes, deliveries, flood, network, outages, poison, soak
from tests.chaos.apache import ApacheKafka
from tests.chaos.arena import Arena, Row
from tests.chaos.brokers import Broker, Emulator, Foreign

Scenario = Callable[[Arena], Coroutine[Any, Any, Row]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One scenario and what it needs; `short` says whether it is part of the short version."""

    run: Scenario
    short: bool = True
    apache_kafka: bool = False
    breaks_broker: bool = False
    many_workers: bool = False
    proxied: bool = False

    def unfit(self, broker: type[Broker], *, short: bool) -> str:
        """Return why the scenario cannot be played on such a broker; empty when it can."""
        if short and not self.short:
            return "not part of the short version"
        if self.apache_kafka and not issubclass(broker, ApacheKafka):
            return "it needs Apache Kafka (--kafka-home)"
        if self.many_workers and issubclass(broker, Emulator):
            return "a member that vanishes amid a rebalance holds the emulator's group for good"
        if self.breaks_broker and issubclass(broker, Emulator):
            return "the emulator, killed, forgets what it confirmed last"
        if self.breaks_broker and issubclass(broker, Foreign):
            return "it breaks the broker, and this one is yours"
        if self.proxied and issubclass(broker, Foreign):
            return "its proxy stands before a broker of this machine alone"
        return ""


SCENARIOS: dict[str, Entry] = {
    "workers-killed": Entry(run=crashes.workers_killed),
    "workers-killed-exactly-once": Entry(run=crashes.workers_killed_exactly_once, short=False),
    "broker-killed": Entry(run=outages.broker_killed, breaks_broker=True),
    "disk-full": Entry(run=outages.disk_full, breaks_broker=True),
    "quota": Entry(run=outages.throttled, apache_kafka=True, short=False),
    "leader-killed": Entry(run=outages.leader_killed, apache_kafka=True),
    "majority-killed": Entry(run=outages.majority_killed, apache_kafka=True),
    "redis-killed": Entry(run=caches.redis_killed, short=False),
    "redis-emptied": Entry(run=caches.redis_emptied),
    "redis-unreachable": Entry(run=caches.redis_unreachable),
    "redis-slow": Entry(run=caches.redis_slow, short=False),
    "worker-ends-without-redis": Entry(run=caches.worker_ends_without_redis),
    "poison": Entry(run=poison.poison),
    "classifier-faults": Entry(run=poison.classifier_faults),
    "classifier-hangs": Entry(run=poison.classifier_hangs),
    "answers-lost": Entry(run=deliveries.answers_lost, proxied=True),
    "producer-gives-up": Entry(run=deliveries.producer_gives_up, proxied=True, short=False),
    "record-too-large": Entry(run=deliveries.record_too_large),
    "slow-and-lossy": Entry(run=network.slow_and_lossy, proxied=True),
    "half-open": Entry(run=network.half_open, proxied=True, short=False),
    "network-cut": Entry(run=network.network_cut, proxied=True),
    "rebalances": Entry(run=crashes.workers_come_and_go, many_workers=True),
    "worker-paused": Entry(run=crashes.worker_paused, many_workers=True),
    "flood": Entry(run=flood.flooded, short=False),
    "soak": Entry(run=soak.soak, short=False),
}
