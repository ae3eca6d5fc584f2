"""The README's tables of the benchmark: what they say beside the figures."""

from __future__ import annotations

from typing import Any

import pytest

from deploy.bench_tables import bench_tables


@pytest.fixture
def summary() -> dict[str, Any]:
    """Results of the real classifier, one of which could not be told."""
    row = {"rate_per_s": 5, "n_posts": 80, "p50_s": 0.1, "p99_s": 0.2, "lost": 0, "duplicated": 0}
    return {
        "about": {"broker": "b", "redis": "r", "machine": "m", "posts": "p"},
        "p99_over_batch": {
            "what": "p99", "median": 1.5, "spread": [1.5, 1.5], "at_most": 3, "reached": True, "capacity_per_s": 10.0,
        },
        "figures": {
            "end_to_end_worker": {"median": 12.5, "spread": [12.0, 13.0], "runs": [12.0, 13.0], "n_posts": 64},
            "end_to_end_bytewax": {"median": None, "spread": None, "runs": [], "n_posts": 64},
            "latency_at_half_capacity": {"rows": [row]},
        },
    }  # fmt: skip


def test_rates_say_how_many_runs_they_are_of(summary: dict[str, Any]) -> None:
    assert "runs of 64 posts; those of which a rate could be told: Sitrep 2, Bytewax 0." in bench_tables(summary)
    summary["figures"]["end_to_end_bytewax"]["n_dropped"] = 2
    assert "Sitrep 2, Bytewax 0 of 2." in bench_tables(summary)


def test_half_the_capacity_says_what_it_is_half_of(summary: dict[str, Any]) -> None:
    """It may be another capacity than the one of the rates."""
    assert "| real classifier, half its capacity | 5 | 80 | 100 | 200 | 0 | 0 |" in bench_tables(summary)
    assert (
        "half of 10 posts/s (one run that counts sending and draining), which is 40% of the 12.5 in the table of rates"
        in bench_tables(summary)
    )
    summary["p99_over_batch"] |= {"capacity_from": "end_to_end_worker", "capacity_per_s": 12.5}
    assert "half of 12.5 posts/s (the median above), which is 50% of the 12.5" in bench_tables(summary)
