"""How the rate grows with the workers, when a classifier that sleeps leaves the processors to all of them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass

from tests.bench.arena import Arena
from tests.bench.contenders import Contender, counts
from tests.bench.pages import metrics_of, until_ready
from tests.bench.plan import Plan
from tests.bench.posts import Supply, load
from tests.bench.summary import Findings
from tests.bench.watch import Watch, count

log = logging.getLogger(__name__)

_SHARE_OUT_S = 40.0
_STALL_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rate:
    per_s: float
    lost: int
    duplicated: int


async def scaling(arena: Arena, supply: Supply, plan: Plan, findings: Findings) -> None:
    """Run with as many partitions as workers, each with the same number of posts."""
    rates: dict[int, list[_Rate]] = {n_workers: [] for n_workers in plan.workers}
    for _ in range(plan.scaling_repetitions):
        for n_workers in plan.workers:
            rates[n_workers].append(await _rate(arena, supply, plan, n_workers))
            log.info("%d workers: %s", n_workers, rates[n_workers][-1])
    rows = []
    for n_workers, runs in rates.items():
        shares = [rate.per_s / (n_workers * one.per_s) for rate, one in zip(runs, rates[1], strict=True)]
        findings.figure(f"scaling_{n_workers}_rate", [run.per_s for run in runs], unit="posts/s", **counts(runs))
        rows.append({"workers": n_workers, "efficiency": round(sorted(shares)[len(shares) // 2], 4)})
        if n_workers == 4:
            findings.key("scaling_4_workers", shares)
    findings.table("scaling", rows, seconds_per_post=plan.scaling_seconds_per_post)


async def _rate(arena: Arena, supply: Supply, plan: Plan, n_workers: int) -> _Rate:
    name = arena.run_name(f"scaling-{n_workers}")
    first = arena.terms(
        "classify", source=f"{name}.posts", name=name, classifier=f"sleep:{plan.scaling_seconds_per_post}"
    )
    await arena.empty_redis()
    await arena.make_worker_topics(first.prefix, n_workers)
    workers: list[Contender] = []
    try:
        ports = []
        for number in range(n_workers):
            terms = arena.terms("classify", source=first.source, name=name, classifier=first.classifier)
            workers.append(Contender(arena, "worker", terms, log_name=f"worker-{number}"))
            ports.append(terms.web_port)
        await asyncio.gather(*(until_ready(port) for port in ports))
        await _until_shared_out(ports)
        n_posts = n_workers * plan.n_scaling
        await load(arena.kafka, first.source, n_workers, supply.text_posts(n_posts))
        watch = Watch(arena.kafka, first.target, n_workers)
        growth, _ = await watch.until(
            n_posts, pid=workers[0].pid, is_alive=lambda: all(one.is_alive() for one in workers), timeout_s=_STALL_S
        )
    finally:
        for worker in workers:
            worker.stop()
    counted = await count(arena.kafka, first.target, n_posts)
    await arena.remove_topics(first.source, first.target)
    return _Rate(per_s=growth.rate_per_s, lost=counted.lost, duplicated=counted.duplicated)


async def _until_shared_out(ports: Sequence[int]) -> None:
    """Return once each worker has one partition of its own: the last one to join moves them."""
    deadline_s = time.monotonic() + _SHARE_OUT_S
    while True:
        held = []
        for port in ports:
            metrics = await asyncio.to_thread(metrics_of, port)
            held.append([name for name in metrics if name.startswith("sitrep_consumer_lag_posts{")])
        if all(len(one) == 1 for one in held) and len({name for one in held for name in one}) == len(ports):
            return
        if time.monotonic() > deadline_s:
            raise RuntimeError(f"the workers share the partitions as {held} after {_SHARE_OUT_S:g} s")
        await asyncio.sleep(0.2)
