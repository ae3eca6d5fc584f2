"""Which offset may be committed: never past a record whose outcome is not confirmed; no I/O here."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import compress, islice, pairwise

from aiokafka import TopicPartition


class OffsetTracker:
    """The accepted offsets of one assignment of one partition, and which of them are confirmed."""

    def __init__(self) -> None:
        self._pending: deque[int] = deque()
        self._confirmed: set[int] = set()
        self.last_accepted = -1
        self._committable: int | None = None

    def accept(self, offsets: Iterable[int]) -> None:
        """Take in offsets in rising order; gaps (compaction, transaction markers) are fine."""
        offsets = list(offsets)
        for before, offset in pairwise((self.last_accepted, *offsets)):
            if offset <= before:
                raise ValueError(f"offset {offset} comes after {before}: offsets must rise")
        self._pending.extend(offsets)
        if offsets:
            self.last_accepted = offsets[-1]

    def confirm(self, offset: int) -> bool:
        """Mark an accepted offset as done; return False when it is not pending (done before, or unknown)."""
        if not self.is_pending(offset):
            return False
        self._confirmed.add(offset)
        self._advance()
        return True

    def confirm_many(self, offsets: Sequence[int]) -> list[bool]:
        """Mark accepted offsets as done; return which of them were pending. Rising offsets cost least."""
        pending = self._pending
        if not self._confirmed and list(islice(pending, len(offsets))) == offsets:  # the next ones, in order
            for _ in offsets:
                pending.popleft()
            if offsets:
                self._committable = offsets[-1] + 1
            return [True] * len(offsets)
        confirmed, last = self._confirmed, self.last_accepted
        first = pending[0] if pending else last + 1
        were_pending = []
        for offset in offsets:
            is_pending = first <= offset <= last and offset not in confirmed
            were_pending.append(is_pending)
            if is_pending:
                confirmed.add(offset)
        self._advance()
        return were_pending

    @property
    def committable(self) -> int | None:
        """The offset to commit: the one after the last record with nothing unconfirmed before it."""
        return self._committable

    @property
    def n_in_flight(self) -> int:
        """Records accepted and not yet confirmed."""
        return len(self._pending) - len(self._confirmed)

    @property
    def n_done(self) -> int:
        """Records confirmed that cannot be committed yet, behind one that is not."""
        return len(self._confirmed)

    def is_pending(self, offset: int) -> bool:
        """Whether the offset is accepted and not confirmed."""
        pending = self._pending
        return bool(pending) and pending[0] <= offset <= self.last_accepted and offset not in self._confirmed

    def _advance(self) -> None:
        pending, confirmed = self._pending, self._confirmed
        while pending and pending[0] in confirmed:
            done = pending.popleft()
            confirmed.discard(done)
            self._committable = done + 1


class Lease:
    """One assignment of one partition to this worker; after `lost`, confirming changes nothing.

    `on_progress` is called when a confirmation changed something.
    """

    __slots__ = ("_held", "_on_progress", "committed", "idle", "lost", "n_bytes", "n_held", "partition", "tracker")

    def __init__(self, partition: TopicPartition, *, on_progress: Callable[[], None] = lambda: None) -> None:
        self.partition = partition
        self.tracker = OffsetTracker()
        self.lost = False
        self.committed: int | None = None
        self.n_bytes = 0
        self.n_held = 0  # bytes
        self._held: dict[int, int] = {}
        self.idle = asyncio.Event()
        self.idle.set()
        self._on_progress = on_progress

    def accept(self, offsets: Iterable[int], n_bytes: int) -> None:
        """Take in records of so many bytes."""
        self.tracker.accept(offsets)
        self.n_bytes += n_bytes
        self.idle.clear()

    def hold(self, offset: int, n_bytes: int) -> None:
        """Count what was made of a record besides, until that is done."""
        if not self.lost and self.tracker.is_pending(offset):
            self._held[offset] = n_bytes
            self.n_held += n_bytes

    def confirm(self, offset: int, n_bytes: int) -> bool:
        """Mark a record as done; return False when that changes nothing."""
        if self.lost or not self.tracker.confirm(offset):
            return False
        self._confirmed([offset], n_bytes)
        return True

    def confirm_many(self, offsets: Sequence[int], sizes: Sequence[int]) -> None:
        """Mark records of these sizes, in bytes, as done; those that are done already change nothing."""
        if self.lost:
            return
        were_pending = self.tracker.confirm_many(offsets)
        if any(were_pending):
            self._confirmed(offsets, sum(compress(sizes, were_pending)))

    def give_up(self) -> None:
        """Say that the partition is no longer this worker's."""
        self.lost = True
        self.idle.set()

    @property
    def due(self) -> int | None:
        """The offset to commit now, or None when there is nothing new or the lease is lost."""
        offset = self.tracker.committable
        return None if self.lost or offset == self.committed else offset

    def _confirmed(self, offsets: Sequence[int], n_bytes: int) -> None:
        self.n_bytes -= n_bytes
        if self._held:
            self.n_held -= sum(self._held.pop(offset, 0) for offset in offsets)
        if self.tracker.n_in_flight == 0:
            self.idle.set()
        self._on_progress()
