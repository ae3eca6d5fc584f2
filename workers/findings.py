"""From a prediction to what is published: findings and alerts, as pure functions."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np
from msgspec.structs import force_setattr

from model import Example, Prediction
from stream.records import (
    NO_IMAGE_RATIONALE,
    Alert,
    Box,
    Finding,
    ImageRationale,
    ModelInfo,
    PreparedImage,
    PreparedPost,
    Span,
    finding_id,
)
from workers.errors import InvalidPrediction

DAMAGE: Final = "infrastructure_and_utility_damage"

_STEPS: Final = 10_000  # four digits: far above float noise, far below what a reader can use


def example(prepared: PreparedPost) -> Example:
    """Return the post as the classifier takes it."""
    image = prepared.image
    pixels = None
    if image is not None:
        pixels = np.frombuffer(image.pixels, dtype=np.uint8).reshape(image.height, image.width, 3)
    return Example(text=prepared.post.text, image=pixels, image_rationale=NO_IMAGE_RATIONALE not in prepared.degraded)


def check_prediction(prediction: Prediction, classes: tuple[str, ...]) -> None:
    """Raise `InvalidPrediction` unless the probabilities are a distribution over the classes."""
    probs = prediction.probs
    if (tuple(probs) != classes and probs.keys() != set(classes)) or prediction.label not in probs:
        raise InvalidPrediction(f"classes {sorted(probs)} with label {prediction.label!r}, not {sorted(classes)}")
    values = sorted(probs.values())
    total = sum(values)  # not finite when one of them is not
    if not -1e-3 <= total - 1 <= 1e-3 or values[0] < 0 or values[-1] > 1:
        raise InvalidPrediction(f"the probabilities {probs} are not a distribution")


def make_finding(
    prepared: PreparedPost, prediction: Prediction, model: ModelInfo, *, languages: tuple[str, ...], now: datetime
) -> Finding:
    """Return the finding; its content depends on the post, the model version and the mode marked on it alone.

    A post that says it is in none of the `languages` that the model was tested in is degraded: its
    probabilities were never calibrated.
    """
    post = prepared.post
    probabilities = {label: int(p * _STEPS + 0.5) / _STEPS for label, p in prediction.probs.items()}
    finding = Finding(
        id=finding_id(post.id, model.version, prepared.degraded, source=post.source),
        post_id=post.id,
        label=prediction.label,
        probability=probabilities[prediction.label],
        probabilities=probabilities,
        text=post.text,
        text_rationale=[Span(start=span.start, end=span.end, score=_rounded(span.score)) for span in prediction.spans],
        image_rationale=_image_rationale(prepared.image, prediction.image),
        degraded=[*prepared.degraded, *prediction.fallbacks, *_untested(post.lang, languages)],
        model=model,
        origin=prepared.origin,
        posted_at=post.created_at,
        accepted_at=prepared.accepted_at,
        classified_at=now,
        source=post.source,
    )
    # not in the call, which would have more than the 15 keywords that CPython passes without making a dictionary
    force_setattr(finding, "lang", post.lang)
    force_setattr(finding, "url", post.url)
    force_setattr(finding, "geo", post.geo)
    return finding


def make_alert(finding: Finding, *, threshold: float) -> Alert | None:
    """Return an alert when the finding is infrastructure damage at or above the threshold."""
    if finding.label != DAMAGE or finding.probability < threshold:
        return None
    evidence = [finding.text[span.start : span.end] for span in finding.text_rationale]
    if finding.image_rationale is not None:
        evidence.append(f"{len(finding.image_rationale.selected)} image patches")
    return Alert(
        id=hashlib.sha256(f"alert\x00{finding.id}".encode()).hexdigest()[:32],
        kind=DAMAGE,
        probability=finding.probability,
        threshold=threshold,
        findings=[finding.id],
        post_ids=[finding.post_id],
        headline=finding.text[:200],
        evidence=evidence,
        degraded=finding.degraded,
        raised_at=finding.accepted_at,
        posted_at=finding.posted_at,
        url=finding.url,
        geo=finding.geo,
    )


def now_utc() -> datetime:
    """Return the time to the millisecond, as Kafka keeps it."""
    now = datetime.now(UTC)
    return now.replace(microsecond=now.microsecond // 1000 * 1000)


def _rounded(p: float) -> float:
    """Return a probability to four digits; `round` takes three times as long, and a finding has many.

    Raises:
        ValueError: it is not a number, which would be published as none.
    """
    return int(p * _STEPS + 0.5) / _STEPS


def _untested(lang: str | None, languages: tuple[str, ...]) -> list[str]:
    if lang is None or lang in languages or lang.replace("_", "-").partition("-")[0].lower() in ("", "und", *languages):
        return []
    return ["language_untested"]


def _image_rationale(image: PreparedImage | None, rationale: Any) -> ImageRationale | None:
    if image is None or rationale is None:
        return None
    width, height = image.original_width, image.original_height
    return ImageRationale(
        index=image.index,
        width=width,
        height=height,
        rows=rationale.rows,
        cols=rationale.cols,
        scores=[_rounded(score) for score in rationale.scores],
        selected=list(rationale.selected),
        boxes=[
            Box(
                x0=round(x0 * width, 1),
                y0=round(y0 * height, 1),
                x1=round(x1 * width, 1),
                y1=round(y1 * height, 1),
            )
            for x0, y0, x1, y1 in rationale.boxes
        ],
    )
