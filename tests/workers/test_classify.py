"""The classify stage: whatever the classifier does, the bad post stands alone and the others get their findings."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from stream.errors import BrokerUnavailable
from stream.headers import Cause
from stream.records import (
    NO_IMAGE_RATIONALE,
    TEXT_ONLY,
    Finding,
    Origin,
    Post,
    PreparedImage,
    PreparedPost,
    content_digest,
    decode,
    finding_id,
)
from tests.chaos.classifiers import StubClassifier
from tests.stream.findings import NOW
from workers.classify import ClassifyStage
from workers.device import Device
from workers.errors import ClassifierHung
from workers.load import Reliefs
from workers.metrics import Metrics
from workers.outcomes import Decided, Job

N = 8


@dataclass(slots=True)
class Taken:
    """A post taken in, as the stage sees it."""

    number: int
    lost: bool = False


@dataclass(slots=True)
class Ledger:
    """Outcomes by the number of their post."""

    findings: list[int] = field(default_factory=list)
    published: list[Finding] = field(default_factory=list)
    dead_letters: dict[int, str] = field(default_factory=dict)
    failure: Exception | None = None
    hold: asyncio.Event | None = None

    async def publish(self, decided: Sequence[Decided]) -> None:
        if self.failure is not None:
            raise self.failure
        if self.hold is not None:
            await self.hold.wait()
        published = [decode(one.value, Finding) for one in decided]
        self.findings += [one.origin.offset for one in published]
        self.published += published

    async def dead_letter(self, accepted: Any, cause: Cause, *, post_origin: Origin | None = None) -> None:
        assert post_origin is not None and post_origin.offset == accepted.number
        assert accepted.number not in self.dead_letters
        self.dead_letters[accepted.number] = cause.reason


class Bench:
    """A stage on a stub; `run` waits until everything is published."""

    def __init__(
        self, *, timeout_s: float = 5.0, max_hung: int = 3, reliefs: Reliefs | None = None, **stub: Any
    ) -> None:
        self.classifier = StubClassifier(**stub)
        self.ledger = Ledger()
        self.fatal: list[BaseException] = []
        self.forgotten: list[int] = []
        self.reliefs = reliefs or Reliefs()
        self.computed: list[tuple[int, float]] = []
        self.metrics = Metrics(CollectorRegistry())
        self.device = Device(self.classifier, timeout_s=timeout_s, max_hung=max_hung)
        self.stage = ClassifyStage(
            device=self.device,
            outcomes=self.ledger,  # type: ignore[arg-type]
            metrics=self.metrics,
            alert_threshold=0.9,
            max_batch=N,
            on_fatal=self.fatal.append,
            on_dead_letter=lambda job: self.forgotten.append(job.prepared.origin.offset),
            reliefs=lambda: self.reliefs,
            on_computed=lambda jobs, compute_s: self.computed.append((len(jobs), compute_s)),
        )

    async def run(self, jobs: Sequence[Job]) -> None:
        await self.stage.wanted()
        await self.stage.run(jobs)
        await self.stage.idle()
        self.device.stop()


def jobs(texts: dict[int, str], *, image: PreparedImage | None = None) -> list[Job]:
    """Return a batch in which some posts have a text that asks for a fault."""
    return [
        Job(
            accepted=Taken(number),  # type: ignore[arg-type]
            prepared=PreparedPost(
                post=Post(id=f"p{number}", text=texts.get(number, f"good {number}")),
                origin=Origin(topic="posts", partition=0, offset=number),
                accepted_at=NOW,
                image=image,
            ),
        )
        for number in range(N)
    ]


@pytest.mark.parametrize("place", [0, N // 2, N - 1])
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[raise]", "classifier_error"),
        ("[few]", "classifier_error"),
        ("[nan]", "invalid_prediction"),
        ("[odd]", "invalid_prediction"),
        ("[oom]", "out_of_memory"),
    ],
)
async def test_bad_post_is_found_wherever_it_stands(place: int, text: str, reason: str) -> None:
    bench = Bench()
    await bench.run(jobs({place: text}))
    assert bench.ledger.dead_letters == {place: reason}
    assert sorted(bench.ledger.findings) == [number for number in range(N) if number != place]
    assert bench.forgotten == [place]
    assert bench.fatal == []


async def test_halving_costs_few_calls() -> None:
    """One bad post among eight: the whole, and two halves on each of three levels."""
    bench = Bench()
    await bench.run(jobs({3: "[raise]"}))
    assert bench.classifier.n_calls == 7


async def test_batch_that_does_not_fit_into_memory_is_halved_until_it_does() -> None:
    """No post of it is bad, so none becomes a dead letter."""
    bench = Bench(oom_above=2)
    await bench.run(jobs({}))
    assert sorted(bench.ledger.findings) == list(range(N))
    assert bench.ledger.dead_letters == {}
    assert bench.metrics.registry.get_sample_value("sitrep_classifier_errors_total", {"kind": "out_of_memory"}) == 3


async def test_every_post_may_be_bad() -> None:
    bench = Bench()
    await bench.run(jobs(dict.fromkeys(range(N), "[raise]")))
    assert sorted(bench.ledger.dead_letters) == list(range(N))
    assert bench.ledger.findings == []


async def test_hang_costs_its_post_alone() -> None:
    bench = Bench(timeout_s=0.2)
    await bench.run(jobs({5: "[hang]"}))
    assert bench.ledger.dead_letters == {5: "classifier_timeout"}
    assert sorted(bench.ledger.findings) == [0, 1, 2, 3, 4, 6, 7]
    assert bench.fatal == []


async def test_too_many_hangs_stop_the_worker_after_what_is_decided_is_published() -> None:
    """Else the next worker would hang on the same posts without ever getting further."""
    bench = Bench(timeout_s=0.2, max_hung=2)
    await bench.run(jobs({2: "[hang]", 4: "[hang]", 6: "[hang]"}))
    assert [type(error) for error in bench.fatal] == [ClassifierHung]
    assert bench.ledger.findings == [0, 1, 3]
    assert bench.ledger.dead_letters == {2: "classifier_timeout"}


async def test_failing_delivery_stops_the_worker() -> None:
    bench = Bench()
    bench.ledger.failure = BrokerUnavailable("away")
    await bench.run(jobs({}))
    assert bench.fatal == [bench.ledger.failure]
    assert bench.ledger.dead_letters == {}


async def test_posts_of_lost_partitions_are_left_to_their_next_owner() -> None:
    bench = Bench()
    some = jobs({1: "[raise]"})
    for job in some[:4]:
        job.accepted.lost = True  # type: ignore[misc]
    await bench.run(some)
    assert bench.ledger.findings == [4, 5, 6, 7]
    assert bench.ledger.dead_letters == {}
    await bench.run(some[:4])
    assert bench.classifier.n_calls == 1


async def test_publications_that_do_not_end_stop_the_intake_of_batches() -> None:
    """Computing overlaps with publishing, but only so many batches wait for their delivery."""
    bench = Bench()
    bench.ledger.hold = asyncio.Event()
    n_started = 0

    async def feed() -> None:
        nonlocal n_started
        for _ in range(10):
            await bench.stage.wanted()
            await bench.stage.run(jobs({}))
            n_started += 1

    feeding = asyncio.create_task(feed())
    async with asyncio.timeout(10):
        while bench.classifier.n_calls < 6:
            await asyncio.sleep(0.01)
    for _ in range(10):
        await asyncio.sleep(0.01)
    assert (n_started, bench.classifier.n_calls) == (6, 6)  # four are published, two wait for that
    bench.ledger.hold.set()
    await feeding
    assert n_started == 10
    await bench.stage.idle()
    bench.device.stop()


PIXELS = PreparedImage(index=0, width=2, height=1, original_width=2, original_height=1, pixels=bytes(6))


@pytest.mark.parametrize(
    ("reliefs", "mark", "seen"),
    [
        (Reliefs(), None, [True, True]),
        (Reliefs(no_image_rationale=True), NO_IMAGE_RATIONALE, [True, False]),
        (Reliefs(no_image_rationale=True, text_only=True), TEXT_ONLY, [False, True]),
    ],
)
async def test_mode_is_marked_in_every_finding_it_touches(
    reliefs: Reliefs, mark: str | None, seen: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And is in its id; the classifier is spared what the mode leaves out."""
    bench = Bench(reliefs=reliefs)
    shown: list[list[bool]] = []
    predict = StubClassifier.predict

    def noting(stub: StubClassifier, examples: Any) -> Any:
        shown.extend([one.image is not None, one.image_rationale] for one in examples)
        return predict(stub, examples)

    monkeypatch.setattr(StubClassifier, "predict", noting)
    await bench.run(jobs({}, image=PIXELS))
    assert shown == [seen] * N
    for finding in bench.ledger.published:
        assert finding.degraded == ([mark] if mark else [])
        assert finding.id == finding_id(finding.post_id, "stub-1", finding.degraded)
        assert (finding.id == finding_id(finding.post_id, "stub-1")) == (mark is None)


