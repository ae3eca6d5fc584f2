"""Forms micro-batches by size and linger; the timer starts at the batch's first post. Knows no Kafka."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from workers.waiting import Waiting, WaitingRoom

T = TypeVar("T")


class MicroBatcher(Generic[T]):
    """Gives out what waits in a room in micro-batches of one kind; `size` says how many of a kind at most.

    It is not bounded itself: what the intake lets in flight bounds it. `on_overtaken` is told, for the first
    post of each batch, how many seconds after its turn it was taken.
    """

    def __init__(
        self,
        room: WaitingRoom[T],
        *,
        size: Callable[[str], int],
        linger_s: float,
        clock: Callable[[], float] | None = None,
        on_overtaken: Callable[[float], None] = lambda seconds: None,
    ) -> None:
        self._room = room
        self._size = size
        self._linger_s = linger_s
        self._clock = clock or (lambda: asyncio.get_running_loop().time())
        self._on_overtaken = on_overtaken
        self._changed = asyncio.Event()
        self._hurried = False

    def put(self, posts: Sequence[T]) -> None:
        """Add posts; never blocks."""
        self._room.add(posts, self._clock())
        self._changed.set()

    def put_decoded(self, waiting: Waiting[T], post: T) -> None:
        """Add a post that came into the room before its picture was decoded; never blocks."""
        self._room.add_decoded(waiting, post, self._clock())
        self._changed.set()

    def hurry(self) -> None:
        """Linger no more: from now on give out what waits as it comes, since the worker stops."""
        self._hurried = True
        self._changed.set()

    async def next_batch(self) -> list[T]:
        """Wait for a full batch, or for the linger since its first post came in, whichever is sooner."""
        while True:
            self._changed.clear()
            now_s = self._clock()
            first = self._room.first(now_s)
            remaining_s = None
            if first is not None:
                remaining_s = first.arrived_s + self._linger_s - now_s
                if remaining_s > 0 and not self._hurried:
                    first = self._of_full_batch(first)
                if first is not None:
                    self._on_overtaken(self._room.overtaken_s(first, now_s))
                    return self._room.take(first, self._size(first.kind), now_s)
            try:
                await asyncio.wait_for(self._changed.wait(), remaining_s)
            except TimeoutError:
                continue

    def _of_full_batch(self, first: Waiting[T]) -> Waiting[T] | None:
        """Return the first post if its batch is full, else that of another kind whose batch is, else None."""
        kinds = sorted(self._room.kinds(), key=lambda kind: kind != first.kind)
        full = next((kind for kind in kinds if self._room.count(kind) >= self._size(kind)), None)
        if full is None or full == first.kind:
            return first if full is not None else None
        return self._room.head(full)

    def __len__(self) -> int:
        return len(self._room)
