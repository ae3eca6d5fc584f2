"""A record whose header has a name that is no UTF-8 is read like any other."""

from __future__ import annotations

from typing import Any

import pytest
from aiokafka.consumer.fetcher import READ_COMMITTED, PartitionRecords
from aiokafka.record.default_records import DefaultRecordBatch, _DefaultRecordBatchBuilderPy
from aiokafka.structs import TopicPartition

from stream.odd_headers import _Records


class OddName(str):
    """Its bytes are no UTF-8, as a producer in C may write them."""

    def encode(self, *args: Any) -> bytes:
        return b"\xff\xfename"


def batch(first: int, names: list[str], *, compression: int) -> bytes:
    builder = _DefaultRecordBatchBuilderPy(
        magic=2,
        compression_type=compression,
        is_transactional=0,
        producer_id=-1,
        producer_epoch=-1,
        base_sequence=0,
        batch_size=1_000_000,
    )
    for number, name in enumerate(names):
        builder.append(number, 1_000 + number, b"key", b"value %d" % number, [(name, b"x")])
    data = bytearray(builder.build())
    data[:8] = first.to_bytes(8, "big")  # the base offset is no part of the checksum
    return bytes(data)


@pytest.mark.parametrize("compression", [0, DefaultRecordBatch.CODEC_GZIP])
def test_odd_name_loses_neither_its_record_nor_a_neighbour(compression: int) -> None:
    data = batch(10, ["a", "b"], compression=compression)
    data += batch(12, ["c", OddName("d"), "e", OddName("f")], compression=compression)
    data += batch(16, ["g"], compression=compression)

    read = list(PartitionRecords(TopicPartition("t", 0), _Records(data), [], 10, None, None, True, READ_COMMITTED))

    assert [record.offset for record in read] == list(range(10, 17))
    assert [record.value for record in read] == [b"value %d" % n for n in (0, 1, 0, 1, 2, 3, 0)]
    odd = "\ufffd\ufffdname"
    assert [record.headers for record in read] == [((name, b"x"),) for name in ("a", "b", "c", odd, "e", odd, "g")]
