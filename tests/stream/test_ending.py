"""Whatever a task makes of its cancellation, it ends."""

from __future__ import annotations

import asyncio

import pytest

from stream.ending import end_tasks


async def test_all_have_ended_when_it_returns() -> None:
    closed: list[int] = []

    async def work(number: int) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.01 * number)  # closes what it opened
            closed.append(number)

    async def break_down() -> None:
        raise ValueError("on its own")

    tasks = [asyncio.create_task(work(number)) for number in range(3)]
    broken = asyncio.create_task(break_down())
    await asyncio.sleep(0)
    await end_tasks([*tasks, broken])
    assert all(task.cancelled() for task in tasks) and closed == [0, 1, 2]
    with pytest.raises(ValueError, match="on its own"):
        await broken
    await end_tasks([*tasks, broken])  # nothing to do
    await end_tasks([])


async def test_task_that_misses_its_cancellation_is_cancelled_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stream.ending._AGAIN_S", 0.05)
    missed: list[bool] = []

    async def work() -> None:
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                if missed:
                    raise
                missed.append(True)  # as aiokafka does with one that comes while it stops

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await end_tasks([task])
    assert task.cancelled() and missed
