"""The wire records: what is sent comes back, what is broken is told apart, later versions are read."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.errors import InvalidRecord
from stream.records import (
    JSON,
    MAX_IMAGES,
    MAX_TEXT_CHARS,
    MSGPACK,
    PUBLIC_RECORDS,
    Alert,
    DeadLetter,
    Duplicate,
    Finding,
    Post,
    PreparedPost,
    content_digest,
    decode,
    decode_post,
    decode_prepared,
    encode,
    encode_prepared,
    finding_id,
)
from tests.stream import strategies as some

MAX_BYTES = 1_000_000
EXT = msgspec.msgpack.Ext(5, b"x")


@given(some.POSTS | some.FINDINGS | some.ALERTS | some.DUPLICATES | some.DEAD_LETTERS)
def test_every_public_record_survives_its_encoding(record: msgspec.Struct) -> None:
    assert type(record) in PUBLIC_RECORDS
    assert decode(encode(record), type(record)) == record


@given(some.POSTS.filter(lambda post: post.text.strip() or post.images))
def test_post_survives_json_and_messagepack(post: Post) -> None:
    assert decode_post(encode(post), max_bytes=MAX_BYTES) == post
    packed = msgspec.msgpack.encode(post)
    assert decode_post(packed, content_type=MSGPACK, max_bytes=MAX_BYTES) == post


@given(some.PREPARED_POSTS)
def test_prepared_post_survives_its_encoding(prepared: PreparedPost) -> None:
    assert decode_prepared(encode_prepared(prepared)) == prepared


@given(
    some.POSTS | some.FINDINGS | some.ALERTS | some.DUPLICATES | some.DEAD_LETTERS,
    st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=5),
)
def test_version_n_reads_n_plus_1_with_fields_it_does_not_know(record: Any, value: Any) -> None:
    later = json.loads(encode(record)) | {"a_later_field": value, "version": record.version + 1}
    read = decode(json.dumps(later).encode(), type(record))
    assert read == msgspec.structs.replace(record, version=record.version + 1)


@pytest.mark.parametrize("record_type", PUBLIC_RECORDS)
def test_public_record_has_a_version_and_new_fields_have_defaults(record_type: type[msgspec.Struct]) -> None:
    """The fields without a default are those of version 1: adding another would break readers of old records."""
    required = {field.name for field in msgspec.structs.fields(record_type) if field.required}
    first = {
        Post: {"id"},
        Finding: {
            "id", "post_id", "label", "probability", "probabilities", "text", "text_rationale", "model", "origin",
            "accepted_at", "classified_at",
        },
        Alert: {
            "id", "kind", "probability", "threshold", "findings", "post_ids", "headline", "evidence", "raised_at",
        },
        Duplicate: {"post_id", "origin", "first"},
        DeadLetter: {"id", "reason", "exception", "message", "origin", "stage", "attempt"},
    }  # fmt: skip
    assert required == first[record_type]
    assert "version" in record_type.__struct_fields__


def post_with(**fields: Any) -> bytes:
    return json.dumps({"id": "p-1", "text": "a bridge fell", **fields}).encode()


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        pytest.param(None, "empty_record", id="no value, which is a tombstone"),
        pytest.param(b"", "empty_record", id="no bytes"),
        pytest.param(b"x" * (MAX_BYTES + 1), "record_too_large", id="too large"),
        pytest.param(b"not json", "undecodable", id="not JSON"),
        pytest.param(b"\xff\xfe\x00", "undecodable", id="binary"),
        pytest.param(b'{"id": "p-1", "text": "a', "undecodable", id="cut off"),
        pytest.param(post_with() + b"{}", "undecodable", id="two records"),
        pytest.param(b"\xef\xbb\xbf" + post_with(), "undecodable", id="byte order mark"),
        pytest.param(b'{"id": "p-1", "text": "\xff"}', "undecodable", id="invalid UTF-8"),
        pytest.param(b'{"id": "p-1", "text": "\\ud800"}', "undecodable", id="lone surrogate"),
        pytest.param(b'{"id": "p-1", "text": "a", "x": ' + b"[" * 100_000, "undecodable", id="deep nesting"),
        pytest.param(b'{"id": "p-1", "geo": {"lat": NaN, "lon": 0}}', "undecodable", id="NaN"),
        pytest.param(b'{"id": "p-1", "geo": {"lat": Infinity, "lon": 0}}', "undecodable", id="infinity"),
        pytest.param(b'{"id": "p-1", "geo": {"lat": 1e999, "lon": 0}}', "invalid_field", id="huge float"),
        pytest.param(b'{"id": "p-1", "version": ' + b"9" * 5_000 + b"}", "invalid_field", id="huge integer"),
        pytest.param(b"[]", "invalid_field", id="a list"),
        pytest.param(b"null", "invalid_field", id="null"),
        pytest.param(b'"p-1"', "invalid_field", id="a string"),
        pytest.param(b'{"text": "a"}', "invalid_field", id="no id"),
        pytest.param(post_with(id=""), "invalid_field", id="empty id"),
        pytest.param(post_with(id="p-1\x00bluesky"), "invalid_field", id="id that passes for another's with a source"),
        pytest.param(post_with(id=7), "invalid_field", id="id is a number"),
        pytest.param(post_with(id="i" * 257), "invalid_field", id="long id"),
        pytest.param(post_with(text="a" * (MAX_TEXT_CHARS + 1)), "invalid_field", id="long text"),
        pytest.param(post_with(text=None), "invalid_field", id="text is null"),
        pytest.param(post_with(images=[{}] * (MAX_IMAGES + 1)), "invalid_field", id="many images"),
        pytest.param(post_with(images=[{"data": "%%%"}]), "invalid_field", id="not base64"),
        pytest.param(post_with(created_at="2026-01-01T00:00:00"), "invalid_field", id="time without offset"),
        pytest.param(post_with(created_at="yesterday"), "invalid_field", id="not a time"),
        pytest.param(post_with(created_at="0001-01-01T00:00:00+01:00"), "invalid_field", id="before the year 1 in UTC"),
        pytest.param(post_with(created_at="9999-12-31T23:59:59-01:00"), "invalid_field", id="after 9999 in UTC"),
        pytest.param(post_with(geo={"lat": 91, "lon": 0}), "invalid_field", id="beyond the pole"),
        pytest.param(post_with(version=0), "invalid_field", id="version 0"),
        pytest.param(post_with(text=" \n\t"), "empty_post", id="blank text and no image"),
    ],
)
def test_broken_json_post_is_refused_with_its_reason(value: bytes | None, reason: str) -> None:
    with pytest.raises(InvalidRecord) as error:
        decode_post(value, max_bytes=MAX_BYTES)
    assert error.value.reason == reason
    assert str(error.value)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        pytest.param(b"\xc1", "undecodable", id="reserved byte"),
        pytest.param(b"\xdf\xff\xff\xff\xff", "undecodable", id="claims 4 billion fields"),
        pytest.param(b"\x81\xa2id\xdb\xff\xff\xff\xff", "undecodable", id="claims a text of 4 GB"),
        pytest.param(b"\x82\xa2id\xa1a\xa4text\xa1\xff", "undecodable", id="invalid UTF-8"),
        pytest.param(b"\x82\xa2id\xa3\xed\xa0\x80\xa4text\xa1x", "undecodable", id="lone surrogate"),
        pytest.param(b"\x82\xa2id\xa1a\xa1x" + b"\x91" * 100_000, "undecodable", id="deep nesting"),
        pytest.param(msgspec.msgpack.encode({1: 2}), "invalid_field", id="keys are numbers"),
        pytest.param(msgspec.msgpack.encode({"id": "a", "text": EXT}), "invalid_field", id="text is an ext"),
        pytest.param(msgspec.msgpack.encode({"id": "a", "text": "b"}) + b"c", "undecodable", id="trailing bytes"),
        pytest.param(
            msgspec.msgpack.encode({"id": "a", "geo": {"lat": float("nan"), "lon": 0.0}}), "invalid_field", id="NaN"
        ),
    ],
)
def test_broken_messagepack_post_is_refused_with_its_reason(value: bytes, reason: str) -> None:
    with pytest.raises(InvalidRecord) as error:
        decode_post(value, content_type=MSGPACK, max_bytes=MAX_BYTES)
    assert error.value.reason == reason


def test_unknown_field_of_any_kind_is_ignored() -> None:
    value = msgspec.msgpack.encode({"id": "a", "text": "b", "later": EXT})
    assert decode_post(value, content_type=MSGPACK, max_bytes=MAX_BYTES).text == "b"
    assert decode_post(post_with(later=10**400), max_bytes=MAX_BYTES).id == "p-1"


@pytest.mark.parametrize("content_type", [JSON, "APPLICATION/JSON", "application/json; charset=utf-8"])
def test_content_type_may_carry_parameters(content_type: str) -> None:
    assert decode_post(post_with(), content_type=content_type, max_bytes=MAX_BYTES).id == "p-1"


@pytest.mark.parametrize("content_type", ["", "text/plain", "application/xml", "application/jsonx", ";"])
def test_unknown_content_type_is_refused(content_type: str) -> None:
    with pytest.raises(InvalidRecord, match="content-type") as error:
        decode_post(post_with(), content_type=content_type, max_bytes=MAX_BYTES)
    assert error.value.reason == "content_type"


def test_json_in_the_name_of_messagepack_is_refused() -> None:
    with pytest.raises(InvalidRecord):
        decode_post(post_with(), content_type=MSGPACK, max_bytes=MAX_BYTES)


@given(some.PREPARED_POSTS.filter(lambda prepared: prepared.image is not None))
def test_prepared_image_must_have_as_many_bytes_as_pixels(prepared: PreparedPost) -> None:
    assert prepared.image is not None
    image = msgspec.structs.replace(prepared.image, pixels=prepared.image.pixels + b"\x00")
    with pytest.raises(InvalidRecord) as error:
        decode_prepared(encode_prepared(msgspec.structs.replace(prepared, image=image)))
    assert error.value.reason == "invalid_field"


@pytest.mark.parametrize("value", [None, b"", b"{}", b"\x80"])
def test_what_is_no_prepared_post_is_refused(value: bytes | None) -> None:
    with pytest.raises(InvalidRecord):
        decode_prepared(value)


@given(some.IDS, some.TEXTS, some.IDS, some.TEXTS)
def test_finding_id_tells_posts_and_model_versions_apart(post: str, model: str, post_2: str, model_2: str) -> None:
    assert finding_id(post, model) == finding_id(post, model)
    if (post, model) != (post_2, model_2) and "\x00" not in model + model_2:
        assert finding_id(post, model) != finding_id(post_2, model_2)


def test_finding_id_never_changes() -> None:
    """Consumers keep it: another value would make every finding a new one."""
    assert finding_id("p-1", "1.0.0") == "244b188f4de6d5fce66463806dfe9258"
    assert len({finding_id("p-1", "1.0.0", source=source) for source in ("unknown", "bluesky", "telegram")}) == 3


@given(some.FINDINGS, some.TIMES)
def test_content_does_not_depend_on_when_it_was_classified(finding: Finding, later: datetime) -> None:
    assert content_digest(finding) == content_digest(msgspec.structs.replace(finding, classified_at=later))


@given(some.FINDINGS)
def test_content_depends_on_every_other_field(finding: Finding) -> None:
    moved = finding.accepted_at.replace(year=2026) + timedelta(days=500)
    others: dict[str, Any] = {
        "id": finding.id + "x",
        "post_id": finding.post_id + "x",
        "label": finding.label + "x",
        "probability": 1 - finding.probability / 2 if finding.probability else 0.5,
        "probabilities": {**finding.probabilities, "another": 0.123},
        "text": finding.text + "x",
        "text_rationale": [*finding.text_rationale, *decode(b'[{"start":0,"end":1,"score":1}]', list)],
        "degraded": [*finding.degraded, "x"],
        "accepted_at": moved,
        "posted_at": moved if finding.posted_at != moved else None,
        "source": finding.source + "x",
        "lang": (finding.lang or "") + "x",
        "url": (finding.url or "") + "x",
        "version": finding.version + 1,
    }
    digest = content_digest(finding)
    for name, value in others.items():
        assert content_digest(msgspec.structs.replace(finding, **{name: value})) != digest, name


def test_content_does_not_depend_on_the_order_of_the_classes() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    one = decode(
        json.dumps(
            {
                "id": "f", "post_id": "p", "label": "a", "probability": 0.7, "probabilities": {"a": 0.7, "b": 0.3},
                "text": "t", "text_rationale": [], "model": {"name": "n", "version": "1", "digest": "d"},
                "origin": {"topic": "t", "partition": 0, "offset": 1}, "accepted_at": now.isoformat(),
                "classified_at": now.isoformat(),
            }
        ).encode(),
        Finding,
    )  # fmt: skip
    other = msgspec.structs.replace(one, probabilities=dict(reversed(one.probabilities.items())))
    assert content_digest(one) == content_digest(other)
