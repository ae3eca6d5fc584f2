"""The device's thread: deadlines, hangs, errors; and the batches that it is given."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

from workers.batcher import MicroBatcher
from workers.device import Device
from workers.errors import ClassifierHung, ClassifierTimeout


class _Scripted:
    name = version = digest = "scripted"
    classes: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    alert_threshold = 1.0

    def __init__(self) -> None:
        self.release = threading.Event()

    def predict(self, examples: Any) -> list[Any]:
        for example in examples:
            if example == "hang":
                self.release.wait()
            if isinstance(example, BaseException):
                raise example
        return list(examples)


async def test_answers_and_errors_come_back() -> None:
    """What the classifier returns is returned, what it raises is raised."""
    device = Device(_Scripted(), timeout_s=5, max_hung=1)
    assert await device.predict([1, 2]) == [1, 2]
    with pytest.raises(TimeoutError, match="its own"):
        await device.predict([TimeoutError("its own")])
    with pytest.raises(RuntimeError, match="SystemExit"):
        await device.predict([SystemExit(3)])
    assert await device.predict([3]) == [3]
    device.stop()


async def test_hung_call_is_left_behind_and_too_many_are_fatal() -> None:
    """A hang costs its deadline and a daemon thread; beyond the bound the worker must restart."""
    scripted = _Scripted()
    device = Device(scripted, timeout_s=0.05, max_hung=1)
    with pytest.raises(ClassifierTimeout):
        await device.predict(["hang"])
    assert await device.predict([1]) == [1]
    with pytest.raises(ClassifierHung):
        await device.predict(["hang"])
    assert all(thread.daemon for thread in threading.enumerate() if thread.name == "device")
    scripted.release.set()
    await asyncio.sleep(0.05)
    device.stop()


async def test_linger_counts_from_the_first_post() -> None:
    """Posts that trickle in share a batch; the wait starts with the first of them, not with the last batch."""
    batcher: MicroBatcher[int] = MicroBatcher(max_batch=10, linger_s=0.2)
    await asyncio.sleep(0.25)  # idle longer than the linger
    batcher.put([1])
    start = time.monotonic()
    waiting = asyncio.create_task(batcher.next_batch())
    await asyncio.sleep(0.05)
    batcher.put([2, 3])
    assert await waiting == [1, 2, 3]
    assert 0.15 <= time.monotonic() - start < 1.0
    batcher.put(range(25))
    assert [len(await batcher.next_batch()) for _ in range(3)] == [10, 10, 5]


async def test_hurried_batcher_lingers_no_more() -> None:
    """A worker that stops does not wait for a batch to fill."""
    batcher: MicroBatcher[int] = MicroBatcher(max_batch=10, linger_s=30)
    batcher.put([1])
    waiting = asyncio.create_task(batcher.next_batch())
    await asyncio.sleep(0)
    batcher.hurry()
    assert await asyncio.wait_for(waiting, 1) == [1]
    batcher.put([2, 3])
    assert await asyncio.wait_for(batcher.next_batch(), 1) == [2, 3]
