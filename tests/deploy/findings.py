"""Hand-made findings for the tests of what is shown."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime

from stream.records import Box, Finding, ImageRationale, ModelInfo, Origin, Span, encode, finding_id
from workers.findings import make_alert

DAMAGE = "infrastructure_and_utility_damage"


@dataclass
class Record:
    """A consumed record."""

    topic: str
    value: bytes | None
    partition: int = 0
    offset: int = 0
    timestamp: int = 1_764_000_000_500
    key: bytes | None = None
    headers: list[tuple[str, bytes]] = field(default_factory=list)


def make_finding(
    text: str = "The bridge collapsed",
    *,
    post_id: str = "p-1",
    spans: tuple[tuple[int, int], ...] = ((4, 10),),
    label: str = DAMAGE,
    picture: bool = False,
    url: str | None = None,
) -> Finding:
    accepted_at = datetime.fromtimestamp(1_764_000_000, UTC)
    rationale = None
    if picture:
        rationale = ImageRationale(
            index=0, width=400, height=200, rows=2, cols=4, scores=[0.1] * 7 + [0.9], selected=[7],
            boxes=[Box(x0=300, y0=100, x1=400, y1=200)],
        )  # fmt: skip
    return Finding(
        id=finding_id(post_id, "m-1"),
        post_id=post_id,
        label=label,
        probability=0.75,
        probabilities={label: 0.75, "not_humanitarian" if label != "not_humanitarian" else DAMAGE: 0.25},
        text=text,
        text_rationale=[Span(start=start, end=end, score=0.8) for start, end in spans],
        image_rationale=rationale,
        model=ModelInfo(name="m", version="m-1", digest="sha256:0123456789abcdef"),
        origin=Origin(topic="t.posts", partition=0, offset=3),
        accepted_at=accepted_at,
        classified_at=accepted_at,
        url=url,
    )


def finding_record(finding: Finding, topic: str = "t.findings") -> Record:
    return Record(topic=topic, value=encode(finding))


def alert_record(finding: Finding, topic: str = "t.alerts") -> Record:
    alert = make_alert(finding, threshold=0.5)
    assert alert is not None
    return Record(topic=topic, value=encode(alert))
