"""Posts that wait for a micro-batch: who goes next, and with whom. Pure: no clock, no loop, no Kafka.

First in, first out, but for two things. Posts rated urgent go first, out of a bounded window and past no post
for longer than a bound. And a batch holds posts of one kind, of similar length. A post whose picture is still to be
decoded waits and is rated with the others, from when it came in, but has no place in a batch before.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from msgspec import Struct

T = TypeVar("T")

Shape = tuple[str, int]  # kind, length in characters: they decide with whom a post shares a batch

_UNDECODED: Final = "undecoded"  # the kind of those that wait for that
_MORE: Final = 96  # a batch is chosen among so many more than it holds: four times one of the default size


class Waiting(Struct, Generic[T], kw_only=True, eq=False, gc=False):
    """A post that waits; `number` is its place in the order of arrival."""

    post: T
    kind: str
    n_chars: int
    number: int
    arrived_s: float
    rated: bool = False
    urgent: bool = False
    taken: bool = False
    decoded: Waiting[T] | None = None  # as which it waits for a batch


@dataclass(slots=True)
class _Queue(Generic[T]):
    """The waiting posts of one kind in order of arrival, those rated urgent a second time."""

    all: deque[Waiting[T]]
    urgent: deque[Waiting[T]]
    n: int = 0

    def head(self) -> Waiting[T] | None:
        return _head(self.all)


class WaitingRoom(Generic[T]):
    """At most the first `window_posts` are given out to be rated; none is overtaken for over `max_overtake_s`."""

    def __init__(self, shape: Callable[[T], Shape], *, window_posts: int, max_overtake_s: float) -> None:
        self._shape = shape
        self._window_posts = window_posts
        self._max_overtake_s = max_overtake_s
        self._queues: dict[str, _Queue[T]] = {}
        self._unrated: deque[Waiting[T]] = deque()
        self._n_rated = 0  # of those that wait
        self._n_added = 0
        self._n_taken = 0
        self._turns: deque[tuple[int, float]] = deque()  # (posts taken so far, when)
        self._decoding: set[int] = set()  # the numbers of those that are out for that

    def __len__(self) -> int:
        return self._n_added - self._n_taken

    def add(self, posts: Iterable[T], now_s: float) -> None:
        """Let posts in, in their order."""
        for post in posts:
            kind, n_chars = self._shape(post)
            self._enter(Waiting(post=post, kind=kind, n_chars=n_chars, number=self._n_added, arrived_s=now_s))
            self._n_added += 1

    def add_undecoded(self, post: T, now_s: float) -> Waiting[T]:
        """Let a post in whose picture is to be decoded; it leaves by `to_decode`."""
        waiting = Waiting(post=post, kind=_UNDECODED, n_chars=0, number=self._n_added, arrived_s=now_s)
        self._enter(waiting)
        self._n_added += 1
        return waiting

    def to_decode(self, now_s: float) -> Waiting[T] | None:
        """Return whose picture is next, by the same rule as in `first`; it stays until `take_to_decode`."""
        return self._first([_UNDECODED], now_s)

    def urgent_to_decode(self) -> Waiting[T] | None:
        """Return the first urgent post whose picture is to be decoded, whoever else has been overtaken for too long."""
        queue = self._queues.get(_UNDECODED)
        return None if queue is None else _head(queue.urgent)

    def take_to_decode(self, waiting: Waiting[T]) -> None:
        """Take a post out for a while: `add_decoded` or `leave` follows."""
        waiting.taken = True
        self._queues[_UNDECODED].n -= 1
        self._decoding.add(waiting.number)
        self._forget_taken()

    def add_decoded(self, waiting: Waiting[T], post: T, now_s: float) -> None:
        """Let a post in again, in its old place; what was or will be found of its urgency holds."""
        kind, n_chars = self._shape(post)
        self._decoding.remove(waiting.number)
        waiting.decoded = Waiting(
            post=post,
            kind=kind,
            n_chars=n_chars,
            number=waiting.number,
            arrived_s=now_s,
            rated=waiting.rated,
            urgent=waiting.urgent,
        )
        self._enter(waiting.decoded)

    def leave(self, waiting: Waiting[T]) -> None:
        """Let a post go that was taken out to be decoded, and comes to no batch."""
        self._decoding.remove(waiting.number)
        self._n_rated -= waiting.rated
        self._n_taken += 1

    def _enter(self, waiting: Waiting[T]) -> None:
        queue = self._queues.get(waiting.kind)
        if queue is None:
            queue = self._queues[waiting.kind] = _Queue(deque(), deque())
        queue.all.append(waiting)
        queue.n += 1
        if waiting.urgent:
            queue.urgent.append(waiting)
        if not waiting.rated:
            self._unrated.append(waiting)

    def count(self, kind: str) -> int:
        """Return how many of a kind wait."""
        queue = self._queues.get(kind)
        return queue.n if queue is not None else 0

    def kinds(self) -> list[str]:
        """Return the kinds that wait for a batch."""
        return [kind for kind, queue in self._queues.items() if queue.n and kind != _UNDECODED]

    def head(self, kind: str) -> Waiting[T] | None:
        """Return the oldest of a kind."""
        return self._queues[kind].head()

    def to_rate(self, n_posts: int) -> list[Waiting[T]]:
        """Return the next posts of the window that nobody rated, oldest first; each is given out once."""
        some: list[Waiting[T]] = []
        while self._unrated and len(some) < n_posts and self._n_rated < self._window_posts:
            waiting = self._unrated.popleft()
            if not waiting.taken:
                waiting.rated = True
                self._n_rated += 1
                some.append(waiting)
        return some

    def rate(self, some: Sequence[Waiting[T]], urgent: Sequence[bool]) -> None:
        """Say which of them are urgent; those taken meanwhile need it no more."""
        for one, is_urgent in zip(some, urgent, strict=True):
            waiting = one.decoded or one
            waiting.urgent = is_urgent
            if is_urgent and not waiting.taken:
                self._queues[waiting.kind].urgent.append(waiting)

    def first(self, now_s: float) -> Waiting[T] | None:
        """Return whose turn it is: the oldest when it was overtaken for too long, else the first urgent one."""
        return self._first(self.kinds(), now_s)

    def _first(self, kinds: Iterable[str], now_s: float) -> Waiting[T] | None:
        queues = [self._queues[kind] for kind in kinds if kind in self._queues]
        heads = [head for queue in queues if (head := queue.head()) is not None]
        if not heads:
            return None
        oldest = min(heads, key=lambda head: head.number)
        if self.overtaken_s(oldest, now_s) >= self._max_overtake_s:
            return oldest
        urgent = [head for queue in queues if (head := _head(queue.urgent)) is not None]
        return min(urgent, key=lambda head: head.number) if urgent else oldest

    def overtaken_s(self, waiting: Waiting[T], now_s: float) -> float:
        """Return how long ago a post would have been taken had all gone in order; 0 before its turn."""
        if not self._turns or self._turns[-1][0] <= waiting.number:
            return 0.0
        return next((now_s - when_s for n_taken, when_s in self._turns if n_taken > waiting.number), 0.0)

    def take(self, first: Waiting[T], n_posts: int, now_s: float) -> list[T]:
        """Take a post and up to `n_posts` - 1 that go well with it: urgent ones if it is, then near its length.

        One that was overtaken for too long goes with those that came next, whatever their length.
        """
        queue = self._queues[first.kind]
        overdue = self.overtaken_s(first, now_s) >= self._max_overtake_s
        in_order = overdue or first.urgent  # no post is passed over twice, by urgent ones and for its length
        members = [first]
        self._take(queue, members)
        while first.urgent and not overdue and len(members) < n_posts and (waiting := _head(queue.urgent)) is not None:
            members.append(waiting)
            self._take(queue, [waiting])
        members += self._similar(queue, first, n_posts - len(members), n_more=0 if in_order else _MORE)
        self._turns.append((self._n_taken, now_s))
        numbers = [*self._decoding, *(head.number for one in self._queues.values() if (head := one.head()) is not None)]
        while self._turns and self._turns[0][0] <= min(numbers, default=self._n_added):
            self._turns.popleft()
        return [waiting.post for waiting in members]

    def _similar(self, queue: _Queue[T], first: Waiting[T], n_posts: int, *, n_more: int) -> list[Waiting[T]]:
        """Take the posts nearest in length to the first one, in order of arrival, out of so many more of the oldest."""
        choice: list[Waiting[T]] = []
        while queue.all and len(choice) < n_posts + n_more:
            waiting = queue.all.popleft()
            if not waiting.taken:
                choice.append(waiting)
        near = choice
        if len(choice) > n_posts:
            distances = [abs(one.n_chars - first.n_chars) for one in choice]
            nearest = sorted(range(len(choice)), key=distances.__getitem__)[:n_posts]
            near = [choice[index] for index in sorted(nearest)]
        self._take(queue, near)
        if len(near) < len(choice):
            queue.all.extendleft([waiting for waiting in reversed(choice) if not waiting.taken])
        return near

    def _take(self, queue: _Queue[T], some: Sequence[Waiting[T]]) -> None:
        for waiting in some:
            waiting.taken = True
            self._n_rated -= waiting.rated
        self._n_taken += len(some)
        queue.n -= len(some)
        self._forget_taken()

    def _forget_taken(self) -> None:
        """Keep none that nobody will rate: a room without triage, or without batches, would never let them go."""
        while self._unrated and self._unrated[0].taken:
            self._unrated.popleft()


def _head(queue: deque[Waiting[T]]) -> Waiting[T] | None:
    while queue and queue[0].taken:
        queue.popleft()
    return queue[0] if queue else None
