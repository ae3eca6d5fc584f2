"""What goes in as posts comes out as findings, alerts, duplicates and dead letters, with the shipped classifier."""

from __future__ import annotations

import asyncio
import base64
import json
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from aiokafka import ConsumerRecord
from redis import Redis

from deploy.sample_posts import SAMPLES_FOLDER
from model import CLASSES
from stream.headers import first_header
from stream.ledger import Ledger
from stream.records import Alert, Finding, decode, finding_id
from tests.chaos.field import Field, Raw
from tests.integration.conftest import OpenField, read_all

pytestmark = pytest.mark.integration

TRACE = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
PHOTO = (SAMPLES_FOLDER / "images" / "bridge-1.jpg").read_bytes()
DAMAGE = "infrastructure_and_utility_damage"


def post(post_id: str, **fields: Any) -> Raw:
    """Return a post as JSON."""
    return Raw(key=post_id.encode(), value=json.dumps({"id": post_id, **fields}).encode(), partition=0)


POSTS = [
    post("plain", text="Please donate food and water, volunteers needed at the shelter", source="bluesky",
         created_at="2026-01-05T10:00:00Z", lang="en", url="https://example.org/plain"),
    post("pictured", text="The bridge collapsed and roads are destroyed after the hurricane",
         images=[{"data": base64.b64encode(PHOTO).decode()}]),
    post("from-folder", text="The old bridge is gone", images=[{"path": "images/bridge-1.jpg"}]),
    post("broken-picture", text="Flooded street in town", images=[{"data": base64.b64encode(PHOTO[:200]).decode()}]),
    post("outside-folder", text="Flooded street", images=[{"path": "../../../etc/hostname"}]),
    post("emoji", text="💔💔 Bridge collapsed 💔, #RoadClosed near مدينة, houses destroyed"),
    post("unknown-field", text="Water is rising fast", from_the_future={"a": 1}),
    Raw(key=b"packed", partition=0, headers=[("content-type", b"application/msgpack"), ("traceparent", TRACE)],
        value=msgspec.msgpack.encode({"id": "packed", "text": "Road destroyed", "images": [{"data": PHOTO}]})),
    post("plain", text="Please donate food and water, volunteers needed at the shelter", source="bluesky"),
    Raw(key=b"garbage", value=b"\xff{not json", partition=0, headers=[("traceparent", TRACE), ("mine", b"kept")]),
    post("wrong-type", text=17),
    post("no-content"),
    Raw(key=b"empty", value=None, partition=0),
]  # fmt: skip
DEAD = {"garbage": "undecodable", "wrong-type": "invalid_field", "no-content": "empty_post", "empty": "empty_record"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Everything that came of `POSTS`."""

    field: Field
    findings: dict[str, Finding]
    finding_records: dict[str, ConsumerRecord]
    alerts: dict[str, tuple[Alert, ConsumerRecord]]
    dead_letters: dict[str, ConsumerRecord]
    duplicates: list[dict[str, Any]]
    ledger: Ledger
    metrics: dict[str, float]
    ready: tuple[int, dict[str, Any]]
    healthy: tuple[int, dict[str, Any]]
    cache: Redis


@pytest.fixture(scope="module", params=["one worker", "a worker per stage"])
def outcome(request: pytest.FixtureRequest, open_field: OpenField, runner: asyncio.Runner) -> Iterator[Outcome]:
    """The posts of this module, through one worker or through both stages apart."""
    field = open_field("pipeline", image_folder=SAMPLES_FOLDER, partitions=2)
    if request.param == "one worker":
        worker = field.worker(classifier="checkpoint")
    else:
        field.worker(stage="prepare")
        worker = field.worker(stage="classify", classifier="checkpoint")
    runner.run(field.feed(POSTS))
    runner.run(settle(field, len(POSTS)))
    cache = Redis.from_url(field.redis)
    yield runner.run(collect(field, worker, cache))
    cache.close()


async def settle(field: Field, n_posts: int) -> None:
    """Wait until every post has its outcome on the topics."""
    for _ in range(300):
        ledger = await field.ledger()
        if ledger.accepted == n_posts and not ledger.missing:
            return
        await asyncio.sleep(0.2)
    raise AssertionError(f"posts without an outcome: {ledger.missing}\n{field.workers[-1].log()}")


async def collect(field: Field, worker: Any, cache: Redis) -> Outcome:
    """Read everything back."""
    topics = field.topics
    found = {record.key.decode(): record for record in await read_all(field.kafka, topics.findings.name)}
    alerts = [(decode(record.value, Alert), record) for record in await read_all(field.kafka, topics.alerts.name)]
    dead = await read_all(field.kafka, topics.dead_letters.name)
    for _ in range(50):  # the cache is written behind
        if len(cache.keys(f"{field.prefix}finding:*")) == len(found):
            break
        await asyncio.sleep(0.1)
    for _ in range(50):  # gauges are kept some times a second
        if worker.metrics()["sitrep_device_busy_seconds_total"] > 0:
            break
        await asyncio.sleep(0.1)
    status, ready = worker.get("/readyz")
    alive, health = worker.get("/healthz")
    return Outcome(
        field=field,
        findings={post_id: decode(record.value, Finding) for post_id, record in found.items()},
        finding_records=found,
        alerts={alert.post_ids[0]: (alert, record) for alert, record in alerts},
        dead_letters={record.key.decode(): record for record in dead},
        duplicates=[json.loads(record.value) for record in await read_all(field.kafka, topics.duplicates.name)],
        ledger=await field.ledger(),
        metrics=worker.metrics(),
        ready=(status, json.loads(ready)),
        healthy=(alive, json.loads(health)),
        cache=cache,
    )


def test_ledger_balances(outcome: Outcome) -> None:
    """Each accepted post became one of the three."""
    assert outcome.ledger.summary() == "ledger: accepted=13 findings=8 dead_letters=4 duplicates=1 missing=0"
    assert not outcome.ledger.extra


def test_finding_says_what_it_was_decided_from(outcome: Outcome) -> None:
    """Label, all probabilities, spans of the original text, the model, and when."""
    finding = outcome.findings["plain"]
    assert finding.label == "rescue_volunteering_or_donation_effort"
    assert set(finding.probabilities) == set(CLASSES)
    assert sum(finding.probabilities.values()) == pytest.approx(1, abs=1e-3)
    assert finding.probability == max(finding.probabilities.values())
    words = [finding.text[span.start : span.end] for span in finding.text_rationale]
    assert words
    assert all(word == word.strip() for word in words)
    assert all(0 < span.score <= 1 for span in finding.text_rationale)
    assert finding.id == finding_id("plain", finding.model.version, source="bluesky")
    assert finding.model.name == "compact"
    assert finding.model.digest.startswith("sha256:")
    assert finding.posted_at is not None
    assert finding.accepted_at <= finding.classified_at
    assert (finding.source, finding.url, finding.lang) == ("bluesky", "https://example.org/plain", "en")
    assert finding.degraded == ["no_image"]


@pytest.mark.parametrize("post_id", ["pictured", "from-folder", "packed"])
def test_picture_is_evidence(outcome: Outcome, post_id: str) -> None:
    """A grid of scores, and boxes of the selected patches in the picture's own pixels."""
    rationale = outcome.findings[post_id].image_rationale
    assert rationale is not None
    assert len(rationale.scores) == rationale.rows * rationale.cols
    assert 0 < len(rationale.selected) == len(rationale.boxes) < len(rationale.scores)
    for box in rationale.boxes:
        assert 0 <= box.x0 < box.x1 <= rationale.width
        assert 0 <= box.y0 < box.y1 <= rationale.height
    assert outcome.findings[post_id].degraded == []


@pytest.mark.parametrize(
    ("post_id", "why"), [("broken-picture", "image_truncated"), ("outside-folder", "image_not_allowed")]
)
def test_unusable_picture_degrades_and_says_so(outcome: Outcome, post_id: str, why: str) -> None:
    """The text is classified all the same."""
    finding = outcome.findings[post_id]
    assert finding.degraded == [why, "no_image"]
    assert finding.image_rationale is None


def test_spans_index_the_original_text(outcome: Outcome) -> None:
    """Code points of the text as it came, emoji and right-to-left included."""
    finding = outcome.findings["emoji"]
    assert finding.text.startswith("💔💔 Bridge")
    for span in finding.text_rationale:
        before, after = finding.text[: span.start][-1:], finding.text[span.end :][:1]
        assert before in ("", " ", "#")
        assert after in ("", " ")


def test_finding_is_a_cloudevent(outcome: Outcome) -> None:
    """CloudEvents 1.0 in binary mode, keyed by the post, on the post's partition."""
    record = outcome.finding_records["pictured"]
    headers = {name: value.decode() for name, value in record.headers}
    assert headers["ce_specversion"] == "1.0"
    assert headers["ce_id"] == outcome.findings["pictured"].id
    assert headers["ce_type"] == "org.sitrep.finding.v1"
    assert urllib.parse.urlparse(headers["ce_source"]).path
    assert headers["content-type"] == "application/json"
    assert record.partition == 0


def test_trace_goes_through(outcome: Outcome) -> None:
    """`traceparent` comes out as it went in, on findings and on dead letters."""
    assert first_header(outcome.finding_records["packed"].headers, "traceparent") == TRACE.decode()
    assert first_header(outcome.dead_letters["garbage"].headers, "traceparent") == TRACE.decode()
    assert first_header(outcome.finding_records["plain"].headers, "traceparent") is None


def test_damage_raises_an_alert(outcome: Outcome) -> None:
    """Only infrastructure damage, only above the calibrated threshold; the finding is named."""
    alert, record = outcome.alerts["pictured"]
    finding = outcome.findings["pictured"]
    assert alert.kind == finding.label == DAMAGE
    assert alert.probability >= alert.threshold > 0.5
    assert alert.findings == [finding.id]
    assert first_header(record.headers, "ce_type") == "org.sitrep.alert.v1"
    expected = {
        post_id
        for post_id, one in outcome.findings.items()
        if one.label == DAMAGE and one.probability >= alert.threshold
    }
    assert set(outcome.alerts) == expected


@pytest.mark.parametrize(("post_id", "reason"), DEAD.items())
def test_dead_letter_keeps_the_bytes_and_says_why(outcome: Outcome, post_id: str, reason: str) -> None:
    """Original key and value, KIP-1034 headers, our reason."""
    record = outcome.dead_letters[post_id]
    original = next(raw for raw in POSTS if raw.key == post_id.encode())
    headers = {name: value.decode() for name, value in record.headers}
    assert record.value == original.value
    assert headers["sitrep_reason"] == reason
    assert headers["__streams.errors.topic"] == outcome.field.topics.posts.name
    assert headers["__streams.errors.partition"] == "0"
    assert int(headers["__streams.errors.offset"]) == POSTS.index(original)
    assert headers["__streams.errors.exception"]
    assert headers["__streams.errors.message"]


def test_dead_letter_keeps_its_own_headers(outcome: Outcome) -> None:
    """What the producer put there is still there."""
    assert first_header(outcome.dead_letters["garbage"].headers, "mine") == "kept"


def test_duplicate_is_recorded(outcome: Outcome) -> None:
    """The second record of a post points to the first."""
    [duplicate] = outcome.duplicates
    assert duplicate["post_id"] == "plain"
    assert duplicate["first"]["offset"] == 0
    assert duplicate["origin"]["offset"] == 8


def test_cache_holds_findings_and_their_index(outcome: Outcome) -> None:
    """By post id with a time to live, and the latest of each class."""
    prefix = outcome.field.prefix
    stored = outcome.cache.get(f"{prefix}finding:plain")
    assert stored == outcome.finding_records["plain"].value
    assert 0 < outcome.cache.ttl(f"{prefix}finding:plain") < 30 * 86_400
    label = outcome.findings["plain"].label
    assert b"plain" in outcome.cache.zrange(f"{prefix}latest:{label}", 0, -1)
    assert outcome.cache.zcard(f"{prefix}latest:all") == len(outcome.findings)
    assert {key.decode().rpartition(":")[2] for key in outcome.cache.keys(f"{prefix}alert:*")} == {
        alert.id for alert, _ in outcome.alerts.values()
    }


def test_metrics_tell_what_happened(outcome: Outcome) -> None:
    """The classifying worker counts in base units."""
    metrics = outcome.metrics
    assert metrics["sitrep_posts_total{outcome=finding}"] == 8
    assert metrics["sitrep_alerts_total"] == len(outcome.alerts)
    assert metrics["sitrep_batch_size_posts_sum"] == 8
    assert 0 < metrics["sitrep_device_busy_seconds_total"] < 60
    assert metrics["sitrep_end_to_end_latency_seconds_count"] == 8
    assert metrics["sitrep_in_flight_posts"] >= 0
    assert metrics["sitrep_redis_up"] == 1
    assert any(name.startswith("sitrep_build_info{") for name in metrics)
    if "stage=all" in "".join(metrics):
        assert metrics["sitrep_posts_total{outcome=dead_letter}"] == 4
        assert metrics["sitrep_posts_total{outcome=duplicate}"] == 1
        assert metrics["sitrep_dead_letters_total{reason=undecodable}"] == 1
        assert metrics["sitrep_image_failures_total{reason=truncated}"] == 1


def test_probes_say_yes(outcome: Outcome) -> None:
    """Alive and ready."""
    assert outcome.ready[0] == 200, outcome.ready
    assert all(outcome.ready[1].values())
    assert outcome.healthy[0] == 200, outcome.healthy
