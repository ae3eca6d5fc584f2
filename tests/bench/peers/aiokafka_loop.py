"""A plain aiokafka loop: batches with manual commits, sends gathered before the commit, as its documentation shows."""

from __future__ import annotations

import asyncio
import json
import signal
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from redis.asyncio import Redis

from stream.records import encode
from tests.bench.terms import Terms, terms_from_command_line
from tests.bench.work import Place, Publisher, classifier_for, prepare, store, transform

# as many as ours fetches at once; without a bound the first fetch is half the run, and its work comes before any output
_MAX_RECORDS = 4_000


async def run(terms: Terms) -> None:
    """Consume, work, produce and commit until told to stop."""
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    redis: Any = Redis.from_url(terms.redis)
    publisher = None if terms.job == "bare" else Publisher(classifier_for(terms), source="/bench/aiokafka")
    consumer = AIOKafkaConsumer(
        terms.source,
        bootstrap_servers=terms.kafka,
        group_id=terms.group,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
    )
    producer = AIOKafkaProducer(bootstrap_servers=terms.kafka, acks="all", enable_idempotence=True)
    await consumer.start()
    await producer.start()
    max_records = _MAX_RECORDS if terms.classifier == "free" else terms.max_batch
    try:
        while not stopped.is_set():
            fetched = await consumer.getmany(timeout_ms=200, max_records=max_records)
            records = [record for some in fetched.values() for record in some]
            if not records:
                continue
            if publisher is None:
                sends = [_transformed(record) for record in records]
            else:
                findings = await asyncio.to_thread(
                    publisher.findings, [prepare(record.value, _place(record)) for record in records]
                )
                sends = [(one.post_id.encode(), encode(one), publisher.headers(one)) for one in findings]
            deliveries = [
                await producer.send(terms.target, value, key=key, headers=headers) for key, value, headers in sends
            ]
            await asyncio.gather(*deliveries)
            if publisher is not None:
                async with redis.pipeline(transaction=False) as pipeline:
                    store(pipeline, terms.prefix, findings)
                    await pipeline.execute()
            await consumer.commit()
    finally:
        await consumer.stop()
        await producer.stop()
        await redis.aclose()


def _transformed(record: Any) -> tuple[bytes, bytes, list[tuple[str, bytes]]]:
    return record.key, json.dumps(transform(json.loads(record.value))).encode(), []


def _place(record: Any) -> Place:
    return Place(topic=record.topic, partition=record.partition, offset=record.offset, timestamp_ms=record.timestamp)


if __name__ == "__main__":
    asyncio.run(run(terms_from_command_line()))
