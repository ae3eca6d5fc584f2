"""What a post costs, and what the worker holds, when a thousand posts wait and when a million do."""

from __future__ import annotations

import logging

from tests.bench.arena import N_PARTITIONS, Arena
from tests.bench.contenders import Contender, Run, measured, printed
from tests.bench.pages import until_ready
from tests.bench.plan import Plan
from tests.bench.posts import Supply, load
from tests.bench.summary import Findings
from tests.bench.watch import Watch, cpu_s_of

log = logging.getLogger(__name__)

_STALL_S = 120.0


async def backlog(arena: Arena, supply: Supply, plan: Plan, findings: Findings) -> None:
    """Compare processor time per post; the small backlog is filled again and again until it is a long run too."""
    small: list[float] = []
    large: list[Run] = []
    beyond_mb: list[float] = []
    idle = await printed(arena, "idle", arena.terms("full", source="", name=arena.run_name("idle")), timeout_s=60)
    for _ in range(plan.backlog_repetitions):
        small.append(await _small(arena, supply, plan))
        name = arena.run_name("backlog")
        terms = arena.terms("full", source=f"{name}.posts", name=name, max_batch=plan.full_batch)
        records = supply.text_posts(plan.large_backlog)
        large.append(await measured(arena, "worker", terms, plan.large_backlog, records=records, stall_s=_STALL_S))
        beyond_mb.append((large[-1].usage.peak_rss_bytes - idle["rss_bytes"]) / 1e6)
        log.info(
            "a post costs %.1f µs at a backlog of %d, %.1f µs at %d; memory beyond the model %.0f MB",
            1e6 * small[-1], plan.small_backlog, 1e6 * large[-1].cpu_s_per_post, plan.large_backlog, beyond_mb[-1],
        )  # fmt: skip
    costs = [run.cpu_s_per_post for run in large]
    findings.key("cost_per_post_1e6_over_1e3", [a / b for a, b in zip(costs, small, strict=True)])
    findings.key("rss_beyond_model_mb", beyond_mb, n_posts=plan.large_backlog)
    counts = {"lost": sum(run.lost for run in large), "duplicated": sum(run.duplicated for run in large)}
    findings.figure("cost_per_post_1e3_us", [1e6 * cost for cost in small], unit="µs", n_posts=plan.n_small)
    findings.figure("cost_per_post_1e6_us", [1e6 * cost for cost in costs], unit="µs", **counts)
    findings.figure("rate_at_backlog_1e6", [run.rate_per_s for run in large], unit="posts/s", **counts)


async def _small(arena: Arena, supply: Supply, plan: Plan) -> float:
    """Return the processor seconds a post costs when there are never more than a few that wait."""
    name = arena.run_name("rounds")
    terms = arena.terms("full", source=f"{name}.posts", name=name, max_batch=plan.full_batch)
    await arena.empty_redis()
    await arena.make_worker_topics(terms.prefix, N_PARTITIONS)
    records = list(supply.text_posts(plan.n_small))
    contender = Contender(arena, "worker", terms)
    try:
        await until_ready(terms.web_port)
        cpu_start_s = cpu_s_of(contender.pid)
        for start in range(0, plan.n_small, plan.small_backlog):
            some = records[start : start + plan.small_backlog]
            await load(arena.kafka, terms.source, N_PARTITIONS, some)
            watch = Watch(arena.kafka, terms.target, N_PARTITIONS, redis=arena.redis)
            await watch.until(
                start + len(some), pid=contender.pid, is_alive=contender.is_alive, timeout_s=_STALL_S, look_s=0.005
            )
        cpu_s = cpu_s_of(contender.pid) - cpu_start_s
    finally:
        contender.stop()
    await arena.remove_topics(terms.source, terms.target)
    return cpu_s / plan.n_small
