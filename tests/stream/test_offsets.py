"""Nothing is committed past a post whose outcome is not confirmed, in any interleaving."""

from __future__ import annotations

import pytest
from aiokafka import TopicPartition
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from stream.offsets import Lease, OffsetTracker

PARTITION = TopicPartition("posts", 0)


class Deliveries(RuleBasedStateMachine):
    """A partition that is leased, read, confirmed in any order, committed, revoked and read again."""

    def __init__(self) -> None:
        super().__init__()
        self.committed = 0
        self.delivered: set[int] = set()
        self.lease = Lease(PARTITION)
        self.position = 0
        self.old: list[tuple[Lease, int]] = []

    @rule(gaps=st.lists(st.integers(1, 3), min_size=1, max_size=6))
    def accept(self, gaps: list[int]) -> None:
        """Take in records, with gaps as compaction and transactions leave them."""
        offsets = []
        for gap in gaps:
            self.position += gap
            offsets.append(self.position - 1)
        self.delivered.update(set(range(offsets[0] - gaps[0] + 1, self.position)) - set(offsets))  # no records there
        self.lease.accept(offsets, len(offsets))
        self.old += [(self.lease, offset) for offset in offsets]

    @rule(data=st.data())
    def confirm(self, data: st.DataObject) -> None:
        """Confirm any record ever accepted, also twice, also of a lost lease."""
        if self.old:
            lease, offset = data.draw(st.sampled_from(self.old))
            self.delivered.add(offset)
            lease.confirm(offset, 1)

    @rule()
    def commit(self) -> None:
        """Commit what is due."""
        if self.lease.due is not None:
            self.committed = self.lease.committed = self.lease.due

    @rule()
    def revoke(self) -> None:
        """Lose the partition, by a rebalance or a crash, and get it again at the committed offset."""
        self.lease.give_up()
        assert self.lease.due is None
        self.lease = Lease(PARTITION)
        self.position = self.committed

    @invariant()
    def nothing_unconfirmed_is_passed(self) -> None:
        """Every record before the committed offset has its outcome."""
        assert set(range(self.committed)) <= self.delivered

    @invariant()
    def in_flight_is_never_negative(self) -> None:
        """The count of what is in flight holds."""
        assert self.lease.tracker.n_in_flight >= 0


TestDeliveries = Deliveries.TestCase
TestDeliveries.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def test_offsets_that_fall_are_refused() -> None:
    """A rewound partition needs a new lease."""
    tracker = OffsetTracker()
    tracker.accept([5, 6])
    with pytest.raises(ValueError, match="must rise"):
        tracker.accept([6])
    assert tracker.confirm(6)
    assert tracker.committable is None
    assert tracker.confirm(5)
    assert tracker.committable == 7
