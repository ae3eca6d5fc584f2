"""Reads back what a run of the full job left in Redis, ours and a peer's alike; times nothing."""

from __future__ import annotations

from typing import Any

from redis.asyncio import Redis

from stream.cache import ALL, Keys
from stream.records import Finding, decode
from tests.bench.work import LABEL, LATEST_PER_CLASS, TTL_MS

_SCAN = 10_000


class NotStored(RuntimeError):
    """A run that left less in Redis than the job asks for."""


async def check_stored(url: str, prefix: str, n_posts: int) -> None:
    """Raise `NotStored` unless there is a finding for each post, and both indexes name as many as they keep.

    Every finding that an index names must be readable, at its time of acceptance, and expire.
    """
    redis: Any = Redis.from_url(url)
    keys = Keys(prefix=prefix)
    try:
        pattern = keys.finding("*")
        n_findings = len({key async for key in redis.scan_iter(match=pattern, count=_SCAN)})
        if n_findings != n_posts:
            raise NotStored(f"{n_findings} findings under {pattern}, not {n_posts}")
        for index in (keys.latest(LABEL), keys.latest(ALL)):
            entries = await redis.zrange(index, 0, -1, withscores=True)
            if len(entries) != min(n_posts, LATEST_PER_CLASS):
                raise NotStored(f"{index} names {len(entries)} findings, not {min(n_posts, LATEST_PER_CLASS)}")
            values = await redis.mget([keys.finding(post_id.decode()) for post_id, _ in entries])
            for (post_id, score), value in zip(entries, values, strict=True):
                finding = decode(value, Finding)
                if finding.post_id != post_id.decode() or abs(finding.accepted_at.timestamp() - score) > 1e-3:
                    raise NotStored(f"{index} names {post_id!r} at {score}, its finding is of {finding.accepted_at}")
            for key in (index, keys.finding(entries[0][0].decode())):
                if not 0 < await redis.pttl(key) <= TTL_MS:
                    raise NotStored(f"{key} does not expire within {TTL_MS} ms")
    finally:
        await redis.aclose()
