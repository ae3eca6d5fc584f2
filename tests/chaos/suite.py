"""The scenarios by name, what each needs, and how one is run; the same for pytest and for the command."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tests.chaos import crashes, outages, poison
from tests.chaos.arena import Arena, Row
from tests.chaos.brokers import ApacheKafka, Broker, Foreign

Scenario = Callable[[Arena], Awaitable[Row]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One scenario; `short` says whether it is part of the short version, `apache` that it needs the real broker."""

    run: Scenario
    short: bool = True
    apache: bool = False
    breaks_broker: bool = False

    def unfit(self, broker: Broker, *, short: bool) -> str:
        """Return why the scenario cannot be played here; empty when it can."""
        if short and not self.short:
            return "not part of the short version"
        if self.apache and not isinstance(broker, ApacheKafka):
            return "it needs Apache Kafka (--kafka-home)"
        if self.breaks_broker and isinstance(broker, Foreign):
            return "it breaks the broker, and this one is yours"
        return ""


SCENARIOS: dict[str, Entry] = {
    "workers-killed": Entry(run=crashes.workers_killed, short=False),
    "broker-killed": Entry(run=outages.broker_killed, breaks_broker=True, short=False),
    "leader-killed": Entry(run=outages.leader_killed, short=False, apache=True),
    "redis-killed": Entry(run=outages.redis_killed),
    "redis-emptied": Entry(run=outages.redis_emptied),
    "poison": Entry(run=poison.poison),
    "classifier-faults": Entry(run=poison.classifier_faults),
    "classifier-hangs": Entry(run=poison.classifier_hangs),
    "rebalances": Entry(run=crashes.workers_come_and_go, short=False),
    "worker-paused": Entry(run=crashes.worker_paused, short=False),
}
