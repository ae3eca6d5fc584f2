"""The short version of the fault suite, on the embedded broker; the full one is `python -m tests.chaos`."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.arena import Arena
from tests.chaos.brokers import Emulator
from tests.chaos.suite import SCENARIOS

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def arena(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arena]:
    """Servers that these tests may break."""
    if importlib.util.find_spec("noida_db") is None:
        missing = "the extra `embedded` is not installed"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    folder: Path = tmp_path_factory.mktemp("chaos")
    broker, redis = Emulator("kafka", folder / "kafka"), Emulator("redis", folder / "redis")
    try:
        yield Arena(broker=broker, redis=redis, folder=folder, short=True)
    finally:
        broker.stop()
        redis.stop()


@pytest.mark.parametrize("name", [name for name, entry in SCENARIOS.items() if entry.short and not entry.apache])
async def test_no_post_is_lost(name: str, arena: Arena) -> None:
    """Whatever the fault, every post has its outcome and repeated findings are the same."""
    row = await SCENARIOS[name].run(arena)
    assert row.posts > 0
    assert (row.missing, row.differing) == (0, 0)
