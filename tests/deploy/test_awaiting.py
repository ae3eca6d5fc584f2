"""Waiting for outcomes: of the records that were sent, and of no others."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from deploy import awaiting
from deploy.awaiting import wait_for_outcomes
from deploy.failure import CommandFailed
from stream.broker import Broker
from stream.headers import POST_ORIGIN, REPLAYED
from stream.records import Origin, encode
from stream.topics import topics
from tests.stream.findings import finding

TOPICS = topics(prefix="t.", n_partitions=2, max_record_bytes=1_000)


def found(partition: int, offset: int, *, topic: str = TOPICS.posts.name, took_s: float = 1.0) -> Any:
    one = msgspec.structs.replace(finding(1), origin=Origin(topic=topic, partition=partition, offset=offset))
    published = one.accepted_at + timedelta(seconds=took_s)
    return SimpleNamespace(
        topic=TOPICS.findings.name, value=encode(one), headers=[], timestamp=published.timestamp() * 1000
    )


def letter(*headers: tuple[str, bytes], value: bytes | None = b"{") -> Any:
    return SimpleNamespace(
        topic=TOPICS.dead_letters.name, partition=0, offset=0, key=None, value=value, headers=headers, timestamp=0
    )


async def waited(
    monkeypatch: pytest.MonkeyPatch, sent: dict[int, set[int]], *polls: list[Any]
) -> tuple[list[float], list[int]]:
    """Latencies and progress of a wait to which each poll brings records, the last one again and again."""
    left = list(polls)

    async def new(*_: object) -> AsyncIterator[Any]:
        for record in left.pop(0) if len(left) > 1 else left[0]:
            yield record

    monkeypatch.setattr(awaiting, "_new_outcomes", new)
    monkeypatch.setattr(awaiting, "_POLL_S", 0.01)
    monkeypatch.setattr(awaiting, "_PATIENCE_S", 0.2)
    progress: list[int] = []
    return await wait_for_outcomes(Broker(""), TOPICS, sent, since={}, on_progress=progress.append), progress


async def test_it_ends_when_each_record_has_its_outcome(monkeypatch: pytest.MonkeyPatch) -> None:
    """A finding or a dead letter; findings of others, and what cannot be read, change nothing."""
    others = [found(1, 5), found(0, 4, topic="other"), SimpleNamespace(topic=TOPICS.findings.name, value=b"{")]
    dead = letter((POST_ORIGIN, f"{TOPICS.posts.name}/1/4".encode()))

    latencies_s, progress = await waited(
        monkeypatch, {0: {4, 5}, 1: {4}}, others, [found(0, 5, took_s=3), found(0, 5, took_s=9)], [dead, found(0, 4)]
    )

    assert latencies_s == pytest.approx([1, 3])
    assert progress == [0, 1, 3]


async def test_nothing_sent_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert await waited(monkeypatch, {}, []) == ([], [0])


@pytest.mark.parametrize(
    "others",
    [[found(0, 6)], [found(1, 0)], [letter((REPLAYED, b"t.posts-0-5/1"), value=None)]],
    ids=["later", "elsewhere", "marker"],
)
async def test_outcomes_of_others_do_not_keep_it_waiting(monkeypatch: pytest.MonkeyPatch, others: list[Any]) -> None:
    """On a live feed they come for ever."""
    with pytest.raises(CommandFailed, match="1 of 2 so far: is a worker running"):
        await waited(monkeypatch, {0: {4, 5}}, [found(0, 4)], others)


async def test_outcomes_of_records_before_keep_it_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are ahead in the queue."""
    backlog = [[found(0, offset)] for offset in range(40)]

    latencies_s, _ = await waited(monkeypatch, {0: {40}}, *backlog, [found(0, 40)])

    assert len(latencies_s) == 1
