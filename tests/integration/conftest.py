"""A field with workers on the session's Kafka and Redis, and what one reads back from it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka import ConsumerRecord

from deploy.embedded import EmbeddedServices
from stream.broker import Broker
from stream.reader import read_topic
from tests.chaos.field import Field, playing_field

OpenField = Callable[..., Field]


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    """One event loop for what a module sets up and reads back."""
    with asyncio.Runner() as running:
        yield running


@pytest.fixture(scope="module")
def open_field(
    services: EmbeddedServices, runner: asyncio.Runner, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[OpenField]:
    """Make fields: topics of their own, whose workers end with the module."""
    opened = []

    def make(name: str, **settings: Any) -> Field:
        folder: Path = tmp_path_factory.mktemp(name)
        field = playing_field(kafka=services.kafka, redis=services.redis, name=name, folder=folder, **settings)
        opened.append(field)
        return runner.run(field.__aenter__())

    yield make
    for field in opened:
        runner.run(field.__aexit__(None, None, None))


async def read_all(kafka: str, topic: str) -> list[ConsumerRecord]:
    """Return every record of the topic."""
    return [record async for record in read_topic(Broker(kafka), topic)]
