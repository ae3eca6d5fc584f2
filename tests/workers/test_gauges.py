"""What the gauges make of what a pipeline holds."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from prometheus_client import CollectorRegistry

from workers.gauges import Gauges
from workers.metrics import Metrics


async def test_policy_is_not_told_of_what_is_done_already() -> None:
    """A thousand posts may be done behind one that was overtaken: the lag is Kafka's, the load is not."""
    told: list[int] = []

    async def lag() -> dict[int, int]:
        return {0: 900, 3: 200}

    metrics = Metrics(CollectorRegistry())
    load = SimpleNamespace(update=lambda posts, now_s: told.append(posts))
    pipeline: Any = SimpleNamespace(intake=SimpleNamespace(lag=lag, n_done=1_000), load=load, metrics=metrics)
    await Gauges(pipeline)._measure_lag()
    assert told == [100]
    assert metrics.registry.get_sample_value("sitrep_consumer_lag_posts", {"partition": "0"}) == 900