async def test_posts_delivered_again_in_one_mode_have_the_same_findings_and_in_another_other_ids() -> None:
    """The promise that consumers de-duplicate by: the same id, the same content."""
    bench = Bench()
    modes = (Reliefs(), Reliefs(text_only=True), Reliefs(no_image_rationale=True))
    for bench.reliefs in (*modes, *modes):
        await bench.run(jobs({}, image=PIXELS))
    contents: dict[str, set[str]] = {}
    for finding in bench.ledger.published:
        contents.setdefault(finding.id, set()).add(content_digest(finding))
    assert len(bench.ledger.published) == 6 * N
    assert len(contents) == 3 * N
    assert all(len(some) == 1 for some in contents.values())


async def test_next_batch_is_at_the_device_before_the_last_one_is_done() -> None:
    """Two are wanted at once, and no third: it is formed as late as can be."""
    bench = Bench(seconds_per_post=0.02)
    start = time.monotonic()
    for _ in range(2):
        await asyncio.wait_for(bench.stage.wanted(), 0.05)
        await bench.stage.run(jobs({}))
    third = asyncio.create_task(bench.stage.wanted())
    await asyncio.sleep(0.05)
    assert not third.done()
    await third
    assert bench.ledger.findings == list(range(N)) or not bench.ledger.findings
    await bench.stage.idle()
    assert 0.30 < time.monotonic() - start < 2.0
    assert bench.device.busy_s == pytest.approx(2 * N * 0.02, rel=0.5)
    bench.device.stop()


async def test_each_batch_tells_what_it_took() -> None:
    """The batch size is adapted to it; what failed tells nothing."""
    bench = Bench(seconds_per_post=0.005)
    await bench.run(jobs({3: "[raise]"}))
    assert sorted(n for n, _ in bench.computed) == [1, 2, 4]
    assert all(compute_s >= 0.005 * n for n, compute_s in bench.computed)
