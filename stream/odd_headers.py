"""Has our consumers read records whose header names are no UTF-8: aiokafka fails at each, and the partition with it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any, SupportsIndex, overload

from aiokafka.consumer import fetcher
from aiokafka.record.default_records import _DefaultRecordBatchPy
from aiokafka.record.memory_records import MemoryRecords, _MemoryRecordsPy
from aiokafka.record.util import decode_varint_py


def read_any_header_name() -> None:
    """Have every aiokafka consumer of this process go on at such a name, with U+FFFD in it. Idempotent."""
    fetcher.MemoryRecords = _Records


class _Records:
    """The batches of one fetch of a partition; stands where aiokafka has its `MemoryRecords`."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._records = MemoryRecords(data)
        self._n_batches = 0
        self.has_next = self._records.has_next
        self.size_in_bytes = self._records.size_in_bytes

    def next_batch(self) -> _Batch:
        self._n_batches += 1
        return _Batch(self._records.next_batch(), self._data, self._n_batches - 1)


class _Batch:
    """One batch, read by aiokafka's quick reader up to a name that it refuses, and by its lenient one from there."""

    def __init__(self, batch: Any, data: bytes, number: int) -> None:
        self._batch = batch
        self._data = data
        self._number = number

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)

    def __next__(self) -> Any:
        return next(self._batch)

    def __iter__(self) -> Iterator[Any]:
        n_read = 0
        try:
            for record in self._batch:
                n_read += 1
                yield record
        except UnicodeDecodeError:
            yield from islice(self._leniently(), n_read, None)

    def _leniently(self) -> Iterator[Any]:
        records = _MemoryRecordsPy(self._data)
        for _ in range(self._number):
            records.next_batch()
        return iter(_LenientBatch(records._next_slice))


class _LenientBatch(_DefaultRecordBatchPy):  # type: ignore[misc]  # it is final to type checkers only
    _buffer: bytearray

    def _maybe_uncompress(self) -> None:
        super()._maybe_uncompress()
        self._buffer = _Buffer(self._buffer)

    def _read_msg(self) -> Any:
        return super()._read_msg(decode_varint_py)  # the quick one takes no other buffer


class _Buffer(bytearray):
    """Whose slices can be decoded whatever they hold."""

    @overload
    def __getitem__(self, key: SupportsIndex) -> int: ...
    @overload
    def __getitem__(self, key: slice) -> _Text: ...
    def __getitem__(self, key: SupportsIndex | slice) -> int | _Text:
        found = super().__getitem__(key)
        return found if isinstance(found, int) else _Text(found)


class _Text(bytearray):
    def decode(self, encoding: str = "utf-8", errors: str = "replace") -> str:
        return super().decode(encoding, errors)
