"""The work itself, one function for all who do a job, so that only what carries the posts differs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from model import CLASSES, Example, Prediction, TextSpan
from stream.errors import ImageUnavailable
from stream.headers import Headers, cloudevent_headers
from stream.pixels import load_image, prepare_image
from stream.records import Finding, ModelInfo, Origin, Post, PreparedImage, PreparedPost, decode_post, encode
from tests.bench.terms import Terms
from workers.device import Classifier
from workers.findings import example, make_finding, now_utc
from workers.outcomes import FINDING_TYPE
from workers.run import load_classifier
from workers.setting_sources import load_settings

MAX_BYTES: Final = 2_097_152
EDGE: Final = 384
MAX_PIXELS: Final = 50_000_000
TTL_MS: Final = 604_800_000
LATEST_PER_CLASS: Final = 1_000
LABEL: Final = "not_humanitarian"  # raises no alert: those are no part of the job

_PROBS: Final = {label: 0.8 if label == LABEL else 0.05 for label in CLASSES}
_FREE: Final = Prediction(
    label=LABEL, probs=_PROBS, spans=(TextSpan(start=0, end=4, score=0.5),), image=None, fallbacks=()
)


@dataclass(slots=True, kw_only=True)
class FreeClassifier:
    """Costs nothing: every post gets the same prediction."""

    name: str = "free"
    version: str = "free-1"
    digest: str = "sha256:none"
    classes: tuple[str, ...] = CLASSES
    languages: tuple[str, ...] = ("en",)
    alert_threshold: float = 0.9

    def predict(self, examples: Sequence[Any]) -> list[Prediction]:
        """Return one prediction for each example."""
        return [_FREE] * len(examples)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a post's record lies, and when the broker took it."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int


def transform(post: dict[str, Any]) -> dict[str, Any]:
    """The bare job, on decoded JSON."""
    text = post["text"]
    return {"id": post["id"], "source": post["source"], "text": text, "n_words": text.count(" ") + 1}


def classifier_for(terms: Terms) -> Any:
    """Return the classifier that the terms name, ready."""
    if terms.classifier == "checkpoint":
        flags = {"device": terms.device, "threads": terms.threads}
        if terms.checkpoint:
            flags["checkpoint"] = terms.checkpoint
        return load_classifier(load_settings(flags, environ={}))
    if terms.classifier.startswith("sleep:"):
        from tests.chaos.classifiers import parse_classifier

        return parse_classifier(terms.classifier)
    return FreeClassifier()


def prepare(value: bytes | None, place: Place) -> PreparedPost:
    """Return the validated post with its first picture as pixels; raises `InvalidRecord`."""
    post = decode_post(value, max_bytes=MAX_BYTES)
    return PreparedPost(
        post=post,
        origin=Origin(topic=place.topic, partition=place.partition, offset=place.offset),
        accepted_at=datetime.fromtimestamp(place.timestamp_ms / 1000, UTC),
        image=_first_image(post),
    )


class Publisher:
    """From prepared posts to findings, and from a finding to its record."""

    def __init__(self, classifier: Classifier, *, source: str) -> None:
        self._classifier = classifier
        self._model = ModelInfo(name=classifier.name, version=classifier.version, digest=classifier.digest)
        self._source = source

    def findings(self, prepared: Sequence[PreparedPost]) -> list[Finding]:
        """Classify the posts together."""
        predictions = self._classifier.predict([example(one) for one in prepared])
        now = now_utc()
        languages = self._classifier.languages
        return [
            make_finding(post, prediction, self._model, languages=languages, now=now)
            for post, prediction in zip(prepared, predictions, strict=True)
        ]

    def headers(self, finding: Finding) -> Headers:
        """Return the CloudEvents headers of the finding's record."""
        time = finding.classified_at
        return cloudevent_headers(event_id=finding.id, source=self._source, event_type=FINDING_TYPE, time=time)


def store(pipeline: Any, prefix: str, findings: Sequence[Finding]) -> None:
    """Add the findings and their indexes to a pipeline of redis-py, blocking or not, as its documentation shows."""
    times_s: defaultdict[str, dict[str, float]] = defaultdict(dict)
    for finding in findings:
        pipeline.set(f"{prefix}finding:{finding.post_id}", encode(finding), px=TTL_MS)
        times_s[finding.label][finding.post_id] = times_s["all"][finding.post_id] = finding.accepted_at.timestamp()
    for label, some in times_s.items():
        index = f"{prefix}latest:{label}"
        pipeline.zadd(index, some)
        pipeline.zremrangebyrank(index, 0, -LATEST_PER_CLASS - 1)
        pipeline.pexpire(index, TTL_MS)


def _first_image(post: Post) -> PreparedImage | None:
    for index, image in enumerate(post.images):
        try:
            data = load_image(image, folder=None, max_bytes=MAX_BYTES)
            return prepare_image(data, index=index, edge=EDGE, max_pixels=MAX_PIXELS)
        except ImageUnavailable:
            continue
    return None


__all__ = [
    "LABEL",
    "Example",
    "FreeClassifier",
    "Place",
    "Publisher",
    "classifier_for",
    "prepare",
    "store",
    "transform",
]
