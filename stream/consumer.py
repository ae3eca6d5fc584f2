"""Joins and leaves the consumer group; what is read in between is the intake's business."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from dataclasses import dataclass
from typing import Any, Final

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError, UnknownMemberIdError
from aiokafka.protocol.group import HeartbeatRequest

from stream.broker import Broker
from stream.client import start_client
from stream.errors import StreamError
from stream.odd_headers import read_any_header_name
from stream.patience import rest_between_empty_fetches

log = logging.getLogger(__name__)

LEAVE_S: Final = 5.0
_CLOSE_S: Final = 1.0
_METADATA_MS: Final = 30_000


@dataclass(frozen=True, slots=True, kw_only=True)
class IntakeConfig:
    """How posts are taken in; bytes and posts in flight are bounds over all partitions of this worker."""

    broker: Broker
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


class InstanceTaken(StreamError):
    """Another member joined the consumer group under this one's name and so took its partitions."""


async def join(config: IntakeConfig, *, rebalance_timeout_s: float) -> AIOKafkaConsumer:
    """Return a connected consumer that joins the group as soon as it is subscribed.

    Its `getmany` raises `InstanceTaken` once another member has its name.

    Raises:
        KafkaConnectionError: no broker answers.
    """
    rest_between_empty_fetches()
    read_any_header_name()
    consumer = AIOKafkaConsumer(
        **config.broker.options(),
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
        metadata_max_age_ms=_METADATA_MS,  # within it, partitions that were added or made anew are seen
    )
    try:
        await start_client(consumer)
    except BaseException:
        await consumer.stop()
        raise
    _notice_namesake(consumer._coordinator, config)
    return consumer


async def leave(consumer: AIOKafkaConsumer) -> None:
    """Leave the group, so that another worker takes over at once, and close the consumer."""
    try:
        # a static member keeps its place by not saying goodbye: right after a crash, wrong after a stop
        consumer._coordinator._group_instance_id = None
        await asyncio.wait_for(consumer.stop(), LEAVE_S)
    except (TimeoutError, KafkaError, OSError) as error:  # the broker is away and finds out by itself
        log.warning("left without a goodbye to the group: %s", str(error) or type(error).__name__)
        with contextlib.suppress(TimeoutError):  # an interrupted `stop` leaves it connected
            await asyncio.wait_for(consumer._client.close(), _CLOSE_S)


def _notice_namesake(coordinator: Any, config: IntakeConfig) -> None:
    """Have the coordinator fail when its place in the group is taken twice within a session, as no pause can do.

    aiokafka takes the place back, as after a session that expired: two workers of one name would take it from each
    other for ever.
    """
    send = coordinator._send_req
    put_out_s = -math.inf

    async def send_and_look(request: Any) -> Any:
        nonlocal put_out_s
        response = await send(request)
        if isinstance(request, HeartbeatRequest) and response.error_code == UnknownMemberIdError.errno:
            before_s, put_out_s = put_out_s, time.monotonic()
            if put_out_s - before_s < config.session_timeout_s:
                raise InstanceTaken(
                    f"another worker joined {config.group} as {config.instance!r}: give each a name of its own"
                    " (setting instance, or on one host web_port)"
                )
        return response

    coordinator._send_req = send_and_look
