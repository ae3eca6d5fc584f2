"""Findings and alerts in Redis; every key is built here, every write is idempotent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from stream.records import Alert, Finding, decode, encode

ALL: Final = "all"


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """The keys under one prefix."""

    prefix: str

    def finding(self, post_id: str) -> str:
        """The finding of a post, as JSON."""
        return f"{self.prefix}finding:{post_id}"

    def latest(self, label: str) -> str:
        """Post ids of one class (or `all`), a sorted set by the time of acceptance in seconds."""
        return f"{self.prefix}latest:{label}"

    def alert(self, alert_id: str) -> str:
        """An alert, as JSON."""
        return f"{self.prefix}alert:{alert_id}"

    def latest_alerts(self) -> str:
        """Alert ids, a sorted set by the time they were raised in seconds."""
        return f"{self.prefix}latest-alerts"

    def whole(self) -> str:
        """Set once the cache holds what the findings topic holds; gone when Redis lost its data."""
        return f"{self.prefix}cache-whole"


class FindingCache:
    """Reads and writes of findings; raises redis' own errors, callers decide what an outage means."""

    def __init__(self, redis: Redis, *, prefix: str, ttl_s: float, latest_per_class: int) -> None:
        self._redis: Any = redis  # its types cover text and bytes answers alike; ours are bytes
        self._keys = Keys(prefix=prefix)
        self._ttl_ms = int(ttl_s * 1000)
        self._latest_per_class = latest_per_class

    async def store(self, findings: Sequence[Finding], alerts: Sequence[Alert] = ()) -> None:
        """Write the findings and their indexes in one pipeline; the same finding twice changes nothing."""
        async with self._redis.pipeline(transaction=False) as pipe:
            touched = set()
            for finding in findings:
                pipe.set(self._keys.finding(finding.post_id), encode(finding), px=self._ttl_ms)
                for label in (finding.label, ALL):
                    index = self._keys.latest(label)
                    pipe.zadd(index, {finding.post_id: finding.accepted_at.timestamp()})
                    touched.add(index)
            for alert in alerts:
                pipe.set(self._keys.alert(alert.id), encode(alert), px=self._ttl_ms)
                pipe.zadd(self._keys.latest_alerts(), {alert.id: alert.raised_at.timestamp()})
                touched.add(self._keys.latest_alerts())
            for index in touched:
                pipe.zremrangebyrank(index, 0, -self._latest_per_class - 1)
                pipe.pexpire(index, self._ttl_ms)
            await pipe.execute()

    async def get(self, post_id: str) -> Finding | None:
        """Return the finding of a post, or None."""
        value = await self._redis.get(self._keys.finding(post_id))
        return None if value is None else decode(value, Finding)

    async def get_raw(self, post_ids: Sequence[str]) -> list[bytes | None]:
        """Return the findings of the posts as they are stored, None where there is none."""
        values: list[Any] = await self._redis.mget([self._keys.finding(post_id) for post_id in post_ids])
        return values

    async def latest(self, label: str | None = None, n: int = 20) -> list[Finding]:
        """Return the newest findings of a class (None: of all), newest first."""
        post_ids = await self._redis.zrevrange(self._keys.latest(label or ALL), 0, n - 1)
        if not post_ids:
            return []
        values = await self.get_raw([post_id.decode() for post_id in post_ids])
        return [decode(value, Finding) for value in values if value is not None]

    async def latest_alerts(self, n: int = 20) -> list[Alert]:
        """Return the newest alerts, newest first."""
        alert_ids = await self._redis.zrevrange(self._keys.latest_alerts(), 0, n - 1)
        if not alert_ids:
            return []
        values = await self._redis.mget([self._keys.alert(alert_id.decode()) for alert_id in alert_ids])
        return [decode(value, Alert) for value in values if value is not None]

    async def is_whole(self) -> bool:
        """Whether the mark is there that the cache was filled from the findings topic."""
        return bool(await self._redis.exists(self._keys.whole()))

    async def mark_whole(self) -> None:
        """Leave the mark that the cache is whole."""
        await self._redis.set(self._keys.whole(), b"1")

    async def ping(self) -> None:
        """Raise redis' error when the server does not answer."""
        await self._redis.ping()

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()


def connect_cache(
    url: str, *, prefix: str, ttl_s: float, latest_per_class: int, timeout_s: float = 2.0
) -> FindingCache:
    """Return a cache on the Redis at `url`; connects at the first call.

    A call fails after one attempt: whether and when to try again is its caller's to say.
    """
    once = Retry(NoBackoff(), 0)
    redis = Redis.from_url(url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s, retry=once)
    return FindingCache(redis, prefix=prefix, ttl_s=ttl_s, latest_per_class=latest_per_class)
