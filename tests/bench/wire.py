"""The wire alone, with a classifier that costs nothing: the bare job and the full one, ours and the peers'."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from tests.bench.arena import N_PARTITIONS, Arena
from tests.bench.contenders import Run, counts, measured
from tests.bench.plan import Plan
from tests.bench.posts import Supply, load
from tests.bench.summary import Findings
from tests.bench.terms import Job

log = logging.getLogger(__name__)

_CATCH_UP = 100_000

TITLES = {
    "limit": "aiokafka's limit",
    "sitrep": "Sitrep",
    "worker": "Sitrep",
    "quix": "Quix Streams",
    "bytewax": "Bytewax",
    "aiokafka": "aiokafka loop",
    "faust": "naive Faust",
}


async def bare(arena: Arena, supply: Supply, plan: Plan, findings: Findings) -> None:
    """Consume JSON, transform it, produce JSON."""
    runs = await _all_runs(arena, supply, plan, "bare", plan.bare)
    _enter(findings, "bare", runs)
    ours = [run.rate_per_s for run in runs["sitrep"]]
    for peer, key in (
        ("quix", "wire_bare_over_quix"), ("faust", "wire_bare_over_naive_faust"), ("limit", "wire_bare_over_limit"),
    ):  # fmt: skip
        if peer in runs:
            findings.key(key, _ratios(ours, runs[peer]))


async def full(arena: Arena, supply: Supply, plan: Plan, findings: Findings) -> None:
    """Validated posts, CloudEvents headers, findings in Redis with their indexes, confirmed deliveries."""
    runs = await _all_runs(arena, supply, plan, "full", plan.full)
    _enter(findings, "full", runs)
    if "quix" in runs:
        findings.key("wire_full_over_quix", _ratios([run.rate_per_s for run in runs["worker"]], runs["quix"]))
    n_posts = runs["worker"][0].n_posts
    n_behind = min(n_posts, _CATCH_UP)
    seconds = [run.growth.seconds_to(n_behind) for run in runs["worker"]]
    findings.figure(f"catch_up_{n_behind}_s", seconds, unit="s", n_posts=n_posts, **counts(runs["worker"]))


async def _all_runs(
    arena: Arena, supply: Supply, plan: Plan, job: Job, sizes: Mapping[str, int]
) -> dict[str, list[Run]]:
    """Run everybody in turn, as often as planned, so that what the machine does besides hits all alike."""
    sources = {n_posts: f"{job}.posts.{n_posts}" for n_posts in set(sizes.values())}
    for n_posts, source in sources.items():
        await arena.make_topic(source, N_PARTITIONS)
        await load(arena.kafka, source, N_PARTITIONS, supply.text_posts(n_posts))
    runs: dict[str, list[Run]] = {name: [] for name in sizes}
    for _ in range(plan.repetitions):
        for name, n_posts in sizes.items():
            own = arena.run_name(f"{job}-{name}")
            source = f"{own}.posts" if name == "worker" else sources[n_posts]
            terms = arena.terms(job, source=source, name=own, max_batch=plan.full_batch)
            run = await measured(arena, name, terms, n_posts, records=supply.text_posts(n_posts))
            log.info("%s %s: %.0f posts/s, lost %d, duplicated %d", job, name, run.rate_per_s, run.lost, run.duplicated)
            runs[name].append(run)
    await arena.remove_topics(*sources.values())
    return runs


def _enter(findings: Findings, job: str, runs: Mapping[str, Sequence[Run]]) -> None:
    for name, some in runs.items():
        findings.figure(
            f"wire_{job}_{name}",
            [run.rate_per_s for run in some],
            unit="posts/s",
            name=TITLES[name],
            n_posts=some[0].n_posts,
            **counts(some),
            cpu_s_per_1000=max(round(1000 * run.cpu_s_per_post, 4) for run in some),
            peak_rss_mb=max(run.usage.peak_rss_bytes for run in some) // 1_000_000,
        )


def _ratios(ours: Sequence[float], theirs: Sequence[Run]) -> list[float]:
    return [mine / run.rate_per_s for mine, run in zip(ours, theirs, strict=True)]
