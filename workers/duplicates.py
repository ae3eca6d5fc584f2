"""Tells posts that were accepted before: from a bounded memory of this worker, then from Redis when it answers.

Without Redis a duplicate older than the memory is classified again; its finding has the same id.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from typing import Any, Final

import msgspec

from stream.breaker import CircuitBreaker, CircuitOpen
from stream.cache import FindingCache
from stream.cache_writer import REDIS_ERRORS
from stream.records import UNDECODABLE, UNKNOWN_SOURCE, Duplicate, Image, Origin, Post, PostId
from workers.memory import PostMemory
from workers.metrics import Metrics

_LOOK_UP_S: Final = 0.5  # less than a write may take: a post waits so long, and only until the breaker opens


class _Known(msgspec.Struct, frozen=True):
    """The part of a finding that tells where its post came from."""

    origin: Origin
    text: str = ""
    source: str = UNKNOWN_SOURCE


_known = msgspec.json.Decoder(_Known)


class DuplicateFilter:
    """Tells duplicates by the record that each post first came in."""

    def __init__(
        self,
        *,
        memory: PostMemory,
        metrics: Metrics,
        cache: FindingCache,
        breaker: CircuitBreaker,
        redis_answers: Callable[[], bool],
    ) -> None:
        self._memory = memory
        self._cache = cache
        self._breaker = breaker
        self._redis_answers = redis_answers
        self._metrics = metrics

    async def check(self, posts: Sequence[tuple[Post, Origin]]) -> list[Duplicate | None]:
        """Return, for each post, what it is a duplicate of, or None.

        A record seen again is not a duplicate of itself, so a post delivered twice gets its finding twice.
        """
        verdicts = [self._from_memory(post, origin) for post, origin in posts]
        unknown = [index for index, verdict in enumerate(verdicts) if verdict is None]
        if not unknown:
            return verdicts
        values = await self._look_up([posts[index][0].id for index in unknown])
        if not any(values):
            return verdicts
        for index, value in zip(unknown, values, strict=True):
            post, origin = posts[index]
            known = _decode(value)
            if known is not None and known.origin != origin and known.source == post.source:
                self._memory.replace(_key(post), known.origin, _content_hash(known.text, post.images))
                verdicts[index] = Duplicate(
                    post_id=post.id, origin=origin, first=known.origin, differs=known.text != post.text
                )
        return verdicts

    def forget(self, post: Post, origin: Origin) -> None:
        """Forget a post that became a dead letter, so that it may come again after a fix."""
        self._memory.forget(_key(post), origin)

    def forget_partitions(self, lost: Collection[tuple[str, int]]) -> None:
        """Forget the posts of partitions that went to another worker.

        What is in flight there gets its outcome elsewhere; two workers that each took the other's
        post for the first would leave it without a finding.
        """
        self._memory.forget_partitions(lost)

    async def _look_up(self, post_ids: Sequence[PostId]) -> Sequence[bytes | None]:
        async def ask() -> Sequence[bytes | None]:
            async with asyncio.timeout(_LOOK_UP_S):
                return await self._cache.get_raw(post_ids)

        if self._redis_answers():  # it is not for a post to find out whether Redis is back
            try:
                return await self._breaker.call(ask)
            except CircuitOpen:
                pass
            except REDIS_ERRORS:
                self._metrics.redis_errors.inc()
        return [None] * len(post_ids)

    def _from_memory(self, post: Post, origin: Origin) -> Duplicate | None:
        content_hash = _content_hash(post.text, post.images)
        known = self._memory.first(_key(post), origin, content_hash)
        if known is None:
            return None
        first, first_hash = known
        if first == origin or (
            (first.topic, first.partition) == (origin.topic, origin.partition) and (first.offset > origin.offset)
        ):
            self._memory.replace(_key(post), origin, content_hash)
            return None
        return Duplicate(post_id=post.id, origin=origin, first=first, differs=first_hash != content_hash)


def _key(post: Post) -> str:
    """Ids are unique at their source."""
    return f"{post.source}\x00{post.id}"


def _content_hash(text: str, images: Sequence[Image]) -> int:
    return hash((text, *[(image.data, image.path) for image in images])) if images else hash(text)


def _decode(value: bytes | None) -> Any:
    try:
        return None if value is None else _known.decode(value)
    except UNDECODABLE:  # somebody else's value under our key tells nothing
        return None
