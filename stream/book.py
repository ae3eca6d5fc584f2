"""Balances outcomes against accepted records, and the ledger that comes of it; pure, no I/O."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from stream.reader import Bounds
from stream.records import Origin

Outcome = Literal["finding", "dead_letter", "duplicate"]

# one byte for each accepted offset keeps a million posts in a megabyte
_FINDING, _DEAD_LETTER, _DUPLICATE, _LATER, _ACCEPTED = 1, 2, 4, 8, 16
_BITS: Final[Mapping[Outcome, int]] = {"finding": _FINDING, "dead_letter": _DEAD_LETTER, "duplicate": _DUPLICATE}


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """An accepted record without an outcome; `post_id` is its key."""

    origin: Origin
    post_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What became of one accepted record; None: nothing yet. `post_id` is its key."""

    origin: Origin
    post_id: str
    outcome: Outcome | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionCounts:
    """What became of the accepted records of one partition, from offset `first` to the one before `end`."""

    partition: int
    first: int
    end: int
    accepted: int
    findings: int
    dead_letters: int
    duplicates: int
    missing: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """What became of the accepted records: accepted = findings + dead letters + duplicates + missing.

    `extra` holds outcomes whose record is not there, `repeated` the ids of findings that were delivered
    more than once for one record, `differing` those of them whose deliveries are not the same. `partitions`
    breaks the counts down; `entries` holds every accepted record, where the book was told to keep them.
    """

    accepted: int
    findings: int
    dead_letters: int
    duplicates: int
    missing: tuple[Missing, ...] = ()
    extra: tuple[Origin, ...] = ()
    repeated: tuple[str, ...] = ()
    differing: tuple[str, ...] = ()
    partitions: tuple[PartitionCounts, ...] = ()
    entries: tuple[Entry, ...] = ()

    @property
    def balanced(self) -> bool:
        """Whether every accepted record has an outcome, every outcome a record, and repeats are equal."""
        return not (self.missing or self.extra or self.differing)

    def summary(self) -> str:
        """Return the ledger as one line."""
        return (
            f"ledger: accepted={self.accepted} findings={self.findings} dead_letters={self.dead_letters}"
            f" duplicates={self.duplicates} missing={len(self.missing)}"
        )


class Book:
    """Balances the outcomes against the accepted records of one topic; no I/O.

    First all outcomes, then all accepted records, then `close`. Outcomes outside `bounds` belong to
    records that retention deleted or that came later, and are left out. A record with several outcomes
    counts once: as a finding, else as a dead letter, else as a duplicate. Of the findings with one id
    from several records, the one of the lowest partition and offset counts, the others as duplicates.
    With `keep_ids` it keeps every record's id and outcome, which takes memory for each post.
    """

    def __init__(self, topic: str, bounds: Mapping[int, Bounds], *, keep_ids: bool = False) -> None:
        self._topic = topic
        self._bounds = bounds
        self._states = {partition: bytearray(bound.end - bound.first) for partition, bound in bounds.items()}
        self._first_record: dict[bytes, tuple[int, int]] = {}
        self._repeated: dict[str, None] = {}
        self._extra: list[Origin] = []
        self._missing: list[Missing] = []
        self._counts: dict[int, Counter[Outcome | None]] = {partition: Counter() for partition in bounds}
        self._entries: list[Entry] | None = [] if keep_ids else None

    def outcome(self, kind: Outcome, origin: Origin, *, finding_id: str = "") -> None:
        """Enter the outcome of a record; `finding_id` goes with findings."""
        if origin.topic != self._topic or origin.partition not in self._bounds:
            self._extra.append(origin)
            return
        bound = self._bounds[origin.partition]
        if not bound.first <= origin.offset < bound.end:
            return
        if kind == "finding":
            self._finding(finding_id, (origin.partition, origin.offset))
        self._states[origin.partition][origin.offset - bound.first] |= _BITS[kind]

    def unreadable(self, where: Origin) -> None:
        """Enter an outcome that cannot be read, by its own place."""
        self._extra.append(where)

    def accepted(self, origin: Origin, post_id: str) -> None:
        """Enter an accepted record."""
        bound = self._bounds[origin.partition]
        states, index = self._states[origin.partition], origin.offset - bound.first
        state = states[index]
        states[index] |= _ACCEPTED
        outcome: Outcome | None = None
        if state & _LATER:
            outcome = "duplicate"
        elif state & _FINDING:
            outcome = "finding"
        elif state & _DEAD_LETTER:
            outcome = "dead_letter"
        elif state & _DUPLICATE:
            outcome = "duplicate"
        else:
            self._missing.append(Missing(origin=origin, post_id=post_id))
        self._counts[origin.partition][outcome] += 1
        if self._entries is not None:
            self._entries.append(Entry(origin=origin, post_id=post_id, outcome=outcome))

    @property
    def repeated(self) -> tuple[str, ...]:
        """The ids of findings that were delivered more than once for one record."""
        return tuple(self._repeated)

    def close(self, *, differing: Iterable[str] = (), kept: Mapping[int, int] | None = None) -> Ledger:
        """Return the ledger; records before the `kept` offsets may have been deleted meanwhile."""
        extra = list(self._extra)
        for partition, states in self._states.items():
            first = self._bounds[partition].first
            skip = max(0, (kept or {}).get(partition, first) - first)
            for index, state in enumerate(states[skip:], skip):
                if state and not state & _ACCEPTED:
                    extra.append(Origin(topic=self._topic, partition=partition, offset=first + index))
        partitions = tuple(self._counts_of(partition) for partition in sorted(self._counts))
        return Ledger(
            accepted=sum(one.accepted for one in partitions),
            findings=sum(one.findings for one in partitions),
            dead_letters=sum(one.dead_letters for one in partitions),
            duplicates=sum(one.duplicates for one in partitions),
            missing=tuple(self._missing),
            extra=tuple(extra),
            repeated=self.repeated,
            differing=tuple(differing),
            partitions=partitions,
            entries=tuple(self._entries or ()),
        )

    def _counts_of(self, partition: int) -> PartitionCounts:
        counts, bound = self._counts[partition], self._bounds[partition]
        return PartitionCounts(
            partition=partition,
            first=bound.first,
            end=bound.end,
            accepted=counts.total(),
            findings=counts["finding"],
            dead_letters=counts["dead_letter"],
            duplicates=counts["duplicate"],
            missing=counts[None],
        )

    def _finding(self, finding_id: str, place: tuple[int, int]) -> None:
        key = _compact(finding_id)
        first = self._first_record.setdefault(key, place)
        if first is place:
            return
        if first == place or self._states[place[0]][place[1] - self._bounds[place[0]].first] & _LATER:
            self._repeated[finding_id] = None
        if first != place:
            earlier, later = sorted((first, place))
            self._first_record[key] = earlier
            self._states[later[0]][later[1] - self._bounds[later[0]].first] |= _LATER


def _compact(finding_id: str) -> bytes:
    try:
        return bytes.fromhex(finding_id)
    except ValueError:
        return finding_id.encode()
