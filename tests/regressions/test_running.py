"""Rows 10 to 15: heartbeats, memory, what is reported, what is kept on the broker, and how a worker stops."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence

import faust
import pytest
from aiokafka.admin import AIOKafkaAdminClient

from model import Example, Prediction
from tests.chaos.classifiers import StubClassifier
from tests.chaos.field import Field
from tests.regressions.ground import NAIVE, naive, posts, running, sitrep_app, status_of, until

pytestmark = [pytest.mark.integration, pytest.mark.alone]


async def test_busy_classifier_does_not_stop_the_heartbeats(field: Field) -> None:
    """Row 10: a classifier that computes in the agent's body stops the loop, and the heartbeats with it."""
    await field.feed(posts(3))
    gaps: list[float] = []

    async def watch() -> None:
        while True:
            start = time.monotonic()
            await asyncio.sleep(0.05)
            gaps.append(time.monotonic() - start)

    with naive("blocked-loop", field) as worker:
        async with running(field, StubClassifier(seconds_per_post=0.6), max_batch=3) as app:
            watching = asyncio.create_task(watch())
            await field.settled(20)
            watching.cancel()
            assert app.pipeline.inference is not None and app.pipeline.inference.device.busy_s >= 1.8
            assert app.pipeline.intake.n_rebalances == 1
        await until(lambda: any(gap >= 1.5 for [gap] in worker.notes), why=lambda: worker.log)
    assert max(gaps) < 1.0


async def test_posts_in_flight_are_bounded(field: Field) -> None:
    """Row 11: Faust takes in 4096 events before it stops, be they of a megabyte each."""
    assert faust.App("default").conf.stream_buffer_maxsize == 4096
    await field.feed(posts(400))
    with naive("slow-body", field) as worker:
        async with running(field, StubClassifier(seconds_per_post=0.02), max_in_flight=20, max_batch=4) as app:
            assert app.pipeline.inference is not None
            seen, n_committed = [], 0
            start = time.monotonic()
            while time.monotonic() - start < 1.5 or (not n_committed and time.monotonic() - start < 15):
                seen.append((app.pipeline.intake.n_in_flight, len(app.pipeline.inference.batcher)))
                await asyncio.sleep(0.01)
                if time.monotonic() - start > 1.5:
                    n_committed = (await field.committed()).get(0, 0)
            assert 0 < n_committed < 400
        await until(lambda: worker.notes, why=lambda: worker.log)
        assert worker.notes[0][0] > 300
    assert 4 < max(n for n, _ in seen) <= 20
    assert max(n for _, n in seen) <= 20


async def test_metrics_are_true_and_nothing_is_kept_on_the_broker(field: Field) -> None:
    """Row 12: under `take`, Faust's monitor never sees an event end. Ours counts by itself, in seconds.

    Row 14: tables leave topics behind that recovery sticks on. Ours has none: its state is in Redis.
    """
    await field.feed(posts(40))
    with naive("monitored-take", field) as worker:
        async with running(field) as app:
            await field.settled(20)
            await until(lambda: read(app, "sitrep_in_flight_posts") == 0)
            assert read(app, "sitrep_posts_total", outcome="finding") == 40
            assert read(app, "sitrep_end_to_end_latency_seconds_count") == 40
            assert 0 < read(app, "sitrep_end_to_end_latency_seconds_sum") < 40 * 60
            assert not app.tables
        await field.settled(20, role=NAIVE)
        await until(lambda: len(worker.handled) == 40, why=lambda: worker.log)
        await asyncio.sleep(0.5)
        _, n_received, n_active, n_runtimes = worker.notes[-1]
        assert (n_received, n_active, n_runtimes) == (40, 40, 0)
    admin = AIOKafkaAdminClient(bootstrap_servers=field.kafka)
    await admin.start()
    try:
        names = {name for name in await admin.list_topics() if name.startswith(field.prefix)}
    finally:
        await admin.close()
    assert names == {topic.name for topic in field.topics.all()}


async def test_pages_tell_that_nothing_moves(field: Field) -> None:
    """Row 13: Faust's pages answer 200 while its agents are dead (seen in `test_take`). Ours do not."""
    released = threading.Event()

    class Hanging(StubClassifier):
        def predict(self, examples: Sequence[Example]) -> list[Prediction]:
            released.wait()
            return super().predict(examples)

    async with running(field, Hanging(), ready_stall_s=0.2) as app:
        port = app.pipeline.settings.web_port
        await until(lambda: app.pipeline.intake.n_rebalances > 0 and app.pipeline.cache_writer.available)
        assert (await status_of(port, "/readyz"), await status_of(port, "/healthz")) == (200, 200)
        await field.feed(posts(3))
        await until(lambda: app.pipeline.stalled_s > 0.2)
        assert await status_of(port, "/readyz") == 503
        await until(lambda: app.pipeline.stalled_s > 1.0)
        assert await status_of(port, "/healthz") == 503
        released.set()
        await field.settled(20)
        await until(lambda: app.pipeline.stalled_s == 0)  # the lag is looked at once a second
        assert (await status_of(port, "/readyz"), await status_of(port, "/healthz")) == (200, 200)


async def test_long_linger_does_not_hold_up_a_stop(field: Field) -> None:
    """Row 15: a worker that waits half a minute to fill a batch stops at once, with its posts finished.

    Faust's stops once `within` is over.
    """
    await field.feed(posts(10))
    with naive("take-within-long", field) as worker:
        await until(lambda: "Worker ready" in worker.log, why=lambda: worker.log)
        async with running(field, linger_s=30, max_batch=1_000, drain_timeout_s=15) as app:
            await until(lambda: len(app.pipeline.inference.batcher) == 10)
            worker.interrupt()
            start = time.monotonic()
        took_s = time.monotonic() - start
        await asyncio.sleep(max(0.0, 3.0 - took_s))
        assert worker.is_alive and not worker.handled
    assert took_s < 10.0
    assert await field.committed() == {0: 10}
    ledger = await field.ledger()
    assert (ledger.findings, ledger.missing) == (10, ())


async def test_lost_cancellation_does_not_hold_up_a_stop(field: Field, monkeypatch: pytest.MonkeyPatch) -> None:
    """Faust cancels each future of a service once and waits: one that misses it is waited for without end."""
    monkeypatch.setattr("stream.ending._AGAIN_S", 0.1)
    app = sitrep_app(field)
    n_missed = 0

    async def miss_one() -> None:
        nonlocal n_missed
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                n_missed += 1
                if n_missed == 2:
                    raise

    app.pipeline.cache_writer.run_checks = miss_one  # type: ignore[method-assign]
    await app.start()
    await until(lambda: app.pipeline.intake.n_rebalances > 0)
    await asyncio.wait_for(app.stop(), 10)
    assert n_missed == 2


def read(app: object, name: str, **labels: str) -> float:
    """Return a metric of the worker."""
    value = app.pipeline.metrics.registry.get_sample_value(name, labels)  # type: ignore[attr-defined]
    assert value is not None, name
    return float(value)
