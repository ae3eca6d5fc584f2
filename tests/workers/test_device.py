"""The device's threads: deadlines, hangs, errors, and who goes next without the event loop."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

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
    assert (await device.predict([1, 2])).predictions == [1, 2]
    with pytest.raises(TimeoutError, match="its own"):
        await device.predict([TimeoutError("its own")])
    with pytest.raises(RuntimeError, match="SystemExit"):
        await device.predict([SystemExit(3)])
    assert (await device.predict([3])).predictions == [3]
    device.stop()


async def test_hung_call_is_left_behind_and_too_many_are_fatal() -> None:
    """A hang costs its deadline and a daemon thread; beyond the bound the worker must restart."""
    scripted = _Scripted()
    device = Device(scripted, timeout_s=0.05, max_hung=1)
    with pytest.raises(ClassifierTimeout):
        await device.predict(["hang"])
    assert (await device.predict([1])).predictions == [1]
    with pytest.raises(ClassifierHung):
        await device.predict(["hang"])
    assert all(thread.daemon for thread in threading.enumerate() if thread.name == "device")
    scripted.release.set()
    await asyncio.sleep(0.05)
    device.stop()


async def test_hang_takes_nothing_along_that_waits_behind_it() -> None:
    """Another thread goes on with the calls that were queued, within deadlines that begin when they do."""
    scripted = _Scripted()
    device = Device(scripted, timeout_s=0.2, max_hung=1)
    hanging = asyncio.create_task(device.predict(["hang"]))
    await asyncio.sleep(0.05)
    behind = [asyncio.create_task(device.predict([number])) for number in range(3)]
    with pytest.raises(ClassifierTimeout):
        await hanging
    assert [(await one).predictions for one in behind] == [[0], [1], [2]]
    scripted.release.set()
    device.stop()


async def test_next_batch_begins_while_the_event_loop_is_busy() -> None:
    """The device goes from batch to batch by itself: it never waits for the loop to hand it the next."""
    begun = threading.Event()

    class Noting(_Scripted):
        def predict(self, examples: Any) -> list[Any]:
            if examples == ["second"]:
                begun.set()
            return super().predict(examples)

    scripted = Noting()
    device = Device(scripted, timeout_s=5, max_hung=1)
    first = asyncio.create_task(device.predict(["hang"]))
    second = asyncio.create_task(device.predict(["second"]))
    await asyncio.sleep(0.05)
    assert not begun.is_set()
    scripted.release.set()
    assert begun.wait(2), "the second batch waited for the loop, which is blocked here"
    assert [(await one).predictions for one in (first, second)] == [["hang"], ["second"]]
    device.stop()


class _Staged(_Scripted):
    """Encodes in one thread, triages and predicts in another, and notes the order."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[str, str]] = []

    def encode(self, examples: Any) -> list[Any]:
        self.calls.append(("encode", threading.current_thread().name))
        return [f"encoded {example}" if example != "hang" else example for example in examples]

    def triage(self, texts: Any) -> list[float]:
        self.calls.append(("triage", threading.current_thread().name))
        return [float(text) for text in texts]

    def predict(self, examples: Any) -> list[Any]:
        self.calls.append((f"predict {examples[0]}", threading.current_thread().name))
        return super().predict(examples)


async def test_next_batch_is_encoded_while_one_is_computed() -> None:
    scripted = _Staged()
    device = Device(scripted, timeout_s=5, max_hung=1)
    computing = asyncio.create_task(device.predict(["hang"]))
    await asyncio.sleep(0.05)
    assert await device.encode(["next"]) == ["encoded next"]
    assert scripted.calls == [("predict hang", "device"), ("encode", "encode")]
    assert not computing.done()
    scripted.release.set()
    await computing
    device.stop()


async def test_triage_goes_before_the_batches_that_wait() -> None:
    scripted = _Staged()
    device = Device(scripted, timeout_s=5, max_hung=1)
    batches = [asyncio.create_task(device.predict([name])) for name in ("hang", "second")]
    await asyncio.sleep(0.05)
    triage = asyncio.create_task(device.triage(["0.5", "1"]))
    await asyncio.sleep(0)
    scripted.release.set()
    assert await triage == [0.5, 1.0]
    await asyncio.gather(*batches)
    assert scripted.calls == [("predict hang", "device"), ("triage", "device"), ("predict second", "device")]
    device.stop()


async def test_classifier_without_the_extras_is_served_all_the_same() -> None:
    device = Device(_Scripted(), timeout_s=5, max_hung=1)
    assert not device.can_triage
    assert await device.encode([1, 2]) == [1, 2]
    device.stop()
