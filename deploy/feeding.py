"""Feeds the demo's sample posts, at a pace that can be followed; remembers their pictures for the page."""

from __future__ import annotations

import asyncio
import time

from aiokafka.errors import KafkaError

from deploy.board import Board
from deploy.gallery import Gallery
from deploy.replaying import post_producer
from deploy.sample_posts import sample_records
from stream.errors import BrokerUnavailable
from stream.headers import first_header
from stream.records import JSON
from workers.settings import Settings


async def feed(settings: Settings, board: Board, gallery: Gallery, *, n_posts: int | None, rate_per_s: float) -> None:
    """Send the samples, `n_posts` of them, and enter each on the board once it is delivered.

    Raises:
        BrokerUnavailable: a delivery failed.
    """
    records = list(sample_records(n_posts))
    board.n_to_send = len(records)
    topic = board.topics.posts.name
    async with post_producer(settings) as producer:
        start = time.monotonic()
        board.started_s = start
        for number, record in enumerate(records):
            await asyncio.sleep(max(0.0, start + number / rate_per_s - time.monotonic()))
            try:
                sent = await producer.send_and_wait(topic, record.value, key=record.key, headers=record.headers)
            except (KafkaError, OSError) as error:
                raise BrokerUnavailable(f"cannot send to {topic}: {error!r}") from error
            content_type = first_header(record.headers, "content-type") or JSON
            gallery.remember(sent.partition, sent.offset, record.value, content_type)
            board.n_sent += 1
            board.last_sent_s = time.monotonic()
