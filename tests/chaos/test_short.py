"""The short version of the fault suite, on the embedded broker; the full one is `python -m tests.chaos`."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.apache import ApacheKafka, usable_kafka_home
from tests.chaos.arena import Arena
from tests.chaos.brokers import Broker, Emulator
from tests.chaos.suite import SCENARIOS

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Play what can be played on the broker that the options name."""
    if "scenario" in metafunc.fixturenames:
        kind: type[Broker] = ApacheKafka if metafunc.config.getoption("--kafka-home") else Emulator
        fit = [name for name, entry in SCENARIOS.items() if not entry.unfit(kind, short=True)]
        metafunc.parametrize("scenario", fit)


@pytest.fixture(scope="module")
def arena(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arena]:
    """Servers that these tests may break."""
    home = request.config.getoption("--kafka-home")
    if importlib.util.find_spec("noida_db") is None:
        missing = "the extra `embedded` is not installed"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    if home and not usable_kafka_home(Path(home)):
        pytest.fail(f"no Apache Kafka in {home}, or no Java")
    folder: Path = tmp_path_factory.mktemp("chaos")
    broker = ApacheKafka(Path(home), folder / "kafka") if home else Emulator("kafka", folder / "kafka")
    redis = Emulator("redis", folder / "redis")
    try:
        yield Arena(broker=broker, redis=redis, folder=folder, short=True, kafka_home=Path(home) if home else None)
    finally:
        broker.stop()
        redis.stop()


async def test_no_post_is_lost(scenario: str, arena: Arena) -> None:
    """Whatever the fault, every post has its outcome and repeated findings are the same."""
    row = await SCENARIOS[scenario].run(arena)
    assert row.posts > 0
    assert (row.missing, row.differing) == (0, 0)
