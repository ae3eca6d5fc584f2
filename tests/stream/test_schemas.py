"""The checked-in JSON Schemas are those of the records, and real records pass them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from jsonschema import Draft202012Validator

from stream.records import PUBLIC_RECORDS, decode, encode
from stream.schemas import FOLDER, changed_schemas, main, schemas, write_schemas
from tests.stream import strategies as some

FINDING = {
    "id": "244b188f4de6d5fce66463806dfe9258",
    "post_id": "p-1",
    "label": "infrastructure_and_utility_damage",
    "probability": 0.9,
    "probabilities": {"infrastructure_and_utility_damage": 0.9, "not_humanitarian": 0.1},
    "text": "the bridge fell",
    "text_rationale": [{"start": 4, "end": 15, "score": 0.8}],
    "image_rationale": {
        "index": 0,
        "width": 400,
        "height": 300,
        "rows": 1,
        "cols": 2,
        "scores": [0.1, 0.9],
        "selected": [1],
        "boxes": [{"x0": 200, "y0": 0, "x1": 400, "y1": 300}],
    },
    "model": {"name": "compact", "version": "1.0.0", "digest": "0" * 64},
    "origin": {"topic": "sitrep.posts", "partition": 0, "offset": 41},
    "accepted_at": "2026-01-01T00:00:00Z",
    "classified_at": "2026-01-01T00:00:01Z",
}
POST = {
    "id": "p-1",
    "text": "the bridge fell",
    "images": [{"data": "aGk="}, {"path": "a/b.jpg"}],
    "source": "bluesky",
    "created_at": "2026-01-01T00:00:00+01:00",
    "geo": {"lat": 27.7, "lon": 85.3},
}
ALERT = {
    "id": "a-1",
    "kind": "infrastructure_and_utility_damage",
    "probability": 0.9,
    "threshold": 0.5,
    "findings": [FINDING["id"]],
    "post_ids": ["p-1"],
    "headline": "infrastructure damage",
    "evidence": ["bridge fell"],
    "raised_at": "2026-01-01T00:00:02Z",
}
EXAMPLES = {"Post": POST, "Finding": FINDING, "Alert": ALERT}


def validator(record_type: type[msgspec.Struct]) -> Draft202012Validator:
    (schema,) = (one for one in map(json.loads, schemas().values()) if one["title"] == record_type.__name__)
    return Draft202012Validator(schema)


VALIDATORS = {record_type: validator(record_type) for record_type in PUBLIC_RECORDS}


def test_checked_in_schemas_are_generated_ones() -> None:
    assert changed_schemas(FOLDER) == [], "run `python -m stream.schemas`"


@pytest.mark.parametrize("record_type", PUBLIC_RECORDS)
def test_schema_is_a_valid_one_with_an_identity(record_type: type[msgspec.Struct]) -> None:
    schema = VALIDATORS[record_type].schema
    Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == Draft202012Validator.META_SCHEMA["$id"]
    assert schema["$id"].startswith("urn:sitrep:schema:")


@pytest.mark.parametrize("name", EXAMPLES)
def test_example_passes_its_schema_and_is_a_record(name: str) -> None:
    (record_type,) = (one for one in PUBLIC_RECORDS if one.__name__ == name)
    VALIDATORS[record_type].validate(EXAMPLES[name])
    record = decode(json.dumps(EXAMPLES[name]).encode(), record_type)
    VALIDATORS[record_type].validate(json.loads(encode(record)))


@given(some.POSTS | some.FINDINGS | some.ALERTS | some.DUPLICATES | some.DEAD_LETTERS)
def test_what_is_sent_passes_its_schema(record: msgspec.Struct) -> None:
    VALIDATORS[type(record)].validate(json.loads(encode(record)))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("Post", {"id": ""}),
        ("Post", {"id": 7}),
        ("Post", {"images": [{}] * 5}),
        ("Post", {"geo": {"lat": 91, "lon": 0}}),
        ("Finding", {"probability": 1.5}),
        ("Finding", {"model": {}}),
        ("Alert", {"post_ids": [""]}),
    ],
)
def test_what_is_refused_fails_its_schema(name: str, change: dict[str, Any]) -> None:
    (record_type,) = (one for one in PUBLIC_RECORDS if one.__name__ == name)
    assert not VALIDATORS[record_type].is_valid({**EXAMPLES[name], **change})


def test_later_fields_pass_an_earlier_schema() -> None:
    for record_type in PUBLIC_RECORDS:
        if record_type.__name__ in EXAMPLES:
            VALIDATORS[record_type].validate({**EXAMPLES[record_type.__name__], "later": 1, "version": 2})


def test_command_writes_and_checks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "schemas"
    assert main(["--check", "--folder", str(folder)]) == 1
    assert main(["--folder", str(folder)]) == 0
    assert capsys.readouterr().out.split() == [str(folder / name) for name in schemas()]
    assert main(["--check", "--folder", str(folder)]) == 0
    (folder / "post.v1.json").write_text("{}")
    (folder / "post.v0.json").write_text("{}")
    assert main(["--check", "--folder", str(folder)]) == 1
    assert "post.v1.json is out of date" in capsys.readouterr().err
    assert changed_schemas(folder) == ["post.v1.json"]
    assert len(write_schemas(folder)) == len(PUBLIC_RECORDS)
    assert (folder / "post.v0.json").exists()
