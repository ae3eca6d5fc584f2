"""Who takes part, and how one run of one of them is made and measured."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.bench.arena import N_PARTITIONS, Arena
from tests.bench.posts import load
from tests.bench.terms import Terms, to_argument
from tests.bench.watch import Growth, Usage, Watch, count
from tests.chaos.processes import die_with_parent

ROOT = Path(__file__).resolve().parents[2]
MODULES = {
    "limit": "tests.bench.ours.limit",
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

    @property
    def rate_per_s(self) -> float:
        """Posts in a second, up to the last record."""
        return self.growth.rate_per_s


class Contender:
    """A process under test."""

    def __init__(self, arena: Arena, name: str, terms: Terms) -> None:
        self.log_file = arena.log_file(f"{name}-{terms.group}")
        environ = {**os.environ, "PYTHONPATH": str(ROOT)}
        for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            environ[variable] = str(terms.threads)
        command = [sys.executable, "-m", MODULES[name], to_argument(terms)]
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                die_with_parent(command), cwd=ROOT, env=environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log
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
    """Start a contender, on an empty Redis, on what is in its source topic, wait for its last record, and count what it made.

    `records` go to the real worker's own topic of posts, which `terms.source` names, before it starts.
    """
    await arena.empty_redis()
    if name == "worker":
        await arena.make_worker_topics(terms.prefix, N_PARTITIONS)
        await load(arena.kafka, terms.source, N_PARTITIONS, records)
    else:
        await arena.make_target(terms, N_PARTITIONS)
    contender = Contender(arena, name, terms)
    try:
        redis = arena.redis if terms.job == "full" else None
        watch = Watch(arena.kafka, terms.target, N_PARTITIONS, redis=redis)
        growth, usage = await watch.until(n_posts, pid=contender.pid, is_alive=contender.is_alive, timeout_s=stall_s)
    except Exception as error:
        raise RuntimeError(f"{name} failed: {error}\n{contender.log()}") from error
    finally:
        contender.stop()
    counted = await count(arena.kafka, terms.target, n_posts)
    await arena.remove_topics(terms.target)
    return Run(
        name=name,
        n_posts=n_posts,
        growth=growth,
        usage=usage,
        lost=counted.lost,
        duplicated=counted.duplicated,
    )
