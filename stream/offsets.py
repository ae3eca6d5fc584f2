"""Which offset may be committed: never past a record whose outcome is not confirmed; no I/O here."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable


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
