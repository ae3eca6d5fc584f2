"""Joins and leaves the consumer group; what is read in between is the intake's business."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Final

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError

from stream.odd_headers import read_any_header_name
from stream.patience import rest_between_empty_fetches

log = logging.getLogger(__name__)

LEAVE_S: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class IntakeConfig:
    """How posts are taken in; bytes and posts in flight are bounds over all partitions of this worker."""

    bootstrap: str
    topic: str
    group: str
    instance: str
    session_timeout_s: float
    max_stall_s: float
    request_timeout_s: float
    drain_timeout_s: float
    max_in_flight: int
    max_in_flight_bytes: int
    max_record_bytes: int
    max_fetch: int = 500


async def join(config: IntakeConfig, *, rebalance_timeout_s: float) -> AIOKafkaConsumer:
    """Return a connected consumer that joins the group as soon as it is subscribed.

    Raises:
        KafkaConnectionError: no broker answers.
    """
    rest_between_empty_fetches()
    read_any_header_name()
    consumer = AIOKafkaConsumer(
        bootstrap_servers=config.bootstrap,
        group_id=config.group,
        client_id=config.group,
        group_instance_id=config.instance,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
        session_timeout_ms=int(config.session_timeout_s * 1000),
        heartbeat_interval_ms=int(config.session_timeout_s * 1000 / 4),
        rebalance_timeout_ms=int(rebalance_timeout_s * 1000),
        max_poll_interval_ms=int(config.max_stall_s * 1000),
        request_timeout_ms=int(max(config.request_timeout_s, config.session_timeout_s + 5) * 1000),
        max_partition_fetch_bytes=config.max_record_bytes + 65_536,
        retry_backoff_ms=200,
    )
    try:
        await consumer.start()
    except BaseException:
        await consumer.stop()
        raise
    return consumer


async def leave(consumer: AIOKafkaConsumer) -> None:
    """Leave the group, so that another worker takes over at once, and close the consumer."""
    try:
        # a static member keeps its place by not saying goodbye: right after a crash, wrong after a stop
        consumer._coordinator._group_instance_id = None
        await asyncio.wait_for(consumer.stop(), LEAVE_S)
    except (TimeoutError, KafkaError, OSError) as error:  # the broker is away and finds out by itself
        log.warning("left without a goodbye to the group: %s", error or type(error).__name__)
