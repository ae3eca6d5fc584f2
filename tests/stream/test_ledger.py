"""The ledger's balance, on hand-made topics."""

from __future__ import annotations

from stream.book import Book, Entry, Ledger, Outcome, PartitionCounts
from stream.reader import Bounds
from stream.records import Origin

POSTS = "t.posts"
A_ID, B_ID = "a" * 32, "b" * 32


def at(offset: int, partition: int = 0, topic: str = POSTS) -> Origin:
    return Origin(topic=topic, partition=partition, offset=offset)


def balance(
    outcomes: list[tuple[Outcome, Origin, str]],
    accepted: list[Origin],
    *,
    first: int = 0,
    kept: dict[int, int] | None = None,
    n_partitions: int = 1,
) -> Ledger:
    bounds = {partition: Bounds(first=first, end=10) for partition in range(n_partitions)}
    book = Book(POSTS, bounds)
    for kind, origin, finding_id in outcomes:
        book.outcome(kind, origin, finding_id=finding_id)
    for origin in accepted:
        book.accepted(origin, f"post-{origin.partition}-{origin.offset}")
    ledger = book.close(kept=kept)
    n_outcomes = ledger.findings + ledger.dead_letters + ledger.duplicates + len(ledger.missing)
    assert ledger.accepted == n_outcomes
    return ledger


def test_every_outcome_counts_once() -> None:
    """One finding, one dead letter, one duplicate, one post without an outcome."""
    ledger = balance(
        [("finding", at(0), A_ID), ("dead_letter", at(1), ""), ("duplicate", at(2), "")], [at(n) for n in range(4)]
    )

    assert ledger.summary() == "ledger: accepted=4 findings=1 dead_letters=1 duplicates=1 missing=1"
    assert [(entry.post_id, entry.origin) for entry in ledger.missing] == [("post-0-3", at(3))]
    assert not ledger.balanced


def test_a_gap_in_the_offsets_is_not_missing() -> None:
    """Offsets that compaction or a transaction marker took are no records."""
    ledger = balance([("finding", at(0), A_ID), ("finding", at(7), B_ID)], [at(0), at(7)])

    assert ledger.balanced
    assert ledger.accepted == 2


def test_outcome_without_a_record_is_extra() -> None:
    """In a gap, in a partition that is not there, or of another topic."""
    strangers = [at(5), at(0, partition=9), at(0, topic="elsewhere")]

    ledger = balance([("finding", origin, str(n)) for n, origin in enumerate(strangers)], [at(0)])

    assert sorted(ledger.extra, key=repr) == sorted(strangers, key=repr)
    assert len(ledger.missing) == 1


def test_outcomes_of_deleted_and_of_later_records_are_left_out() -> None:
    """Retention deleted offset 1, offset 10 came after the bounds were read."""
    ledger = balance([("finding", at(1), A_ID), ("finding", at(10), B_ID)], [], first=3)

    assert (ledger.accepted, ledger.findings, ledger.extra) == (0, 0, ())


def test_records_deleted_while_reading_are_not_extra() -> None:
    """Retention moved on between the outcomes and the posts."""
    outcomes: list[tuple[Outcome, Origin, str]] = [("finding", at(0), A_ID), ("finding", at(4), B_ID)]

    assert balance(outcomes, [at(4)], kept={0: 4}).balanced
    assert balance(outcomes, [at(4)], kept={0: 0}).extra == (at(0),)


def test_finding_delivered_again_is_repeated_and_counts_once() -> None:
    """At-least-once delivery: the same id for the same record."""
    ledger = balance([("finding", at(0), A_ID)] * 3, [at(0)])

    assert ledger.findings == 1
    assert ledger.repeated == (A_ID,)
    assert ledger.balanced


def test_same_finding_of_a_later_record_is_a_duplicate() -> None:
    """Whatever order the two findings arrive in, the earlier record keeps the finding."""
    for order in ([at(2), at(5)], [at(5), at(2)]):
        ledger = balance([("finding", origin, A_ID) for origin in order], [at(2), at(5)])

        assert (ledger.findings, ledger.duplicates) == (1, 1)
        assert ledger.repeated == ()
        assert ledger.balanced


def test_later_record_delivered_again_is_repeated() -> None:
    """A repeat is seen for the record that counts as the duplicate, too."""
    ledger = balance([("finding", origin, A_ID) for origin in (at(2), at(5), at(5))], [at(2), at(5)])

    assert (ledger.findings, ledger.duplicates, ledger.repeated) == (1, 1, (A_ID,))


def test_findings_of_two_model_versions_count_once() -> None:
    """A post classified again by a new model is still one accepted record."""
    ledger = balance([("finding", at(0), A_ID), ("finding", at(0), B_ID)], [at(0)])

    assert (ledger.findings, ledger.repeated) == (1, ())


def test_finding_wins_over_dead_letter_and_duplicate() -> None:
    """A dead letter that was replayed into a finding counts as the finding."""
    outcomes: list[tuple[Outcome, Origin, str]] = [
        ("dead_letter", at(0), ""), ("finding", at(0), A_ID), ("duplicate", at(1), ""), ("dead_letter", at(1), ""),
    ]  # fmt: skip

    ledger = balance(outcomes, [at(0), at(1)])

    assert (ledger.findings, ledger.dead_letters, ledger.duplicates) == (1, 1, 0)


def test_partitions_are_told_apart() -> None:
    """The same offset in two partitions is two records."""
    ledger = balance([("finding", at(0, 1), A_ID)], [at(0, 0), at(0, 1)], n_partitions=2)

    assert ledger.partitions == (
        PartitionCounts(partition=0, first=0, end=10, accepted=1, findings=0, dead_letters=0, duplicates=0, missing=1),
        PartitionCounts(partition=1, first=0, end=10, accepted=1, findings=1, dead_letters=0, duplicates=0, missing=0),
    )
    assert ledger.entries == ()
    assert [entry.origin for entry in ledger.missing] == [at(0, 0)]


def test_ids_are_kept_when_asked_for() -> None:
    book = Book(POSTS, {0: Bounds(first=3, end=6)}, keep_ids=True)
    book.outcome("duplicate", at(3))
    book.outcome("dead_letter", at(5))
    for offset in (3, 4, 5):
        book.accepted(at(offset), f"post-{offset}")

    assert book.close().entries == (
        Entry(origin=at(3), post_id="post-3", outcome="duplicate"),
        Entry(origin=at(4), post_id="post-4", outcome=None),
        Entry(origin=at(5), post_id="post-5", outcome="dead_letter"),
    )
