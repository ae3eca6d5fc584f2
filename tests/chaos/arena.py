"""What every scenario is given, and the row that it gives back."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from stream.ledger import Ledger
from tests.chaos.brokers import Broker
from tests.chaos.field import Field, playing_field
from tests.chaos.proxy import Proxy
from tests.chaos.redis_server import Redis

RESULTS = Path(__file__).resolve().parent / "results"


class Row(msgspec.Struct, kw_only=True):
    """What one fault did to the posts; `differing` counts repeated findings whose content is not identical."""

    fault: str
    broker: str
    runs: int
    posts: int
    missing: int
    duplicates: int
    differing: int
    recovery_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Arena:
    """Servers to break, how much time there is, and the seed that chooses what breaks when."""

    broker: Broker
    redis: Redis
    folder: Path
    short: bool
    seed: int = 20_240_229
    kafka_home: Path | None = None
    soak_s: float = 1800.0
    results: Path = RESULTS

    def field(self, name: str, **settings: Any) -> AbstractAsyncContextManager[Field]:
        """Return a field of its own for a scenario; see `playing_field`."""
        servers = {"kafka": self.broker.bootstrap, "redis": self.redis.url, **settings}
        return playing_field(name=name, folder=self.folder, **servers)

    @contextmanager
    def proxies(self, name: str, *ports: int) -> Iterator[list[Proxy]]:
        """Open a proxy before each of the ports."""
        opened = [Proxy(port, chance=self.chance(f"{name}-{number}")) for number, port in enumerate(ports)]
        try:
            yield opened
        finally:
            for proxy in opened:
                proxy.stop()

    @property
    def kafka_port(self) -> int:
        """The port of the broker's first node."""
        return int(self.broker.bootstrap.partition(",")[0].rpartition(":")[2])

    def chance(self, name: str) -> random.Random:
        """Return the scenario's own random numbers, the same in every run."""
        return random.Random(f"{self.seed}-{name}")

    def pick(self, full: Any, short: Any) -> Any:
        """Return the value for a full or for a short run."""
        return short if self.short else full


def make_row(fault: str, broker: str, ledger: Ledger, *, recovery_s: float, runs: int = 1) -> Row:
    """Return the row of one ledger."""
    return Row(
        fault=fault,
        broker=broker,
        runs=runs,
        posts=ledger.accepted,
        missing=len(ledger.missing),
        duplicates=len(ledger.repeated),
        differing=len(ledger.differing),
        recovery_s=round(recovery_s, 1),
    )


def check(ledger: Ledger, *, posts: int) -> None:
    """Fail unless every post fed in was accepted and has its outcome, and nothing was invented."""
    assert ledger.accepted >= posts > 0, f"{ledger.accepted} posts on the topic, {posts} were fed in"
    assert not ledger.missing, f"{len(ledger.missing)} posts without an outcome: {ledger.missing[:5]}"
    assert not ledger.extra, f"{len(ledger.extra)} outcomes without a post: {ledger.extra[:5]}"
    assert not ledger.differing, f"findings that differ: {ledger.differing[:5]}"
    assert ledger.accepted == ledger.findings + ledger.dead_letters + ledger.duplicates
