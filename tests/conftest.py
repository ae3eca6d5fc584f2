"""Servers for the tests: embedded by default, or those that the options name."""

from __future__ import annotations

import gc
import importlib.util
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.embedded import EmbeddedServices, embedded


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the tests use servers of one's own."""
    parser.addoption("--kafka", metavar="HOST:PORT", help="a Kafka broker of your own")
    parser.addoption("--redis", metavar="URL", help="a Redis of your own")
    parser.addoption("--kafka-home", metavar="DIR", help="an unpacked Apache Kafka to start; needs Java 17")


def pytest_configure() -> None:
    """Take SIGINT again where a shell started the tests in the background: they send it, and children inherit that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def services(request: pytest.FixtureRequest) -> Iterator[EmbeddedServices]:
    """Kafka and Redis for the session; a missing one skips here and fails in CI."""
    kafka, redis = request.config.getoption("--kafka"), request.config.getoption("--redis")
    home = request.config.getoption("--kafka-home")
    if importlib.util.find_spec("noida_db") is None and not (redis and (kafka or home)):
        missing = "the extra `embedded` is not installed"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    with embedded(kafka=kafka, redis=redis, kafka_home=Path(home) if home else None) as started:
        yield started


@pytest.fixture(scope="module", autouse=True)
def _nothing_left_to_search() -> None:
    """Keep the collector off what earlier modules left: its pauses, of up to a second, would count as the worker's."""
    gc.collect()
    gc.freeze()
