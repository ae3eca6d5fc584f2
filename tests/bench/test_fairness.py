"""What holds for ours holds for the peers: their writer, their batches, their turns, and what is said of their runs."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import replace
from typing import Any

import pytest
from redis.asyncio import Redis

from deploy.embedded import EmbeddedServices
from stream.cache import ALL, connect_cache
from stream.records import Finding
from tests.bench import endtoend, wire
from tests.bench.contenders import Run
from tests.bench.endtoend import classify, whole_batches
from tests.bench.latency import _capacity
from tests.bench.plan import CHECKPOINT_POSTS, FULL, TAKE
from tests.bench.posts import Supply
from tests.bench.summary import Findings
from tests.bench.watch import Growth, Usage
from tests.bench.work import LABEL, TTL_MS, store
from tests.stream.findings import entries, finding

_OTHER = "other_relevant_information"
_SUPPLY = Supply(name="none", with_pictures=[], texts=[])


def _findings() -> Findings:
    return Findings(about={"broker": "b", "posts": "p", "commit": "abc"})


def _run(name: str, rate_per_s: float, *, lost: int = 0, duplicated: int = 0) -> Run:
    growth = Growth(points=[(0.0, 0), (1.0, 10), (11.0, 10 + round(10 * rate_per_s))])
    return Run(name=name, n_posts=100, growth=growth, usage=Usage(n_posts=1), lost=lost, duplicated=duplicated)


class _Arena:
    """An arena without servers."""

    device, kafka = "cpu", "nowhere:9092"

    def __init__(self, *, on_gpu: bool) -> None:
        self.on_gpu = on_gpu

    def run_name(self, name: str) -> str:
        return name

    def terms(self, *_: Any, **__: Any) -> None: ...

    async def make_topic(self, *_: Any) -> None: ...

    async def remove_topics(self, *_: Any) -> None: ...


@pytest.mark.integration
async def test_peers_leave_in_redis_what_ours_leaves(services: EmbeddedServices) -> None:
    """Also where a post comes twice in a batch, with another class the second time."""
    findings = [*(finding(number, label=LABEL) for number in range(5)), finding(3, label=_OTHER)]
    ours, theirs = (f"test-{secrets.token_hex(4)}." for _ in range(2))
    cache = connect_cache(services.redis, prefix=ours, ttl_s=TTL_MS / 1000, latest_per_class=1_000)
    for part in (findings[:5], findings[5:]):  # of two in one batch ours never lets the first into an index
        await cache.store(entries(*part))
    redis: Any = Redis.from_url(services.redis)
    async with redis.pipeline(transaction=False) as pipeline:
        store(pipeline, theirs, findings)
        await pipeline.execute()
    for name in map("finding:p{}".format, range(5)):
        assert await redis.get(theirs + name) == await redis.get(ours + name) is not None
        assert 0 < await redis.pttl(theirs + name) <= TTL_MS
    for index, n_members in ((f"latest:{LABEL}", 5), (f"latest:{_OTHER}", 1), (f"latest:{ALL}", 5)):
        members = await redis.zrange(theirs + index, 0, -1, withscores=True)
        assert members == await redis.zrange(ours + index, 0, -1, withscores=True)
        assert len(members) == n_members
        assert 0 < await redis.pttl(theirs + index) <= TTL_MS
    await redis.aclose()
    await cache.close()


class _Pipeline:
    """Notes the names of the commands."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: self.names.append(name)


@pytest.mark.parametrize("n_findings", [0, 1, 500])
def test_peers_write_an_index_once_a_batch(n_findings: int) -> None:
    pipeline = _Pipeline()
    some: list[Finding] = [finding(number, label=LABEL) for number in range(n_findings)]
    store(pipeline, "p.", some)
    assert pipeline.names.count("set") == n_findings
    assert pipeline.names.count("zadd") == (2 if n_findings else 0)


def test_no_peer_waits_at_its_end() -> None:
    """Who waits for a batch or a checkpoint to fill has whole ones."""
    assert FULL.bare["faust"] % TAKE == FULL.full["faust"] % TAKE == 0
    assert FULL.full["quix"] % CHECKPOINT_POSTS == 0
    assert [whole_batches(n_posts, 32) for n_posts in (3, 64, 205, 2_000)] == [64, 64, 192, 1_984]


async def test_all_take_turns_and_what_could_not_be_told_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rate far above the classifier's own is of an output in one burst."""
    order: list[str] = []
    rates = {"worker": 9.0, "quix": 8.0, "bytewax": 1_000.0}

    async def alone(_: Any, name: str, *__: Any, **___: Any) -> dict[str, Any]:
        order.append(name)
        return {"posts_per_s": 10.0, "decoded_per_s": 1.0, "rss_bytes": 1, "n_posts": 100}

    async def run(_: Any, __: Any, name: str, *___: Any, **____: Any) -> Run:
        order.append(name)
        return _run(name, rates[name], lost=1 if name == "quix" else 0)

    async def loaded(*_: Any) -> None: ...

    monkeypatch.setattr(endtoend, "printed", alone)
    monkeypatch.setattr(endtoend, "end_to_end", run)
    monkeypatch.setattr(endtoend, "load", loaded)
    arena: Any = _Arena(on_gpu=True)
    findings = _findings()
    plan = replace(FULL, repetitions=2, classify_peers=("quix", "bytewax"))
    await classify(arena, _SUPPLY, plan, findings)
    assert order == ["alone", "worker", "quix", "bytewax"] * 2
    told = findings.figures
    assert (told["end_to_end_quix"]["runs"], told["end_to_end_quix"]["n_dropped"]) == ([8.0, 8.0], 0)
    assert (told["end_to_end_quix"]["lost"], told["end_to_end_quix"]["duplicated"]) == (2, 0)
    assert (told["end_to_end_bytewax"]["median"], told["end_to_end_bytewax"]["n_dropped"]) == (None, 2)
    assert findings.keys["end_to_end_over_classifier_gpu"]["runs"] == [0.9, 0.9]


def test_catching_up_tells_what_its_runs_lost_and_duplicated(monkeypatch: pytest.MonkeyPatch) -> None:
    async def runs(*_: Any) -> dict[str, list[Run]]:
        return {"worker": [_run("worker", 100.0, lost=1), _run("worker", 100.0, lost=2, duplicated=4)]}

    monkeypatch.setattr(wire, "_all_runs", runs)
    arena: Any = _Arena(on_gpu=False)
    findings = _findings()
    asyncio.run(wire.full(arena, _SUPPLY, FULL, findings))
    figure = findings.figures["catch_up_100_s"]
    assert (figure["lost"], figure["duplicated"]) == (3, 4)


async def test_capacity_is_what_was_measured_end_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU that was with larger batches than a worker has by default, so it is measured again."""

    async def run(*_: Any, **__: Any) -> Run:
        return _run("worker", 12.0)

    monkeypatch.setattr("tests.bench.latency.end_to_end", run)
    findings = _findings()
    arenas: list[Any] = [_Arena(on_gpu=on_gpu) for on_gpu in (False, True)]
    assert await _capacity(arenas[0], _SUPPLY, FULL, findings) == (12.0, "a run of its own")
    findings.figure("end_to_end_worker", [17.0, 18.0, 16.0], unit="posts/s")
    assert await _capacity(arenas[0], _SUPPLY, FULL, findings) == (17.0, "end_to_end_worker")
    assert await _capacity(arenas[1], _SUPPLY, FULL, findings) == (12.0, "a run of its own")
