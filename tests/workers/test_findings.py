"""A finding says what it was decided from, and what its decider was never tested in."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from model import CLASSES, Prediction, TextSpan
from stream.records import Finding, Geo, ModelInfo, Origin, Post, PreparedPost, decode, encode
from workers.findings import make_alert, make_finding

NOW = datetime(2026, 1, 5, 10, tzinfo=UTC)
DAMAGE = "infrastructure_and_utility_damage"


def finding(
    *, lang: str | None = None, label: str = DAMAGE, probability: float = 0.9, spans: tuple[TextSpan, ...] = ()
) -> Finding:
    rest = (1 - probability) / (len(CLASSES) - 1)
    probs = {name: probability if name == label else rest for name in CLASSES}
    prepared = PreparedPost(
        post=Post(id="p", text="Bridge down", lang=lang, url="https://example.org/1", geo=Geo(lat=1.5, lon=2.5)),
        origin=Origin(topic="posts", partition=0, offset=7),
        accepted_at=NOW,
        degraded=["no_image"],
    )
    prediction = Prediction(label=label, probs=probs, spans=spans, image=None, fallbacks=("text_truncated",))
    model = ModelInfo(name="m", version="m-1", digest="sha256:0")
    return make_finding(prepared, prediction, model, languages=("en",), now=NOW)


def test_finding_says_where_its_post_is_from() -> None:
    """Also over the wire."""
    found = decode(encode(finding(lang="en")), Finding)
    assert (found.lang, found.url, found.geo) == ("en", "https://example.org/1", Geo(lat=1.5, lon=2.5))


def test_score_that_is_no_number_is_never_published() -> None:
    """JSON would have `null` in its place."""
    with pytest.raises(ValueError, match="NaN"):
        finding(spans=(TextSpan(start=0, end=6, score=float("nan")),))


@pytest.mark.parametrize("lang", [None, "", "en", "en-GB", "EN_us", "und"])
def test_tested_or_unknown_language_is_not_degraded(lang: str | None) -> None:
    """What the model was tested in, and what nobody said, leaves the finding as it is."""
    assert finding(lang=lang).degraded == ["no_image", "text_truncated"]


@pytest.mark.parametrize("lang", ["hi", "pt-BR", "english", "mul"])
def test_untested_language_is_said(lang: str) -> None:
    """Probabilities that were never calibrated in a language do not stand there unmarked."""
    assert finding(lang=lang).degraded == ["no_image", "text_truncated", "language_untested"]


@pytest.mark.parametrize(
    ("label", "probability", "raised"),
    [(DAMAGE, 0.8, True), (DAMAGE, 0.79, False), ("not_humanitarian", 0.99, False)],
)
def test_alert_needs_damage_at_the_threshold(label: str, probability: float, raised: bool) -> None:
    """Only infrastructure damage alerts, from the threshold on."""
    alert = make_alert(finding(label=label, probability=probability), threshold=0.8)
    assert (alert is not None) == raised


def test_alert_is_marked_as_its_finding_is() -> None:
    """Whoever reads the alert alone is told that its probability was never calibrated for such a post."""
    alert = make_alert(finding(lang="hi"), threshold=0.5)
    assert alert is not None
    assert alert.degraded == ["no_image", "text_truncated", "language_untested"]
