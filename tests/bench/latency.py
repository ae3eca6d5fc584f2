"""Latency: under a rising rate to saturation, at a hurricane's peak, and at half of what the real classifier can do."""

from __future__ import annotations

import logging
from typing import Any

from tests.bench.arena import N_PARTITIONS, Arena
from tests.bench.contenders import Contender
from tests.bench.endtoend import end_to_end
from tests.bench.openload import Latencies, latencies, send
from tests.bench.pages import metrics_of, until_ready
from tests.bench.plan import Plan
from tests.bench.posts import Supply
from tests.bench.summary import Findings
from tests.bench.terms import Terms
from tests.bench.watch import Watch
from workers.setting_sources import load_settings

log = logging.getLogger(__name__)

PEAK_PER_S = 267  # posts a second at a hurricane's peak

_STALL_S = 120.0
_AT_ONCE_PER_S = 10_000


async def latency(arena: Arena, supply: Supply, plan: Plan, findings: Findings) -> None:
    """Measure with the sleeping classifier, then with the real one."""
    capacity_per_s = 1 / plan.seconds_per_post
    async with _Worker(arena, classifier=f"sleep:{plan.seconds_per_post}") as worker:
        await worker.step(supply.texts, rate_per_s=capacity_per_s / 4, for_s=1.0)  # warm
        rows = []
        for share in plan.shares:
            rate_per_s = share * capacity_per_s
            seen, late_s, _ = await worker.step(supply.texts, rate_per_s=rate_per_s, for_s=plan.latency_s)
            rows.append({"share_of_capacity": share, "rate_per_s": round(rate_per_s, 1), **_row(seen, late_s)})
            log.info("latency at %.0f posts/s: %s", rate_per_s, rows[-1])
        findings.table("latency_under_a_rising_rate", rows, seconds_per_post=plan.seconds_per_post)
        seen, late_s, _ = await worker.step(supply.texts, rate_per_s=PEAK_PER_S, for_s=plan.latency_s)
        findings.table("latency_at_267_posts_per_s", [{"rate_per_s": PEAK_PER_S, **_row(seen, late_s)}])
    await _real(arena, supply, plan, findings)


async def _real(arena: Arena, supply: Supply, plan: Plan, findings: Findings) -> None:
    """p99 at half the capacity over a batch's own time, with the real classifier on its posts with pictures."""
    linger_s = load_settings({}, environ={}).linger_s
    capacity_per_s, source = await _capacity(arena, supply, plan, findings)
    rate_per_s = capacity_per_s / 2
    async with _Worker(arena, classifier="checkpoint") as worker:
        posts, warm_s = supply.with_pictures, plan.n_capacity / _AT_ONCE_PER_S
        await worker.step(posts, rate_per_s=_AT_ONCE_PER_S, for_s=warm_s)
        ratios, rows = [], []
        for _ in range(plan.repetitions):
            seen, late_s, batch_s = await worker.step(posts, rate_per_s=rate_per_s, for_s=2 * plan.latency_s)
            ratios.append(seen.percentile(0.99) / (batch_s + linger_s))
            rows.append({"rate_per_s": round(rate_per_s, 2), "batch_s": round(batch_s, 4), **_row(seen, late_s)})
            log.info("half of the real classifier's capacity: %s", rows[-1])
    told = {"capacity_per_s": round(capacity_per_s, 2), "capacity_from": source, "linger_s": linger_s}
    findings.key("p99_over_batch", ratios, **told, n_posts=rows[0]["n_posts"])
    findings.table("latency_at_half_capacity", rows, device=arena.device)


async def _capacity(arena: Arena, supply: Supply, plan: Plan, findings: Findings) -> tuple[float, str]:
    """Return what the worker does in a second when all posts wait, and where that is from.

    It is what this command measured end to end; else, or where that had other batches than a worker by default has,
    one such run more.
    """
    known_per_s = None if arena.on_gpu else findings.median("end_to_end_worker")
    if known_per_s is not None:
        return known_per_s, "end_to_end_worker"
    max_batch = load_settings({}, environ={}).max_batch
    run = await end_to_end(arena, supply, "worker", plan.n_capacity, max_batch=max_batch)
    return run.rate_per_s, "a run of its own"


class _Worker:
    """A real worker that takes posts as they come."""

    def __init__(self, arena: Arena, *, classifier: str) -> None:
        self._arena = arena
        self._classifier = classifier
        self._n_sent = 0
        self._n_steps = 0

    async def __aenter__(self) -> _Worker:
        name = self._arena.run_name("latency")
        batch = load_settings({}, environ={}).max_batch
        self._terms: Terms = self._arena.terms(
            "classify", source=f"{name}.posts", name=name, classifier=self._classifier, max_batch=batch
        )
        await self._arena.empty_redis()
        await self._arena.make_worker_topics(self._terms.prefix, N_PARTITIONS)
        self._contender = Contender(self._arena, "worker", self._terms)
        try:
            await until_ready(self._terms.web_port)
        except BaseException:
            self._contender.stop()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        self._contender.stop()
        await self._arena.remove_topics(self._terms.source, self._terms.target)

    async def step(self, posts: Any, *, rate_per_s: float, for_s: float) -> tuple[Latencies, float, float]:
        """Send at a rate for so long; return the latencies, how late the load was, and a batch's own mean seconds."""
        before = metrics_of(self._terms.web_port)
        self._n_steps += 1
        sent = await send(
            self._arena.kafka,
            self._terms.source,
            N_PARTITIONS,
            posts,
            rate_per_s=rate_per_s,
            for_s=for_s,
            name=f"s{self._n_steps}",
        )
        await self._drained(len(sent.due_s))
        after = metrics_of(self._terms.web_port)
        seen = await latencies(self._arena.kafka, self._terms.target, sent)
        return seen, sent.late_s, _mean(before, after)

    async def _drained(self, n_posts: int) -> None:
        """Wait for the findings of what was sent."""
        self._n_sent += n_posts
        watch = Watch(self._arena.kafka, self._terms.target, N_PARTITIONS)
        await watch.until(self._n_sent, pid=self._contender.pid, is_alive=self._contender.is_alive, timeout_s=_STALL_S)


def _row(seen: Latencies, late_s: float) -> dict[str, Any]:
    return {
        "p50_s": round(seen.percentile(0.5), 4),
        "p99_s": round(seen.percentile(0.99), 4),
        "max_s": round(max(seen.values), 4),
        "n_posts": len(seen.values),
        "lost": seen.lost,
        "duplicated": seen.duplicated,
        "load_late_s": round(late_s, 4),
    }


def _mean(before: dict[str, float], after: dict[str, float]) -> float:
    name, labels = "sitrep_stage_seconds", "{stage=classify}"
    n = after.get(f"{name}_count{labels}", 0.0) - before.get(f"{name}_count{labels}", 0.0)
    total_s = after.get(f"{name}_sum{labels}", 0.0) - before.get(f"{name}_sum{labels}", 0.0)
    return total_s / n if n else float("nan")
