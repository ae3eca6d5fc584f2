"""Whole workers under load: urgent posts overtake, degraded modes come and go, and the ledger balances."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as Pillow

from deploy.embedded import EmbeddedServices
from deploy.sample_posts import SAMPLES_FOLDER
from model import Example, Prediction
from stream.records import NO_IMAGE_RATIONALE, TEXT_ONLY, Finding, Image, Post, decode, encode, finding_id
from tests.chaos.classifiers import StubClassifier
from tests.chaos.field import Field, Raw, playing_field
from tests.integration.conftest import read_all
from tests.regressions.ground import running, until
from tests.stream.pictures import saved

pytestmark = pytest.mark.integration

PHOTO = (SAMPLES_FOLDER / "images" / "bridge-1.jpg").read_bytes()
SMALL_FILE = saved(Pillow.new("RGB", (300, 300), "red"), "PNG")  # decoded, 270,000 bytes
N = 240


class LoadedStub(StubClassifier):
    """A stub with a first look: `[damage]` is urgent. Says in which order it was shown texts, and what of pictures."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.shown: dict[str, str] = {}

    def triage(self, texts: Sequence[str]) -> list[float]:
        return [float("[damage]" in text) for text in texts]

    def predict(self, examples: Sequence[Example]) -> list[Prediction]:
        for example in examples:
            self.shown[example.text] = "no picture" if example.image is None else f"rationale {example.image_rationale}"
        return super().predict(examples)


@pytest.fixture
async def ground(services: EmbeddedServices, tmp_path: Path) -> AsyncIterator[Field]:
    """Topics of one partition, so that the order of findings is seen."""
    async with playing_field(
        kafka=services.kafka, redis=services.redis, name="load", folder=tmp_path, partitions=1
    ) as field:
        yield field


def raw(number: int, text: str, **fields: Any) -> Raw:
    post = Post(id=f"post-{number:04}", text=text, **fields)
    return Raw(key=post.id.encode(), value=encode(post), partition=0)


async def findings(field: Field) -> list[Finding]:
    return [decode(record.value, Finding) for record in await read_all(field.kafka, field.topics.findings.name)]


@pytest.mark.parametrize("images", [[], [Image(data=SMALL_FILE)]], ids=["texts", "pictures"])
async def test_urgent_posts_overtake_a_backlog_and_nothing_is_lost(ground: Field, images: list[Image]) -> None:
    """Also where there is room for few decoded pictures: those of urgent posts are decoded first."""
    urgent = {200, 210, 220, 239}
    await ground.feed(
        raw(n, f"{'[damage]' if n in urgent else 'quiet'} number {n:04}", images=images) for n in range(N)
    )
    stub = LoadedStub(seconds_per_post=0.02)
    bounds = {"max_batch": 4, "max_overtake_s": 60, "max_in_flight_bytes": 3_000_000}
    async with running(ground, stub, triage_lag_posts=20, **bounds) as app:
        await ground.settled(60)
        assert app.pipeline.metrics.registry.get_sample_value("sitrep_triaged_posts_total", {"verdict": "urgent"}) == 4
        await until(lambda: not app.pipeline.load.triage, 10)
    order = [int(text[-4:]) for text in stub.shown]
    assert len(order) == N
    assert max(order.index(n) for n in urgent) < 190  # the first of them came as number 200
    others = [n for n in order if n not in urgent]
    assert others == sorted(others)
    ledger = await ground.ledger()
    assert (ledger.findings, ledger.missing, ledger.repeated) == (N, (), ())


async def test_no_post_is_overtaken_for_longer_than_the_bound(ground: Field) -> None:
    """With nothing but urgent posts around it, a post that is not urgent still gets its turn."""
    quiet = range(120, 140)
    await ground.feed(raw(n, f"{'quiet' if n in quiet else '[damage]'} number {n:04}") for n in range(2 * N))
    stub = LoadedStub(seconds_per_post=0.02)
    async with running(ground, stub, triage_lag_posts=20, max_batch=4, max_overtake_s=1.0) as app:
        await ground.settled(60)
        read = app.pipeline.metrics.registry.get_sample_value
        assert read("sitrep_overtaken_seconds_bucket", {"le": "0.25"}) < read("sitrep_overtaken_seconds_count")
        assert read("sitrep_overtaken_seconds_bucket", {"le": "2.5"}) == read("sitrep_overtaken_seconds_count")
    order = [int(text[-4:]) for text in stub.shown]
    assert len(order) == len(await findings(ground)) == 2 * N
    places = [order.index(n) for n in quiet]
    assert min(places) > 140 and max(places) < 2 * N - 100


async def test_degraded_modes_come_with_lag_and_go_with_it(ground: Field) -> None:
    """Every finding says what it was spared; a post without text is always looked at."""
    image = Image(data=PHOTO)
    records = [raw(n, f"bridge number {n}", images=[image]) for n in range(N - 20)]
    records += [raw(n, "", images=[image]) for n in range(N - 20, N)]
    await ground.feed(records)
    stub = LoadedStub(seconds_per_post=0.02)
    async with running(
        ground,
        stub,
        max_batch=4,
        text_only_lag_posts=150,
        no_image_rationale_lag_posts=40,
        degrade_after_s=0,
        image_processes=2,
    ) as app:
        modes = set()
        start = time.monotonic()
        while sum((await ground.committed()).values()) < N and time.monotonic() - start < 60:
            modes.add(app.pipeline.load.reliefs.mode)
        await until(lambda: app.pipeline.load.reliefs.mode == "full", 10)
        read = app.pipeline.metrics.registry.get_sample_value
        assert read("sitrep_mode", {"sitrep_mode": "full"}) == 1
        await ground.feed([raw(N, "after the flood", images=[image])])
        await ground.settled(20)
    assert modes == {"text_only", "no_image_rationale", "full"}
    found = {finding.post_id: finding for finding in await findings(ground)}
    assert len(found) == N + 1
    marks = Counter(mark for finding in found.values() for mark in finding.degraded)
    assert marks[TEXT_ONLY] > 20 and marks[NO_IMAGE_RATIONALE] > 0
    for post_id, finding in found.items():
        assert finding.id == finding_id(post_id, "stub-1", finding.degraded)
        if finding.text:
            expected = {TEXT_ONLY: "no picture", NO_IMAGE_RATIONALE: "rationale False"}
            assert stub.shown[finding.text] == expected.get("".join(finding.degraded), "rationale True")
        else:
            assert TEXT_ONLY not in finding.degraded
    assert found[f"post-{N:04}"].degraded == []
    ledger = await ground.ledger()
    assert (ledger.findings, ledger.missing, ledger.differing) == (N + 1, (), ())
