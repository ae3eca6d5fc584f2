"""Findings and alerts in Redis; every key is built here, every write is idempotent."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import Any, Final

from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from stream.records import Alert, Finding, decode, encode

ALL: Final = "all"

# one command for many: a command of its own for each costs the client more than all else that is done for a post
_SET_ALL: Final = "for i = 1, #KEYS do redis.call('SET', KEYS[i], ARGV[i + 1], 'PX', ARGV[1]) end"


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

    async def store(
        self, findings: Sequence[Finding], alerts: Sequence[Alert] = (), *, encoded: Sequence[bytes | None] = ()
    ) -> None:
        """Write the findings and their indexes in one pipeline; the same finding twice changes nothing.

        `encoded` are the findings as JSON, in order, where the caller has them.
        """
        values: dict[str, bytes] = {}
        scores: defaultdict[str, dict[str, float]] = defaultdict(dict)  # by index and id
        to_key, of_all = self._keys.finding, scores[self._keys.latest(ALL)]
        for finding, value in zip_longest(findings, encoded):
            post_id = finding.post_id
            values[to_key(post_id)] = value or encode(finding)
            scores[self._keys.latest(finding.label)][post_id] = of_all[post_id] = finding.accepted_at.timestamp()
        for alert in alerts:
            values[self._keys.alert(alert.id)] = encode(alert)
            scores[self._keys.latest_alerts()][alert.id] = alert.raised_at.timestamp()
        if not values:
            return
        async with self._redis.pipeline(transaction=False) as pipe:
            pipe.eval(_SET_ALL, len(values), *values, self._ttl_ms, *values.values())
            for index, some in scores.items():
                if not some:
                    continue
                pipe.execute_command("ZADD", index, *chain.from_iterable(self._newest(some)))
                pipe.zremrangebyrank(index, 0, -self._latest_per_class - 1)
                pipe.pexpire(index, self._ttl_ms)
            await pipe.execute()

    def _newest(self, scores: dict[str, float]) -> list[tuple[float, str]]:
        """Return the score and id of those that the index can keep: the others would only come and go."""
        entries = list(zip(scores.values(), scores, strict=True))
        n = self._latest_per_class
        return entries if len(entries) <= n else sorted(entries)[-n:]

    async def get(self, post_id: str) -> Finding | None:
        """Return the finding of a post, or None."""
        value = await self._redis.get(self._keys.finding(post_id))
        return None if value is None else decode(value, Finding)

    async def get_raw(self, post_ids: Sequence[str]) -> list[bytes | None]:
        """Return the findings of the posts as they are stored, None where there is none."""
        values: list[Any] = await self._redis.mget(list(map(self._keys.finding, post_ids)))
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


class _QuickPacking:
    """Packs thousands of words in a fraction of the time that redis-py takes, and hiredis where they are long."""

    def pack_command(self, *args: Any) -> list[bytes]:
        words = [*str(args[0]).split(), *args[1:]]
        parts = [b"*%d\r\n" % len(words)]
        for word in words:
            data = word if isinstance(word, bytes) else str(word).encode()
            parts += (b"$%d\r\n" % len(data), data, b"\r\n")
        return [b"".join(parts)]


def connect_cache(
    url: str, *, prefix: str, ttl_s: float, latest_per_class: int, timeout_s: float = 2.0
) -> FindingCache:
    """Return a cache on the Redis at `url`; connects at the first call.

    A call fails after one attempt: whether and when to try again is its caller's to say.
    """
    once = Retry(NoBackoff(), 0)
    pool: Any = ConnectionPool.from_url(url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s, retry=once)
    pool.connection_class = type("Connection", (_QuickPacking, pool.connection_class), {})
    redis = Redis.from_pool(pool)
    return FindingCache(redis, prefix=prefix, ttl_s=ttl_s, latest_per_class=latest_per_class)
