"""Metrics of whole batches: the same numbers as one observation after another."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from workers.metrics import BatchHistogram


def _scrape(*batches: list[float]) -> bytes:
    registry = CollectorRegistry()
    histogram = BatchHistogram("x_seconds", "X", buckets=(0.1, 1, 10), registry=registry)
    for batch in batches:
        histogram.observe_many(batch)
    return b"\n".join(line for line in generate_latest(registry).splitlines() if b"_created" not in line)


@pytest.mark.parametrize(
    "amounts", [[0.5], [0.1, 0.1], [0.25, 0.75], [0.0, 0.5, 5.0, 50.0, 500.0], [20.0, 30.0]], ids=str
)
def test_batch_counts_as_its_single_amounts_do(amounts: list[float]) -> None:
    assert _scrape(amounts) == _scrape(*([amount] for amount in amounts))
    assert f'le="1.0"}} {sum(amount <= 1 for amount in amounts)}.0'.encode() in _scrape(amounts)


def test_empty_batch_counts_nothing() -> None:
    assert _scrape([]) == _scrape()
