"""Forms micro-batches by size and linger; the timer starts at the batch's first post. Knows no Kafka."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Generic, TypeVar

T = TypeVar("T")


class MicroBatcher(Generic[T]):
    """A queue of posts that gives them out in micro-batches.

    It is not bounded itself: what the intake lets in flight bounds it.
    """

    def __init__(self, *, max_batch: int, linger_s: float) -> None:
        self._max_batch = max_batch
        self._linger_s = linger_s
        self._waiting: deque[tuple[float, T]] = deque()
        self._changed = asyncio.Event()
        self._hurried = False

    def put(self, posts: Sequence[T]) -> None:
        """Add posts; never blocks."""
        now = asyncio.get_running_loop().time()
        self._waiting.extend((now, post) for post in posts)
        self._changed.set()

    def hurry(self) -> None:
        """Linger no more: from now on give out what waits as it comes, since the worker stops."""
        self._hurried = True
        self._changed.set()

    async def next_batch(self) -> list[T]:
        """Wait for a full batch, or for the linger since its first post came in, whichever is sooner."""
        loop = asyncio.get_running_loop()
        while len(self._waiting) < self._max_batch:
            self._changed.clear()
            remaining_s = None
            if self._waiting:
                remaining_s = self._waiting[0][0] + self._linger_s - loop.time()
                if remaining_s <= 0 or self._hurried:
                    break
            try:
                await asyncio.wait_for(self._changed.wait(), remaining_s)
            except TimeoutError:
                break
        return [self._waiting.popleft()[1] for _ in range(min(self._max_batch, len(self._waiting)))]

    def __len__(self) -> int:
        return len(self._waiting)
