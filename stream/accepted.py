"""What the intake hands out: fetches and their single records, and how to say that outcomes are delivered."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from operator import attrgetter
from typing import overload

from aiokafka import ConsumerRecord
from msgspec import Struct

from stream.headers import Headers
from stream.offsets import Lease


class Accepted(Struct, frozen=True, eq=False, gc=False):
    """One record taken in; whoever has delivered its outcome calls `confirm`."""

    record: ConsumerRecord
    lease: Lease

    @property
    def lost(self) -> bool:
        """Whether the partition has gone to another worker, which handles the record again."""
        return self.lease.lost

    def hold(self, n_bytes: int) -> None:
        """Count what was made of the record besides, until it is confirmed."""
        self.lease.hold(self.record.offset, n_bytes)

    def confirm(self) -> None:
        """Say that the record's outcome is delivered; idempotent, never blocks."""
        [n_bytes] = sizes_bytes([self.record])
        self.lease.confirm(self.record.offset, n_bytes)


class Fetched(Sequence[Accepted]):
    """The records of one fetch of one partition: one by one as `Accepted`, or all at once as they are."""

    __slots__ = ("lease", "records")

    def __init__(self, records: Sequence[ConsumerRecord], lease: Lease) -> None:
        self.records = records
        self.lease = lease

    @property
    def partition(self) -> int:
        """The number of the partition."""
        return int(self.lease.partition.partition)

    def confirm(self) -> None:
        """Say that the outcomes of all records are delivered; idempotent, never blocks."""
        _confirm(self.lease, self.records)

    def __iter__(self) -> Iterator[Accepted]:
        lease = self.lease
        return (Accepted(record, lease) for record in self.records)

    def __len__(self) -> int:
        return len(self.records)

    @overload
    def __getitem__(self, index: int) -> Accepted: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Accepted]: ...

    def __getitem__(self, index: int | slice) -> Accepted | Sequence[Accepted]:
        if isinstance(index, slice):
            return Fetched(self.records[index], self.lease)
        return Accepted(self.records[index], self.lease)


def confirm_all(accepted: Iterable[Accepted]) -> None:
    """Say that the outcomes of these records are delivered; one call for many is a fraction of the cost."""
    for lease, some in groupby(accepted, key=attrgetter("lease")):
        _confirm(lease, [one.record for one in some])


def sizes_bytes(records: Sequence[ConsumerRecord]) -> list[int]:
    """Return what each record counts against the bytes in flight."""
    return [
        len(record.value or b"") + len(record.key or b"") + (_headers_bytes(record.headers) if record.headers else 0)
        for record in records
    ]


def _headers_bytes(headers: Headers) -> int:
    return sum(len(name) + len(value or b"") for name, value in headers)


def _confirm(lease: Lease, records: Sequence[ConsumerRecord]) -> None:
    lease.confirm_many([record.offset for record in records], sizes_bytes(records))
