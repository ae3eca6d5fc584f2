"""What the probes are told, and a channel that neither forgets nor overflows."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import faust
import pytest
from aiokafka.errors import KafkaConnectionError

from workers.channel import DurableChannel
from workers.health import healthy, ready
from workers.settings import Settings

READY = {"model": True, "kafka": True, "assigned": True, "redis": True, "moving": True}


def pipeline(**changes: Any) -> Any:
    """Return what the probes look at; a change names one thing that is wrong."""

    async def reach() -> None:
        if changes.get("kafka") == "refuses":
            raise KafkaConnectionError("away")
        if changes.get("kafka") == "hangs":
            await asyncio.Event().wait()

    return SimpleNamespace(
        settings=Settings(ready_stall_s=10.0),
        stage=changes.get("stage", "all"),
        inference=changes.get("inference", object()),
        intake=SimpleNamespace(n_rebalances=changes.get("n_rebalances", 1), reach=reach),
        cache_writer=SimpleNamespace(available=changes.get("redis", True)),
        stalled_s=changes.get("stalled_s", 0.0),
    )


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({}, None),
        ({"stage": "prepare", "inference": None}, None),
        ({"inference": None}, "model"),
        ({"kafka": "refuses"}, "kafka"),
        ({"kafka": "hangs"}, "kafka"),
        ({"n_rebalances": 0}, "assigned"),
        ({"redis": False}, "redis"),
        ({"stalled_s": 10.1}, "moving"),
        ({"stalled_s": 9.9}, None),
    ],
)
async def test_readiness_names_what_is_missing(
    changes: dict[str, Any], wrong: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.health._ASK_S", 0.05)
    expected = {name: name != wrong for name in READY}
    assert await ready(pipeline(**changes)) == {"ok": wrong is None, **expected}


@pytest.mark.parametrize(
    ("failure", "stalled_s", "ok"),
    [(None, 0.0, True), (None, 49.0, True), (None, 51.0, False), (RuntimeError("broken"), 0.0, False)],
)
def test_dead_is_what_a_restart_would_mend(failure: Exception | None, stalled_s: float, ok: bool) -> None:
    """A Redis or a Kafka that is away is none of it: the worker waits for them."""
    app: Any = SimpleNamespace(failure=failure, pipeline=pipeline(stalled_s=stalled_s, redis=False, kafka="refuses"))
    report = healthy(app)
    assert report["ok"] is ok
    assert report["failure"] == ("broken" if failure else "")


async def test_channel_blocks_when_it_is_full() -> None:
    channel = DurableChannel(faust.App("test"), maxsize=2)
    agent = aiter(channel)
    await channel.put(["a"])
    await channel.put(["b"])
    third = asyncio.create_task(channel.put(["c"]))
    for _ in range(5):
        await asyncio.sleep(0)
    assert not third.done()
    assert await anext(agent) == ["a"]
    await asyncio.wait_for(third, 1)
    assert [await anext(agent) for _ in range(2)] == [["b"], ["c"]]


async def test_channel_keeps_its_events_when_faust_rebalances() -> None:
    """A channel of Faust's own is cleared by a rebalance of Faust's consumer; ours holds posts of another one."""
    app = faust.App("test")
    plain, durable = app.channel(maxsize=2), DurableChannel(app, maxsize=2)
    plain_agent, durable_agent = aiter(plain), aiter(durable)
    app.flow_control.resume()
    await plain.put(["lost"])
    await durable.put(["kept"])
    app.flow_control.suspend()
    app.flow_control.clear()
    await asyncio.wait_for(durable.put(["more"]), 1)  # nor does the suspension hold it up
    app.flow_control.resume()
    assert plain_agent.queue.empty()
    assert [await anext(durable_agent) for _ in range(2)] == [["kept"], ["more"]]
