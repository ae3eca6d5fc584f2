"""Posts that their topic deletes while no worker reads it: nobody can classify them, but an operator is told."""

from __future__ import annotations

import asyncio

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from tests.chaos.field import Field, numbered
from tests.integration.conftest import OpenField

pytestmark = pytest.mark.integration


async def _delete_before(field: Field, offset: int) -> None:
    """Do what retention does."""
    admin = AIOKafkaAdminClient(bootstrap_servers=field.kafka)
    await admin.start()
    try:
        await admin.delete_records({TopicPartition(field.topics.posts.name, 0): RecordsToDelete(before_offset=offset)})
    finally:
        await admin.close()


def test_posts_that_were_deleted_unread_are_told(open_field: OpenField, runner: asyncio.Runner) -> None:
    """aiokafka passes over them without a word, and the ledger reads what is on the topic."""
    field = open_field("expired", partitions=1, log_level="warning")
    worker = field.worker()
    runner.run(field.feed(numbered(5)))
    runner.run(field.settled(20))
    worker.terminate()
    worker.wait(20)
    runner.run(field.feed(numbered(10)))
    runner.run(_delete_before(field, 12))

    worker = field.worker()
    runner.run(field.settled(20))

    assert worker.metrics()["sitrep_expired_posts_total"] == 7
    assert "7 posts from offset 5 on were deleted unread" in worker.log()
    assert runner.run(field.ledger()).accepted == 3
