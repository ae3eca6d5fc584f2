"""The real classifier end to end, against the classifier alone and against the peers with the same one."""

from __future__ import annotations

import logging
import math
from typing import Any

from tests.bench.arena import N_PARTITIONS, Arena
from tests.bench.contenders import Run, counts, measured, printed
from tests.bench.plan import Plan
from tests.bench.posts import Supply, load
from tests.bench.summary import Findings
from tests.bench.terms import Terms
from tests.bench.wire import TITLES
from workers.setting_sources import load_settings

log = logging.getLogger(__name__)

_STALL_S = 120.0
_GPU_BATCH = 512


async def classify(arena: Arena, supply: Supply, plan: Plan, findings: Findings) -> None:
    """Measure the classifier alone, the whole worker and the peers in turn, each as often."""
    max_batch = _GPU_BATCH if arena.on_gpu else load_settings({}, environ={}).max_batch
    source = "classify.posts"
    n_posts = await _pilot(arena, supply, plan, max_batch)
    await arena.make_topic(source, N_PARTITIONS)
    await load(arena.kafka, source, N_PARTITIONS, supply.posts(n_posts))
    alone: list[dict[str, Any]] = []
    runs: dict[str, list[Run]] = {name: [] for name in ("worker", *plan.classify_peers)}
    for _ in range(plan.repetitions):
        alone.append(await printed(arena, "alone", _alone(arena, source, max_batch), timeout_s=600))
        log.info("classifier alone: %.1f posts/s", alone[-1]["posts_per_s"])
        for name, some in runs.items():
            some.append(await end_to_end(arena, supply, name, n_posts, max_batch=max_batch, source=source))
            log.info("classify %s: %.1f posts/s", name, some[-1].rate_per_s)
    await arena.remove_topics(source)
    _enter(findings, arena, alone, runs["worker"])
    for name, some in runs.items():
        rates = [_told(run.rate_per_s, alone) for run in some]
        findings.figure(f"end_to_end_{name}", rates, unit="posts/s", name=TITLES[name], n_posts=n_posts, **counts(some))


async def end_to_end(arena: Arena, supply: Supply, name: str, n_posts: int, *, max_batch: int, source: str = "") -> Run:
    """Run one contender with the real classifier; a peer reads `source`, the worker a topic of its own."""
    own = arena.run_name(f"classify-{name}")
    mine = f"{own}.posts" if name == "worker" else source
    terms = arena.terms("classify", source=mine, name=own, classifier="checkpoint", max_batch=max_batch)
    return await measured(arena, name, terms, n_posts, records=supply.posts(n_posts), stall_s=_STALL_S)


def whole_batches(n_posts: int, max_batch: int) -> int:
    """Return how many of the posts fill batches, of which there are two at least: naive Faust waits to fill each."""
    return max(2, n_posts // max_batch) * max_batch


def _told(rate_per_s: float, alone: list[dict[str, Any]]) -> float:
    """The rate, or not a number where it is far above the classifier's own.

    Such an output came in one burst after all of the work (Bytewax does so), and its growth tells nothing.
    """
    return rate_per_s if rate_per_s < 2 * max(one["posts_per_s"] for one in alone) else math.nan


def _enter(findings: Findings, arena: Arena, alone: list[dict[str, Any]], ours: list[Run]) -> None:
    rates = [one["posts_per_s"] for one in alone]
    kind = "gpu" if arena.on_gpu else "cpu"
    findings.key(
        f"end_to_end_over_classifier_{kind}",
        [run.rate_per_s / rate for run, rate in zip(ours, rates, strict=True)],
        device=arena.device,
    )
    findings.figure("classifier_alone", rates, unit="posts/s", name="classifier alone", n_posts=alone[0]["n_posts"])
    findings.figure("decode_alone", [one["decoded_per_s"] for one in alone], unit="posts/s", name="decoding alone")
    samples = [run.samples for run in ours if run.samples is not None]
    findings.figure(
        "device_busy_share",
        [one.per_second("sitrep_device_busy_seconds_total") for one in samples],
        unit="share of the time from the first batch on",
    )
    findings.figure("batch_fill", [one.mean("sitrep_batch_fill_ratio") for one in samples], unit="share of max_batch")
    findings.figure("cpu_s_per_1000_posts", [1000 * run.cpu_s_per_post for run in ours], unit="s")
    findings.figure("worker_rss_mb", [run.usage.peak_rss_bytes / 1e6 for run in ours], unit="MB, with its children")
    findings.figure(
        "rss_beyond_model_classifying_mb",
        [(run.usage.peak_rss_bytes - one["rss_bytes"]) / 1e6 for run, one in zip(ours, alone, strict=True)],
        unit="MB, with its children",
    )


async def _pilot(arena: Arena, supply: Supply, plan: Plan, max_batch: int) -> int:
    """Return how many posts the classifier alone can do in the planned time."""
    source = "pilot.posts"
    if arena.on_gpu:
        return plan.n_classified
    n_posts = min(plan.n_classified, 2 * max_batch)
    if n_posts == plan.n_classified:
        return n_posts
    await arena.make_topic(source, N_PARTITIONS)
    await load(arena.kafka, source, N_PARTITIONS, supply.posts(n_posts))
    rate_per_s = (await printed(arena, "alone", _alone(arena, source, max_batch), timeout_s=600))["posts_per_s"]
    await arena.remove_topics(source)
    return whole_batches(min(plan.n_classified, int(plan.classify_s * rate_per_s)), max_batch)


def _alone(arena: Arena, source: str, max_batch: int) -> Terms:
    name = arena.run_name("alone")
    return arena.terms("classify", source=source, name=name, classifier="checkpoint", max_batch=max_batch)
