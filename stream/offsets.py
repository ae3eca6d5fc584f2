"""Which offset may be committed: never past a record whose outcome is not confirmed; no I/O here."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable

from aiokafka import TopicPartition


class OffsetTracker:
    """The accepted offsets of one assignment of one partition, and which of them are confirmed."""

    def __init__(self) -> None:
        self._pending: deque[int] = deque()
        self._confirmed: set[int] = set()
        self._last_accepted = -1
        self._committable: int | None = None

    def accept(self, offsets: Iterable[int]) -> None:
        """Take in offsets in rising order; gaps (compaction, transaction markers) are fine."""
        for offset in offsets:
            if offset <= self._last_accepted:
                raise ValueError(f"offset {offset} comes after {self._last_accepted}: offsets must rise")
            self._last_accepted = offset
            self._pending.append(offset)

    def confirm(self, offset: int) -> bool:
        """Mark an accepted offset as done; return False when it is not pending (done before, or unknown)."""
        if offset > self._last_accepted or offset in self._confirmed:
            return False
        if not self._pending or offset < self._pending[0]:
            return False
        self._confirmed.add(offset)
        while self._pending and self._pending[0] in self._confirmed:
            done = self._pending.popleft()
            self._confirmed.discard(done)
            self._committable = done + 1
        return True

    @property
    def committable(self) -> int | None:
        """The offset to commit: the one after the last record with nothing unconfirmed before it."""
        return self._committable

    @property
    def n_in_flight(self) -> int:
        """Records accepted and not yet confirmed."""
        return len(self._pending) - len(self._confirmed)


class Lease:
    """One assignment of one partition to this worker; after `lost`, confirming changes nothing."""

    __slots__ = ("committed", "idle", "lost", "n_bytes", "partition", "tracker")

    def __init__(self, partition: TopicPartition) -> None:
        self.partition = partition
        self.tracker = OffsetTracker()
        self.lost = False
        self.committed: int | None = None
        self.n_bytes = 0
        self.idle = asyncio.Event()
        self.idle.set()

    def accept(self, offsets: Iterable[int], n_bytes: int) -> None:
        """Take in records of so many bytes."""
        self.tracker.accept(offsets)
        self.n_bytes += n_bytes
        self.idle.clear()

    def confirm(self, offset: int, n_bytes: int) -> bool:
        """Mark a record as done; return False when that changes nothing."""
        if self.lost or not self.tracker.confirm(offset):
            return False
        self.n_bytes -= n_bytes
        if self.tracker.n_in_flight == 0:
            self.idle.set()
        return True

    def give_up(self) -> None:
        """Say that the partition is no longer this worker's."""
        self.lost = True
        self.idle.set()

    @property
    def due(self) -> int | None:
        """The offset to commit now, or None when there is nothing new or the lease is lost."""
        offset = self.tracker.committable
        return None if self.lost or offset == self.committed else offset
