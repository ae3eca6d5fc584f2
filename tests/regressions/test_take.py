"""Rows 1 to 4 and 16 of what Faust does with `stream.take`: batches acknowledged unhandled, agents dead but alive."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import pytest

from model import Example, Prediction
from tests.chaos.classifiers import StubClassifier
from tests.chaos.field import Field, Raw
from tests.regressions.ground import NAIVE, naive, posts, running, sitrep_app, status_of, until
from workers.health import healthy

pytestmark = pytest.mark.integration

N = 40


async def test_batch_that_raises_is_not_acknowledged(field: Field) -> None:
    """Row 1: `take` acknowledges the batch whose body raised. Here the bad post alone becomes a dead letter."""
    await field.feed(posts(N, texts={7: "[raise]"}))
    with naive("take-raises", field) as worker:
        async with running(field):
            await field.settled(20)
        await field.settled(20, role=NAIVE)
        await worker.quiet()
        n_lost = N - len(worker.handled)
    ledger = await field.ledger()
    assert n_lost >= 5, "Faust no longer loses the batch: the row can be struck"
    assert (ledger.findings, ledger.dead_letters, ledger.missing) == (N - 1, 1, ())


async def test_posts_that_come_while_a_failure_is_handled_are_handled(field: Field) -> None:
    """Row 2: while Faust's agent is down, its stream goes on and acknowledges what nobody sees."""
    await field.feed(posts(N, texts={0: "[raise]", 1: "[raise]"}))
    with naive("take-raises-and-is-awaited", field) as worker:
        async with running(field, StubClassifier(seconds_per_post=0.005), max_batch=5) as app:
            await field.settled(20)
            assert app.failure is None
        await field.settled(20, role=NAIVE)
        await worker.quiet()
        n_lost = N - len(worker.handled)
    ledger = await field.ledger()
    assert n_lost > 5, "more than the failed batch"
    assert (ledger.findings, ledger.dead_letters, ledger.missing) == (N - 2, 2, ())


async def test_agent_that_fails_stops_its_worker_and_loses_nothing(field: Field) -> None:
    """Row 3 and 13: with the generator in a variable, Faust's agent is wedged while its pages answer 200.

    Here an error that leaves a stage makes the worker unhealthy and stops it; the next one handles every post.
    """
    await field.feed(posts(N))
    app = sitrep_app(field)

    async def defect(fetched: object) -> None:
        raise RuntimeError("a defect of ours")

    app.pipeline.on_fetched = defect  # type: ignore[method-assign]
    with naive("take-in-a-variable", field) as worker:
        await app.start()
        await until(lambda: app.failure is not None)
        assert not healthy(app)["ok"]
        await app.stop()
        async with running(field) as next_app:
            await field.settled(20)
            assert await status_of(next_app.pipeline.settings.web_port, "/healthz") == 200
        await until(lambda: "one bad post" in worker.log, why=lambda: worker.log)
        await asyncio.sleep(0.5)
        assert (worker.is_alive, worker.handled) == (True, set())
        assert await status_of(worker.web_port, "/") == 200
    ledger = await field.ledger()
    assert (ledger.findings, ledger.missing) == (N, ())


async def test_bytes_that_are_no_record_become_a_dead_letter(field: Field) -> None:
    """Row 4: a value that Faust cannot decode under `take` ends the agent without a word."""
    records = posts(N)
    records[12] = Raw(key=b"post-12", value=b"{not json", partition=0)
    await field.feed(records)
    with naive("take-decodes", field) as worker:
        async with running(field):
            await field.settled(20)
        await field.settled(20, role=NAIVE)
        await worker.quiet()
        assert worker.is_alive
        n_lost = N - 1 - len(worker.handled)
    ledger = await field.ledger()
    assert n_lost > 5
    assert (ledger.findings, ledger.dead_letters, ledger.missing) == (N - 1, 1, ())


async def test_linger_starts_at_the_first_post(field: Field) -> None:
    """Row 16: the timer of `take` runs from the last batch, so two posts half a linger apart come alone."""
    sizes: list[int] = []

    class Noting(StubClassifier):
        def predict(self, examples: Sequence[Example]) -> list[Prediction]:
            sizes.append(len(examples))
            return super().predict(examples)

    with naive("take-now-and-then", field) as worker:
        async with running(field, Noting(), linger_s=2.0, max_batch=10):
            first, second, third = posts(3)
            await field.feed([first])
            await until(lambda: worker.notes and sizes, why=lambda: worker.log)
            dispatched_s = worker.notes[0][1]  # from here on Faust's timer fires every two seconds
            await asyncio.sleep((1.3 - (time.time() - dispatched_s)) % 2.0)
            await field.feed([second])
            await asyncio.sleep(1.0)
            await field.feed([third])
            await until(lambda: sum(sizes) == 3)
        await until(lambda: len(worker.notes) == 3)
        assert [size for size, _ in worker.notes] == [1, 1, 1]
    assert sizes == [1, 2]
