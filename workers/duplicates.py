"""Tells posts that were accepted before: from a bounded memory of this worker, then from Redis when it answers.

Without Redis a duplicate older than the memory is classified again; its finding has the same id.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Sequence

import msgspec

from stream.cache import FindingCache
from stream.cache_writer import REDIS_ERRORS
from stream.records import Duplicate, Origin, Post, PostId
from workers.metrics import Metrics


class _Known(msgspec.Struct, frozen=True):
    """The part of a finding that tells where its post came from."""

    origin: Origin
    text: str = ""


_known = msgspec.json.Decoder(_Known)


class DuplicateFilter:
    """Remembers the record that each post first came in."""

    def __init__(self, *, max_posts: int, metrics: Metrics, cache: FindingCache | None) -> None:
        self._first: OrderedDict[PostId, tuple[Origin, int]] = OrderedDict()
        self._max_posts = max_posts
        self._cache = cache
        self._metrics = metrics

    async def check(self, posts: Sequence[tuple[Post, Origin]], *, ask_redis: bool) -> list[Duplicate | None]:
        """Return, for each post, what it is a duplicate of, or None.

        A record seen again is not a duplicate of itself, so a post delivered twice gets its finding twice.
        """
        verdicts = [self._from_memory(post, origin) for post, origin in posts]
        unknown = [index for index, verdict in enumerate(verdicts) if verdict is None]
        if not unknown or not ask_redis or self._cache is None:
            return verdicts
        try:
            values = await self._cache.get_raw([posts[index][0].id for index in unknown])
        except REDIS_ERRORS:
            self._metrics.redis_errors.inc()
            return verdicts
        for index, value in zip(unknown, values, strict=True):
            if value is None:
                continue
            post, origin = posts[index]
            known = _known.decode(value)
            if known.origin != origin:
                self._first[post.id] = (known.origin, hash(known.text))
                verdicts[index] = Duplicate(
                    post_id=post.id, origin=origin, first=known.origin, differs=known.text != post.text
                )
        return verdicts

    def forget(self, post_id: PostId, origin: Origin) -> None:
        """Forget a post that became a dead letter, so that it may come again after a fix."""
        known = self._first.get(post_id)
        if known is not None and known[0] == origin:
            del self._first[post_id]

    def forget_partitions(self, lost: Collection[tuple[str, int]]) -> None:
        """Forget the posts of partitions that went to another worker.

        What is in flight there gets its outcome elsewhere; two workers that each took the other's
        post for the first would leave it without a finding.
        """
        gone = [post_id for post_id, (first, _) in self._first.items() if (first.topic, first.partition) in lost]
        for post_id in gone:
            del self._first[post_id]

    def _from_memory(self, post: Post, origin: Origin) -> Duplicate | None:
        known = self._first.get(post.id)
        if known is None:
            self._first[post.id] = (origin, hash(post.text))
            if len(self._first) > self._max_posts:
                self._first.popitem(last=False)
            return None
        first, text_hash = known
        if first == origin or (
            (first.topic, first.partition) == (origin.topic, origin.partition) and (first.offset > origin.offset)
        ):
            self._first[post.id] = (origin, hash(post.text))
            return None
        return Duplicate(post_id=post.id, origin=origin, first=first, differs=text_hash != hash(post.text))
