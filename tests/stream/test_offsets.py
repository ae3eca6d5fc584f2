"""Nothing is committed past a post whose outcome is not confirmed, in any interleaving, and every post gets one."""

from __future__ import annotations

from itertools import accumulate

import pytest
from aiokafka import TopicPartition
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from stream.offsets import Lease, OffsetTracker

PARTITION = TopicPartition("posts", 0)


class Partition(RuleBasedStateMachine):
    """One partition and its workers, of which one at a time holds the lease.

    They read it from the committed offset, confirm in any order, commit now and then, lose it, crash, and
    confirm late what they took in under a lease that is lost.
    """

    def __init__(self) -> None:
        super().__init__()
        self.log: list[int] = []
        self.committed = 0
        self.handled: set[int] = set()
        self.lease = Lease(PARTITION)
        self.position = 0
        self.taken: list[tuple[Lease, int]] = []
        self.n_bytes = 0

    @initialize(gaps=st.lists(st.integers(1, 3), min_size=1, max_size=30))
    def publish(self, gaps: list[int]) -> None:
        """Let the partition have records, with gaps between them as compaction and transactions leave them."""
        self.log = [offset - 1 for offset in accumulate(gaps)]

    @property
    def left(self) -> list[int]:
        """The records that the holder of the lease has not fetched yet."""
        return [offset for offset in self.log if offset >= self.position]

    @precondition(lambda self: self.left)
    @rule(n_records=st.integers(1, 8))
    def fetch(self, n_records: int) -> None:
        """Take in the next records."""
        offsets = self.left[:n_records]
        self.lease.accept(offsets, len(offsets))
        self.position = offsets[-1] + 1
        self.taken += [(self.lease, offset) for offset in offsets]

    @precondition(lambda self: self.taken)
    @rule(data=st.data())
    def confirm(self, data: st.DataObject) -> None:
        """Deliver the outcome of any record ever taken in, also twice, also of a lease that is lost."""
        lease, offset = data.draw(st.sampled_from(self.taken))
        n_bytes, was_lost = lease.n_bytes, lease.lost
        self.handled.add(offset)
        counted = lease.confirm(offset, 1)
        assert not (counted and was_lost)
        assert lease.n_bytes == n_bytes - counted

    @rule(is_refused=st.booleans())
    def commit(self, is_refused: bool) -> None:
        """Commit what is due, which the broker may refuse."""
        due = self.lease.due
        if due is not None and not is_refused:
            assert due > self.committed
            self.committed = self.lease.committed = due

    @rule()
    def revoke(self) -> None:
        """Give the partition up after a last commit; its next owner starts there."""
        self.commit(is_refused=False)
        self.crash()

    @rule()
    def crash(self) -> None:
        """Lose the partition without a commit; its next owner starts at the last one."""
        self.lease.give_up()
        assert self.lease.due is None
        assert self.lease.idle.is_set()
        self.lease = Lease(PARTITION)
        self.position = self.committed

    @invariant()
    def nothing_unconfirmed_is_passed(self) -> None:
        """Every record before the committed offset has its outcome, and so has every one that may be committed."""
        passed = max(self.committed, self.lease.due or 0)
        assert {offset for offset in self.log if offset < passed} <= self.handled

    @invariant()
    def in_flight_is_counted(self) -> None:
        """What is in flight is what the holder has taken in and not confirmed."""
        mine = [offset for lease, offset in self.taken if lease is self.lease]
        assert 0 <= self.lease.tracker.n_in_flight <= len(mine)
        assert self.lease.tracker.n_in_flight == self.lease.n_bytes
        assert self.lease.idle.is_set() == (self.lease.tracker.n_in_flight == 0)

    def teardown(self) -> None:
        """However it went: the next worker, left alone, finishes everything."""
        self.crash()
        while self.left:
            self.fetch(3)
        for lease, offset in reversed(self.taken):
            if lease is self.lease:
                self.handled.add(offset)
                lease.confirm(offset, 1)
        self.commit(is_refused=False)
        assert self.handled >= set(self.log)
        assert not self.log or self.committed == self.log[-1] + 1


TestPartition = Partition.TestCase
TestPartition.settings = settings(max_examples=200, stateful_step_count=50, deadline=None)


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


def test_what_was_made_of_a_record_counts_until_that_is_done() -> None:
    lease = Lease(TopicPartition("posts", 0))
    lease.accept(range(4), 40)
    for offset in (1, 2, 3, 9):  # 9 never came
        lease.hold(offset, 100)
    assert (lease.n_bytes, lease.n_held) == (40, 300)
    lease.confirm(2, 10)
    lease.hold(2, 100)  # too late
    assert (lease.n_bytes, lease.n_held) == (30, 200)
    lease.confirm_many([0, 1, 2], [10, 10, 10])
    assert (lease.n_bytes, lease.n_held) == (10, 100)
    lease.confirm_many([3], [10])
    assert (lease.n_bytes, lease.n_held) == (0, 0)


def test_what_is_done_behind_an_open_record_is_told_apart() -> None:
    """It is no load any more, though it cannot be committed."""
    tracker = OffsetTracker()
    tracker.accept(range(5))
    tracker.confirm_many([1, 2, 4])
    assert (tracker.n_in_flight, tracker.n_done) == (2, 3)
    tracker.confirm(0)
    assert (tracker.n_in_flight, tracker.n_done, tracker.committable) == (1, 1, 3)
