"""Findings and alerts to write, and a cache in memory that can be down."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import redis.exceptions

from stream.breaker import CircuitBreaker
from stream.cache import Entry, FindingCache, entry_of
from stream.cache_writer import REDIS_ERRORS
from stream.records import Alert, Finding, ModelInfo, Origin, finding_id

NOW = datetime(2026, 1, 5, 10, tzinfo=UTC)
MODEL = ModelInfo(name="m", version="m-1", digest="sha256:0")


def finding(number: int, *, label: str = "not_humanitarian", text: str = "bridge down") -> Finding:
    """Return the finding of post number so-and-so, accepted as many seconds after `NOW`."""
    post_id = f"p{number}"
    return Finding(
        id=finding_id(post_id, MODEL.version),
        post_id=post_id,
        label=label,
        probability=1.0,
        probabilities={label: 1.0},
        text=text,
        text_rationale=[],
        image_rationale=None,
        degraded=[],
        model=MODEL,
        origin=Origin(topic="posts", partition=0, offset=number),
        accepted_at=NOW + timedelta(seconds=number),
        classified_at=NOW,
    )


def alert(number: int) -> Alert:
    """Return an alert, raised as many seconds after `NOW`."""
    return Alert(
        id=f"a{number}",
        kind="infrastructure_and_utility_damage",
        probability=1.0,
        threshold=0.5,
        findings=[],
        post_ids=[f"p{number}"],
        headline="bridge down",
        evidence=[],
        raised_at=NOW + timedelta(seconds=number),
    )


def entries(*records: Finding | Alert) -> list[Entry]:
    """Return what the cache takes of them."""
    return list(map(entry_of, records))


class MemoryCache(FindingCache):
    """What the writer needs of a cache, in memory; `down` makes every call fail."""

    def __init__(self) -> None:
        self.down = False
        self.whole = False
        self.stored: dict[str, Entry] = {}
        self.n_calls = 0

    async def store(self, entries: Sequence[Entry]) -> None:
        """Keep them."""
        self._answer()
        self.stored.update({one.id: one for one in entries})

    async def is_whole(self) -> bool:
        """Whether it was marked."""
        self._answer()
        return self.whole

    async def mark_whole(self) -> None:
        """Mark it."""
        self._answer()
        self.whole = True

    async def mark_incomplete(self) -> None:
        """Take the mark away."""
        self._answer()
        self.whole = False

    async def ping(self) -> None:
        """Answer."""
        self._answer()

    async def reconnect(self) -> None:
        """Answer."""
        self._answer()

    def lose_everything(self) -> None:
        """Come back empty."""
        self.stored.clear()
        self.whole = False

    def _answer(self) -> None:
        self.n_calls += 1
        if self.down:
            raise redis.exceptions.ConnectionError("down")


def quick_breaker() -> CircuitBreaker:
    """Return a breaker that probes again after a moment."""
    return CircuitBreaker(failures=REDIS_ERRORS, n_failures=2, pause_s=0.01)
