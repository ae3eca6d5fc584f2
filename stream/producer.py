"""Makes aiokafka's producers of whole batches and closes them, whatever the broker does; sends nothing."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Any, Final

from aiokafka import AIOKafkaProducer
from aiokafka.errors import InvalidMessageError, KafkaError, MessageSizeTooLargeError, RecordListTooLargeError

from stream.broker import Broker

log = logging.getLogger(__name__)

TOO_LARGE: Final = (MessageSizeTooLargeError, RecordListTooLargeError, InvalidMessageError)

_CLOSE_S: Final = 5.0


def retrieve(delivery: asyncio.Future[Any]) -> None:
    """Take the error of a delivery that nobody waits for any more, so that asyncio does not report it."""
    if not delivery.cancelled():
        delivery.exception()


def new_producer(
    broker: Broker, max_batch_bytes: int, request_timeout_s: float, *, transactional_id: str | None = None
) -> AIOKafkaProducer:
    """Return a producer of whole batches (idempotent, acks=all), not yet started."""
    return AIOKafkaProducer(
        **broker.options(),
        enable_idempotence=True,
        acks="all",
        max_batch_size=max_batch_bytes,
        max_request_size=max_batch_bytes,
        request_timeout_ms=int(request_timeout_s * 1000),
        transactional_id=transactional_id,
    )


def _retrieve_inner(producer: AIOKafkaProducer) -> None:
    """Take the errors that a producer which broke leaves in futures of its own."""
    inner = [batch._drain_waiter for some in producer._message_accumulator._batches.values() for batch in some]
    if producer._txn_manager is not None and (end := producer._txn_manager.wait_for_transaction_end()) is not None:
        inner.append(end)
    for future in inner:
        future.add_done_callback(retrieve)


async def close_producer(producer: AIOKafkaProducer) -> None:
    """Let it deliver what it can in a moment, then close it, whatever the broker does."""
    try:
        await asyncio.wait_for(producer.stop(), _CLOSE_S)
    except (TimeoutError, KafkaError, OSError) as error:
        log.info("a producer is closed by force: %s", str(error) or type(error).__name__)
        with contextlib.suppress(KafkaError):
            await producer._sender.close()  # an interrupted `stop` leaves it sending for ever
        await producer.client.close()
    _retrieve_inner(producer)
