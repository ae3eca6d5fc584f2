"""A field of its own for every regression test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from deploy.embedded import EmbeddedServices
from tests.chaos.field import Field, playing_field


@pytest.fixture
async def field(services: EmbeddedServices, tmp_path: Path) -> AsyncIterator[Field]:
    """Topics of one partition under a prefix of the test's own."""
    async with playing_field(
        kafka=services.kafka, redis=services.redis, name="regression", folder=tmp_path, partitions=1
    ) as ground:
        yield ground
