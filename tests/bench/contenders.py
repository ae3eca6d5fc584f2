"""Who takes part, and how one run of one of them is made and measured."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tests.bench.arena import N_PARTITIONS, Arena
from tests.bench.pages import Samples
from tests.bench.posts import load
from tests.bench.stored import check_stored
from tests.bench.terms import Terms, to_argument
from tests.bench.watch import Growth, Usage, Watch, count
from tests.chaos.processes import die_with_parent

ROOT = Path(__file__).resolve().parents[2]
MODULES = {
    "limit": "tests.bench.ours.limit",
    "alone": "tests.bench.ours.alone",
    "idle": "tests.bench.ours.idle",
    "sitrep": "tests.bench.ours.bare",
    "worker": "tests.bench.ours.worker",
    "quix": "tests.bench.peers.quix",
    "bytewax": "tests.bench.peers.bytewax_flow",
    "aiokafka": "tests.bench.peers.aiokafka_loop",
    "faust": "tests.bench.peers.naive_faust",
}

_END_S = 30.0
_START_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run: what was seen from outside."""

    name: str
    n_posts: int
    growth: Growth
    usage: Usage
    lost: int
    duplicated: int
    samples: Samples | None = None

    @property
    def rate_per_s(self) -> float:
        """Posts in a second, up to the last record."""
        return self.growth.rate_per_s

    @property
    def cpu_s_per_post(self) -> float:
        """Processor seconds of the process and its children, for each post after the first growth seen."""
        return self.usage.cpu_s / self.usage.n_posts if self.usage.n_posts else float("nan")


class Outcome(Protocol):
    """What knows how many of its posts were lost, and how many arrived again."""

    @property
    def lost(self) -> int: ...

    @property
    def duplicated(self) -> int: ...


def counts(runs: Iterable[Outcome]) -> dict[str, int]:
    """Return what the runs lost and duplicated together, as the results file has it."""
    pairs = [(run.lost, run.duplicated) for run in runs]
    return {"lost": sum(lost for lost, _ in pairs), "duplicated": sum(twice for _, twice in pairs)}


class Contender:
    """A process under test."""

    def __init__(self, arena: Arena, name: str, terms: Terms, *, log_name: str = "") -> None:
        self.log_file = arena.log_file(f"{log_name or name}-{terms.group}")
        # Faust makes a folder for tables that none of the jobs has, by default where it is started
        environ = environment(terms) | {"APP_DATADIR": str(self.log_file.with_suffix(".data"))}
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                command(name, terms), cwd=ROOT, env=environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self.pid = self._process.pid

    def is_alive(self) -> bool:
        """Whether the process still runs."""
        return self._process.poll() is None

    def stop(self) -> None:
        """Ask it to stop, and make sure that it does."""
        if self.is_alive():
            self._process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_END_S)
        if self.is_alive():
            self._process.kill()
            self._process.wait()

    def log(self) -> str:
        """Return the end of its log."""
        return self.log_file.read_text("utf-8", "replace")[-3_000:]


async def measured(
    arena: Arena,
    name: str,
    terms: Terms,
    n_posts: int,
    *,
    records: Iterable[tuple[bytes, bytes]] = (),
    stall_s: float = _START_S,
) -> Run:
    """Run a contender on what is in its source topic and an empty Redis, to its last record; count what it made.

    `records` go to the real worker's own topic of posts, which `terms.source` names, before it starts.
    """
    await arena.empty_redis()
    if name == "worker":
        await arena.make_worker_topics(terms.prefix, N_PARTITIONS)
        await load(arena.kafka, terms.source, N_PARTITIONS, records)
    else:
        await arena.make_target(terms, N_PARTITIONS)
    contender = Contender(arena, name, terms)
    samples = Samples(web_port=terms.web_port) if name == "worker" and terms.job == "classify" else None
    sampling = asyncio.create_task(samples.run()) if samples is not None else None
    redis = arena.redis if terms.job == "full" else None
    try:
        watch = Watch(arena.kafka, terms.target, N_PARTITIONS, redis=redis)
        growth, usage = await watch.until(n_posts, pid=contender.pid, is_alive=contender.is_alive, timeout_s=stall_s)
    except Exception as error:
        raise RuntimeError(f"{name} failed: {error}\n{contender.log()}") from error
    finally:
        if sampling is not None:
            sampling.cancel()
        contender.stop()
    if redis is not None:
        await check_stored(redis, terms.prefix, n_posts)
    counted = await count(arena.kafka, terms.target, n_posts)
    await arena.remove_topics(terms.target, *([terms.source] if name == "worker" else []))
    return Run(
        name=name,
        n_posts=n_posts,
        growth=growth,
        usage=usage,
        lost=counted.lost,
        duplicated=counted.duplicated,
        samples=samples,
    )


async def printed(arena: Arena, name: str, terms: Terms, timeout_s: float) -> dict[str, Any]:
    """Run a process that prints one line of JSON, and return that."""
    log_file = arena.log_file(f"{name}-{terms.group}")
    with log_file.open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *command(name, terms), cwd=ROOT, env=environment(terms), stdout=asyncio.subprocess.PIPE, stderr=log
        )
        output, _ = await asyncio.wait_for(process.communicate(), timeout_s)
    if process.returncode != 0:
        raise RuntimeError(f"{name} ended with {process.returncode}\n{log_file.read_text('utf-8', 'replace')[-3_000:]}")
    result: dict[str, Any] = json.loads(output.splitlines()[-1])
    return result


def command(name: str, terms: Terms) -> list[str]:
    """Return the command of a contender; its process dies with this one."""
    return die_with_parent([sys.executable, "-m", MODULES[name], to_argument(terms)])


def environment(terms: Terms) -> dict[str, str]:
    """Return the environment of a contender, with its numbers of threads pinned."""
    path = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        environ[variable] = str(terms.threads)
    return environ
