"""Hypothesis strategies for the wire records."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from hypothesis import strategies as st

from stream.records import (
    Alert,
    Box,
    DeadLetter,
    Duplicate,
    Finding,
    Geo,
    Image,
    ImageRationale,
    ModelInfo,
    Origin,
    Post,
    PreparedImage,
    PreparedPost,
    Span,
)

PROBS = st.floats(0, 1)
COUNTS = st.integers(0, 2**53)
TEXTS = st.text(max_size=50)
IDS = st.text(st.characters(exclude_characters="\x00", codec="utf-8"), min_size=1, max_size=40)
OFFSETS = st.integers(-1439, 1439).map(lambda minutes: timezone(timedelta(minutes=minutes)))
TIMES = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=OFFSETS)
PIXELS = st.floats(-1e6, 1e6)

GEOS = st.builds(Geo, lat=st.floats(-90, 90), lon=st.floats(-180, 180))
ORIGINS = st.builds(Origin, topic=TEXTS, partition=COUNTS, offset=COUNTS)
IMAGES = st.builds(Image, data=st.none() | st.binary(max_size=50), path=st.none() | IDS, url=st.none() | TEXTS)
POSTS = st.builds(
    Post,
    id=IDS,
    text=TEXTS,
    images=st.lists(IMAGES, max_size=4),
    source=TEXTS,
    created_at=st.none() | TIMES,
    lang=st.none() | st.text(max_size=35),
    url=st.none() | TEXTS,
    geo=st.none() | GEOS,
    author_hash=st.none() | TEXTS,
    version=st.integers(1, 9),
)
SPANS = st.builds(Span, start=COUNTS, end=st.integers(1, 2**53), score=PROBS)
BOXES = st.builds(Box, x0=PIXELS, y0=PIXELS, x1=PIXELS, y1=PIXELS)
SIDES = st.integers(1, 100_000)
IMAGE_RATIONALES = st.builds(
    ImageRationale,
    index=COUNTS,
    width=SIDES,
    height=SIDES,
    rows=SIDES,
    cols=SIDES,
    scores=st.lists(PROBS, max_size=5),
    selected=st.lists(COUNTS, max_size=5),
    boxes=st.lists(BOXES, max_size=2),
)
MODELS = st.builds(ModelInfo, name=TEXTS, version=TEXTS, digest=TEXTS)
FINDINGS = st.builds(
    Finding,
    id=TEXTS,
    post_id=IDS,
    label=TEXTS,
    probability=PROBS,
    probabilities=st.dictionaries(TEXTS, PROBS, max_size=3),
    text=TEXTS,
    text_rationale=st.lists(SPANS, max_size=3),
    image_rationale=st.none() | IMAGE_RATIONALES,
    degraded=st.lists(TEXTS, max_size=2),
    model=MODELS,
    origin=ORIGINS,
    posted_at=st.none() | TIMES,
    accepted_at=TIMES,
    classified_at=TIMES,
    source=TEXTS,
    lang=st.none() | TEXTS,
    url=st.none() | TEXTS,
    geo=st.none() | GEOS,
)
ALERTS = st.builds(
    Alert,
    id=TEXTS,
    kind=TEXTS,
    probability=PROBS,
    threshold=PROBS,
    findings=st.lists(TEXTS, max_size=3),
    post_ids=st.lists(IDS, max_size=3),
    headline=TEXTS,
    evidence=st.lists(TEXTS, max_size=3),
    raised_at=TIMES,
    posted_at=st.none() | TIMES,
    url=st.none() | TEXTS,
    geo=st.none() | GEOS,
)
DUPLICATES = st.builds(Duplicate, post_id=IDS, origin=ORIGINS, first=ORIGINS, differs=st.booleans())
DEAD_LETTERS = st.builds(
    DeadLetter,
    id=TEXTS,
    reason=TEXTS,
    exception=TEXTS,
    message=TEXTS,
    origin=ORIGINS,
    stage=TEXTS,
    attempt=st.integers(1, 100),
    failed_at=st.none() | TIMES,
    key=st.none() | st.binary(max_size=20),
    value=st.none() | st.binary(max_size=20),
    headers=st.lists(st.tuples(TEXTS, st.binary(max_size=20)), max_size=2),
)
PREPARED_IMAGES = st.tuples(st.integers(1, 5), st.integers(1, 5)).flatmap(
    lambda size: st.builds(
        PreparedImage,
        index=COUNTS,
        width=st.just(size[0]),
        height=st.just(size[1]),
        original_width=SIDES,
        original_height=SIDES,
        pixels=st.binary(min_size=size[0] * size[1] * 3, max_size=size[0] * size[1] * 3),
    )
)
PREPARED_POSTS = st.builds(
    PreparedPost,
    post=POSTS,
    origin=ORIGINS,
    accepted_at=TIMES,
    image=st.none() | PREPARED_IMAGES,
    degraded=st.lists(TEXTS, max_size=2),
)
