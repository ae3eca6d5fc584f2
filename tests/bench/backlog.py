"""What a post costs, and what the worker holds, when a thousand posts wait and when a million do."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from tests.bench.arena import N_PARTITIONS, Arena
from tests.bench.contenders import Contender, Run, counts, measured, printed
from tests.bench.pages import until_ready
from tests.bench.plan import Plan
from tests.bench.posts import Supply, load
from tests.bench.stored import check_stored
from tests.bench.summary import Findings
from tests.bench.watch import Watch, count, cpu_s_of

log = logging.getLogger(__name__)

_STALL_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rounds:
    """What a post took of backlogs that were filled one after the other, and what became of all posts."""

    cpu_s_per_post: float
    lost: int
    duplicated: int


async def backlog(arena: Arena, supply: Supply, plan: Plan, findings: Findings) -> None:
    """Compare processor time per post; a small backlog is filled again and again until it is a long run too."""
    rounds: dict[int, list[_Rounds]] = {n_posts: [] for n_posts in plan.small_backlogs}
    waited: dict[int, list[Run]] = {n_posts: [] for n_posts in plan.large_backlogs}
    idle = await printed(arena, "idle", arena.terms("full", source="", name=arena.run_name("idle")), timeout_s=60)
    for _ in range(plan.backlog_repetitions):
        for n_posts, some in rounds.items():
            some.append(await _rounds(arena, supply, plan, n_posts))
            log.info("a post costs %.1f µs at a backlog of %d", 1e6 * some[-1].cpu_s_per_post, n_posts)
        for n_posts, runs in waited.items():
            runs.append(await _waited(arena, supply, plan, n_posts))
            log.info("a post costs %.1f µs at a backlog of %d", 1e6 * runs[-1].cpu_s_per_post, n_posts)
    for n_posts, some in rounds.items():
        _enter_cost(findings, n_posts, some, n_measured=plan.n_small)
    for n_posts, runs in waited.items():
        _enter_cost(findings, n_posts, runs, n_measured=n_posts)
        rates = [run.rate_per_s for run in runs]
        findings.figure(f"rate_at_backlog_{_power(n_posts)}", rates, unit="posts/s", **counts(runs))
    small, large = rounds[min(rounds)], waited[max(waited)]
    ratios = [one.cpu_s_per_post / other.cpu_s_per_post for one, other in zip(large, small, strict=True)]
    findings.key("cost_per_post_1e6_over_1e3", ratios, **counts([*small, *large]))
    beyond_mb = [(run.usage.peak_rss_bytes - idle["rss_bytes"]) / 1e6 for run in large]
    findings.key("rss_beyond_model_mb", beyond_mb, n_posts=max(waited))


def _enter_cost(findings: Findings, n_posts: int, runs: list[Run] | list[_Rounds], *, n_measured: int) -> None:
    costs_us = [1e6 * run.cpu_s_per_post for run in runs]
    findings.figure(f"cost_per_post_{_power(n_posts)}_us", costs_us, unit="µs", n_posts=n_measured, **counts(runs))


def _power(n: int) -> str:
    """1000 as 1e3."""
    return f"{n:.0e}".replace("e+0", "e")


async def _waited(arena: Arena, supply: Supply, plan: Plan, n_posts: int) -> Run:
    """Run a worker for which so many posts wait when it starts."""
    name = arena.run_name("backlog")
    terms = arena.terms("full", source=f"{name}.posts", name=name, max_batch=plan.full_batch)
    return await measured(arena, "worker", terms, n_posts, records=supply.text_posts(n_posts), stall_s=_STALL_S)


async def _rounds(arena: Arena, supply: Supply, plan: Plan, n_waiting: int) -> _Rounds:
    """Run a worker for which there are never more than a few that wait."""
    name = arena.run_name("rounds")
    terms = arena.terms("full", source=f"{name}.posts", name=name, max_batch=plan.full_batch)
    await arena.empty_redis()
    await arena.make_worker_topics(terms.prefix, N_PARTITIONS)
    records = list(supply.text_posts(plan.n_small))
    contender = Contender(arena, "worker", terms)
    try:
        await until_ready(terms.web_port)
        cpu_start_s = cpu_s_of(contender.pid)
        for start in range(0, plan.n_small, n_waiting):
            some = records[start : start + n_waiting]
            await load(arena.kafka, terms.source, N_PARTITIONS, some)
            watch = Watch(arena.kafka, terms.target, N_PARTITIONS, redis=arena.redis)
            await watch.until(
                start + len(some), pid=contender.pid, is_alive=contender.is_alive, timeout_s=_STALL_S, look_s=0.005
            )
        cpu_s = cpu_s_of(contender.pid) - cpu_start_s
    finally:
        contender.stop()
    await check_stored(arena.redis, terms.prefix, plan.n_small)
    counted = await count(arena.kafka, terms.target, plan.n_small)
    await arena.remove_topics(terms.source, terms.target)
    return _Rounds(cpu_s_per_post=cpu_s / plan.n_small, lost=counted.lost, duplicated=counted.duplicated)
