"""What other people's senders do: compress, correct a post at once, and stamp records with the time of an event."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer, ConsumerRecord
from PIL import Image as Pillow

from deploy.embedded import EmbeddedServices
from stream.broker import Broker
from stream.reader import read_topic
from stream.records import Finding, Image, Post, decode, encode
from stream.topics import Topic
from tests.chaos.classifiers import StubClassifier
from tests.chaos.field import Field, Raw, playing_field
from tests.regressions.ground import running
from tests.stream.pictures import halves, saved

pytestmark = pytest.mark.integration


@pytest.fixture
async def field(services: EmbeddedServices, tmp_path: Path):  # type: ignore[no-untyped-def]
    """Topics of one partition, without a worker."""
    async with playing_field(
        kafka=services.kafka, redis=services.redis, name="senders", folder=tmp_path, partitions=1
    ) as ground:
        yield ground


async def test_posts_are_read_whatever_their_producer_compresses_them_with(field: Field) -> None:
    codecs = ("gzip", "snappy", "lz4", "zstd")
    for codec in codecs:
        producer = AIOKafkaProducer(bootstrap_servers=field.kafka, compression_type=codec)
        await producer.start()
        try:
            value = encode(Post(id=codec, text="the bridge is down " * 20))
            await producer.send_and_wait(field.topics.posts.name, value, partition=0)
        finally:
            await producer.stop()
    async with running(field):
        await field.settled(20)
    assert {finding.post_id for finding in await findings(field)} == set(codecs)


async def test_corrected_post_that_comes_while_the_broken_one_is_in_flight_is_classified(field: Field) -> None:
    """Held for a duplicate of what becomes a dead letter, it would have no finding."""
    picture = saved(halves(), "PNG")
    broken = [Post(id="picture", images=[Image(data=picture[:40])]), Post(id="text", text="[raise] for the model")]
    corrected = [Post(id="picture", images=[Image(data=picture)]), Post(id="text", text="bridge down, corrected")]
    copies = [Post(id="text", text="bridge down, corrected")]
    records = [Raw(value=encode(post), key=b"k", partition=0) for post in (*broken, *corrected, *copies)]
    await field.feed(records)
    async with running(field):
        await field.settled(20)
    ledger = await field.ledger()
    assert sorted(finding.post_id for finding in await findings(field)) == ["picture", "text"]
    assert (ledger.findings, ledger.dead_letters, ledger.duplicates, ledger.missing) == (2, 2, 1, ())


async def test_corrected_post_is_classified_with_the_stages_apart_as_well(field: Field) -> None:
    """The stage that gave it up is not the one that remembers it; what was classified stays known."""
    field.worker(stage="prepare")
    field.worker(stage="classify")
    first = [Post(id="text", text="[raise] for the model"), Post(id="other", text="bridge down")]
    await field.feed([Raw(value=encode(post), partition=0) for post in first])
    await field.settled(20)
    async with asyncio.timeout(20):
        while (await field.ledger()).missing:
            await asyncio.sleep(0.1)
    await asyncio.sleep(1.0)  # until the letter was read
    again = [Post(id="text", text="bridge down, corrected"), Post(id="other", text="bridge down")]
    await field.feed([Raw(value=encode(post), partition=0) for post in again])
    async with asyncio.timeout(20):
        while (ledger := await field.ledger()).missing or ledger.accepted < 4:
            await asyncio.sleep(0.1)
    assert sorted(finding.post_id for finding in await findings(field)) == ["other", "text"]
    assert (ledger.findings, ledger.dead_letters, ledger.duplicates, ledger.missing) == (2, 1, 1, ())


async def test_post_stamped_with_the_time_of_its_event_is_kept_from_when_it_came(field: Field) -> None:
    """By the sender's time, Kafka would delete a post older than the topic's retention before it is read."""
    await field.feed([Raw(value=encode(Post(id="old", text="bridge down")), timestamp_ms=1_000)])
    async with running(field):
        await field.settled(20)
    [finding] = await findings(field)
    assert abs(finding.accepted_at.timestamp() - time.time()) < 60


async def findings(field: Field) -> list[Finding]:
    return [decode(record.value, Finding) for record in await read_all(field.kafka, field.topics.findings)]


async def read_all(kafka: str, topic: Topic) -> list[ConsumerRecord]:
    return [record async for record in read_topic(Broker(kafka), topic.name)]


async def test_decoded_pictures_are_bounded_when_the_classifier_is_slow(field: Field) -> None:
    """A small file may become a hundred times its bytes; none is decoded before there is room for it."""
    picture = saved(Pillow.new("RGB", (300, 300), "red"), "PNG")
    decoded, limit, n_posts = 300 * 300 * 3, 2_000_000, 60
    posts = [Post(id=f"p{number}", text="bridge down", images=[Image(data=picture)]) for number in range(n_posts)]
    assert n_posts * len(picture) < limit < n_posts * decoded / 4
    await field.feed([Raw(value=encode(post), partition=0) for post in posts])
    flags = {"max_in_flight_bytes": limit, "image_processes": 2, "image_edge": 300, "max_batch": 4}
    async with running(field, StubClassifier(seconds_per_post=0.03), **flags) as app:
        most = 0
        while (await field.ledger()).findings < n_posts:
            most = max(most, app.pipeline.intake.n_bytes_held)
            await asyncio.sleep(0.05)
        assert app.failure is None
        assert app.pipeline.intake.n_bytes_held == 0
    assert limit / 2 < most < limit + 2 * decoded
