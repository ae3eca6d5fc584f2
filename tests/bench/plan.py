"""How much of everything a benchmark does: in full about 25 minutes, in short well under one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

SECTIONS = ("bare", "full", "inference", "classify", "latency", "scaling", "backlog")
GPU_SECTIONS = ("gpu", "classify")

TAKE: Final = 256  # posts that naive Faust takes at once
# from one checkpoint of Quix Streams to the next in the full job; its default, five seconds, would be rarer still
CHECKPOINT_POSTS: Final = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Numbers of posts by contender, repetitions, and seconds; a contender that is left out does not take part.

    Naive Faust has whole batches and, in the full job, Quix Streams whole checkpoints, so that neither waits at its
    end; the others wait for no more than there is. `n_classified` bounds the posts of a run with the real
    classifier, which is to take `classify_s`. A small backlog is filled until `n_small` posts are done.
    """

    repetitions: int
    bare: Mapping[str, int]
    full: Mapping[str, int]
    full_batch: int
    classify_peers: tuple[str, ...]
    classify_s: float
    n_classified: int
    n_inferred: int
    latency_s: float
    n_capacity: int
    shares: tuple[float, ...]
    seconds_per_post: float
    workers: tuple[int, ...]
    n_scaling: int
    scaling_seconds_per_post: float
    scaling_repetitions: int
    small_backlogs: tuple[int, ...]
    n_small: int
    large_backlogs: tuple[int, ...]
    backlog_repetitions: int


FULL = Plan(
    repetitions=5,
    bare={
        "limit": 400_000,
        "sitrep": 400_000,
        "quix": 150_000,
        "bytewax": 150_000,
        "aiokafka": 60_000,
        "faust": 47 * TAKE,
    },
    full={
        "worker": 300_000,
        "quix": 6 * CHECKPOINT_POSTS,
        "bytewax": 100_000,
        "aiokafka": 80_000,
        "faust": 63 * TAKE,
    },
    full_batch=1_024,
    classify_peers=("quix", "bytewax", "aiokafka", "faust"),
    classify_s=12.0,
    n_classified=2_000,
    n_inferred=60,
    latency_s=8.0,
    n_capacity=240,
    shares=(0.1, 0.25, 0.5, 0.75, 0.9, 1.0, 1.1),
    seconds_per_post=0.002,
    workers=(1, 2, 4),
    n_scaling=2_000,
    scaling_seconds_per_post=0.004,
    scaling_repetitions=3,
    small_backlogs=(1_000, 10_000),
    n_small=40_000,
    large_backlogs=(100_000, 1_000_000),
    backlog_repetitions=2,
)

# the classifier is quick there, and its start is what takes time
ON_GPU = replace(FULL, repetitions=1, classify_peers=(), n_classified=6_000)

SHORT = Plan(
    repetitions=1,
    bare={"limit": 4_000, "sitrep": 4_000, "aiokafka": 2_000},
    full={"worker": 2_000, "aiokafka": 1_000},
    full_batch=1_024,
    classify_peers=(),
    classify_s=1.0,
    n_classified=12,
    n_inferred=4,
    latency_s=1.0,
    n_capacity=8,
    shares=(0.5,),
    seconds_per_post=0.002,
    workers=(1, 2),
    n_scaling=200,
    scaling_seconds_per_post=0.004,
    scaling_repetitions=1,
    small_backlogs=(200,),
    n_small=400,
    large_backlogs=(1_000,),
    backlog_repetitions=1,
)
