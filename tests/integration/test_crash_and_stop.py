"""A worker that dies or stops loses nothing; another one, or the same anew, goes on."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.chaos.arena import check
from tests.chaos.field import Field, numbered
from tests.integration.conftest import OpenField

pytestmark = pytest.mark.integration


@pytest.fixture
def field(open_field: OpenField) -> Field:
    """Topics of the test's own."""
    return open_field("crash", partitions=4)


async def until_findings(field: Field, n_findings: int) -> None:
    """Wait until so many findings are on their topic."""
    for _ in range(400):
        if sum((await field.ends(field.topics.findings.name)).values()) >= n_findings:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"no {n_findings} findings\n{field.workers[-1].log()}")


def test_killed_worker_loses_nothing(field: Field, runner: asyncio.Runner) -> None:
    """SIGKILL amid a backlog, restart: every post has its outcome, and repeated findings are the same."""
    worker = field.worker(classifier="sleep:0.004")
    runner.run(field.feed(numbered(600)))
    runner.run(until_findings(field, 100))
    worker.kill()
    before = runner.run(field.ledger())
    assert before.missing, "the kill came too late to prove anything"
    assert runner.run(field.committed_without_outcome()) == 0
    field.worker(classifier="sleep:0.001")
    runner.run(field.settled(60))
    check(runner.run(field.ledger()), posts=600)


def test_sigterm_hands_over_at_once(field: Field, runner: asyncio.Runner) -> None:
    """A stopped worker finishes, commits and leaves; another takes over long before a session times out."""
    session_timeout_s = 30
    first = field.worker(classifier="sleep:0.004", session_timeout_s=session_timeout_s)
    second = field.worker(classifier="sleep:0.004", session_timeout_s=session_timeout_s, ready=False)
    runner.run(field.feed(numbered(400)))
    runner.run(until_findings(field, 50))
    start_s = time.monotonic()
    first.terminate()
    assert first.wait(20) == 0
    runner.run(field.settled(60))
    assert time.monotonic() - start_s < session_timeout_s
    ledger = runner.run(field.ledger())
    check(ledger, posts=400)
    assert not ledger.repeated, "a clean stop repeats nothing"
    assert second.is_alive


def test_restart_goes_on_where_it_stopped(field: Field, runner: asyncio.Runner) -> None:
    """A clean restart handles new posts once and old ones not again."""
    for round_number in range(2):
        worker = field.worker()
        runner.run(field.feed(numbered(100, start=100 * round_number)))
        runner.run(field.settled(60))
        worker.terminate()
        assert worker.wait(20) == 0
    ledger = runner.run(field.ledger())
    check(ledger, posts=200)
    assert ledger.findings == 200
    assert not ledger.repeated


def test_worker_whose_name_another_takes_ends_and_says_so(field: Field, runner: asyncio.Runner) -> None:
    """The two would take the partitions from each other for ever, and never look broken."""
    first = field.worker(classifier="sleep:0.004", instance="same")
    runner.run(field.feed(numbered(400)))
    runner.run(until_findings(field, 50))
    second = field.worker(classifier="sleep:0.004", instance="same")
    assert first.wait(20) == 1
    assert "another worker joined" in first.log() and "'same'" in first.log()
    runner.run(field.settled(60))
    check(runner.run(field.ledger()), posts=400)
    assert second.is_alive
