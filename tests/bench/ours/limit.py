"""The limit of the wire in one process: aiokafka from fetch to whole batch; no Faust, no decoding, no guard."""

from __future__ import annotations

import asyncio
import signal

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from tests.bench.terms import Terms, terms_from_command_line

_MAX_BATCH_BYTES = 4 * 1_048_576


async def run(terms: Terms) -> None:
    """Copy records until told to stop."""
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    consumer = AIOKafkaConsumer(
        terms.source,
        bootstrap_servers=terms.kafka,
        group_id=terms.group,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=_MAX_BATCH_BYTES,
    )
    producer = AIOKafkaProducer(
        bootstrap_servers=terms.kafka,
        enable_idempotence=True,
        acks="all",
        max_batch_size=_MAX_BATCH_BYTES,
        max_request_size=_MAX_BATCH_BYTES,
    )
    await consumer.start()
    await producer.start()
    try:
        while not stopped.is_set():
            deliveries = []
            for partition, records in (await consumer.getmany(timeout_ms=200, max_records=4_000)).items():
                batch = producer.create_batch()
                for record in records:
                    if batch.append(timestamp=None, key=record.key, value=record.value) is None:
                        raise RuntimeError("a fetch is larger than a batch: lower max_records")
                deliveries.append(await producer.send_batch(batch, terms.target, partition=partition.partition))
            if deliveries:
                await asyncio.gather(*deliveries)
                await consumer.commit()
    finally:
        await consumer.stop()
        await producer.stop()


if __name__ == "__main__":
    asyncio.run(run(terms_from_command_line()))
