"""Triage in the worker: rated posts go first, what fails keeps its order, and nothing is lost by either."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from prometheus_client import CollectorRegistry

from stream.records import Origin, Post, PreparedPost
from tests.chaos.classifiers import StubClassifier
from tests.stream.findings import NOW
from workers.batcher import MicroBatcher
from workers.device import Device
from workers.errors import ClassifierHung
from workers.inference import shape
from workers.metrics import Metrics
from workers.outcomes import Job
from workers.triage import Triage
from workers.waiting import WaitingRoom


class TriagingStub(StubClassifier):
    """Takes texts with `[damage]` for damage; `[unrated]` makes its first look fail, `[stuck]` hang."""

    def triage(self, texts: Sequence[str]) -> list[float]:
        if any("[unrated]" in text for text in texts):
            raise RuntimeError("the stub was asked to raise")
        if any("[stuck]" in text for text in texts):
            asyncio.run(asyncio.sleep(5))
        return [0.9 if "[damage]" in text else 0.1 for text in texts]


class Bench:
    """A waiting room with triage on it; `is_on` is the policy."""

    def __init__(self, classifier: StubClassifier, *, timeout_s: float = 5.0, max_hung: int = 1) -> None:
        self.room: WaitingRoom[Job] = WaitingRoom(shape, window_posts=100, max_overtake_s=60.0)
        self.batcher = MicroBatcher(self.room, size=lambda kind: 3, linger_s=0.0)
        self.device = Device(classifier, timeout_s=timeout_s, max_hung=max_hung)
        self.metrics = Metrics(CollectorRegistry())
        self.fatal: list[BaseException] = []
        self.is_on = True
        self.triage = Triage(
            self.room, self.device, self.metrics, is_on=lambda: self.is_on, urgent_prob=0.5, on_fatal=self.fatal.append
        )

    def put(self, *texts: str) -> None:
        self.batcher.put(
            [
                Job(
                    accepted=None,  # type: ignore[arg-type]
                    prepared=PreparedPost(
                        post=Post(id=f"p{number}", text=text),
                        origin=Origin(topic="posts", partition=0, offset=number),
                        accepted_at=NOW,
                    ),
                )
                for number, text in enumerate(texts)
            ]
        )

    async def taken(self) -> list[str]:
        return [job.prepared.post.text for job in await self.batcher.next_batch()]

    def counted(self, verdict: str) -> float | None:
        return self.metrics.registry.get_sample_value("sitrep_triaged_posts_total", {"verdict": verdict})


async def test_likely_damage_goes_first() -> None:
    bench = Bench(TriagingStub())
    bench.put("one", "two", "[damage] bridge", "three", "[damage] dam")
    assert await bench.triage.rate_some() == 5
    assert await bench.taken() == ["[damage] bridge", "[damage] dam", "one"]
    assert await bench.taken() == ["two", "three"]
    assert (bench.counted("urgent"), bench.counted("other")) == (2, 3)
    assert await bench.triage.rate_some() == 0
    bench.device.stop()


async def test_triage_follows_its_policy() -> None:
    """While it is off the device is not asked; once on, what waits is rated."""
    bench = Bench(TriagingStub())
    bench.is_on = False
    running = asyncio.create_task(bench.triage.run())
    bench.put("one", "[damage] bridge")
    await asyncio.sleep(0.15)
    assert bench.counted("urgent") is None
    bench.is_on = True
    async with asyncio.timeout(5):
        while bench.counted("urgent") is None:
            await asyncio.sleep(0.01)
    assert await bench.taken() == ["[damage] bridge", "one"]
    running.cancel()
    bench.device.stop()


async def test_look_that_fails_leaves_posts_in_their_order() -> None:
    bench = Bench(TriagingStub())
    bench.put("one", "[unrated]", "[damage] bridge")
    assert await bench.triage.rate_some() == 3
    assert await bench.taken() == ["one", "[unrated]", "[damage] bridge"]
    assert bench.metrics.registry.get_sample_value("sitrep_classifier_errors_total", {"kind": "triage"}) == 1
    assert bench.fatal == []
    bench.device.stop()


@pytest.mark.parametrize(("max_hung", "fatal"), [(1, []), (0, [ClassifierHung])])
async def test_look_that_hangs_is_left_behind_within_the_bound(max_hung: int, fatal: list[type]) -> None:
    bench = Bench(TriagingStub(), timeout_s=0.1, max_hung=max_hung)
    bench.put("[stuck]")
    assert await bench.triage.rate_some() == 1
    assert [type(error) for error in bench.fatal] == fatal
    assert len((await bench.device.predict([])).predictions) == 0
    assert await bench.taken() == ["[stuck]"]
    bench.device.stop()


async def test_classifier_without_a_first_look_is_never_asked() -> None:
    bench = Bench(StubClassifier())
    await asyncio.wait_for(bench.triage.run(), 1)
    bench.device.stop()
