"""The sample posts are valid, varied, and broken only where they mean to be."""

from __future__ import annotations

import io
from collections import Counter

import msgspec
import numpy as np
import pytest
from PIL import Image

from deploy.sample_posts import SAMPLES_FOLDER, RawRecord, sample_records
from deploy.samples.draw import IMAGES, MAX_IMAGE_BYTES, SCENES, draw
from stream.errors import InvalidRecord
from stream.records import JSON, Post, decode_post

MAX_RECORD_BYTES = 2_097_152
CLASSES = {
    "affected_individuals",
    "infrastructure_and_utility_damage",
    "not_humanitarian",
    "other_relevant_information",
    "rescue_volunteering_or_donation_effort",
}


def _post(record: RawRecord) -> Post:
    content_type = dict(record.headers).get("content-type", JSON.encode()).decode()
    return decode_post(record.value, content_type=content_type, max_bytes=MAX_RECORD_BYTES)


@pytest.fixture(scope="module")
def records() -> list[RawRecord]:
    return list(sample_records())


@pytest.fixture(scope="module")
def posts(records: list[RawRecord]) -> list[Post]:
    return [_post(record) for record in records if record.fault is None]


def test_only_marked_records_are_refused_and_for_the_marked_reason(records: list[RawRecord]) -> None:
    """Every record without a fault is a post; every other is refused with that reason."""
    refused: Counter[str] = Counter()
    for record in records:
        if record.fault is None:
            assert record.label in CLASSES
            assert _post(record).id.startswith("sample-")
        else:
            with pytest.raises(InvalidRecord) as caught:
                _post(record)
            assert caught.value.reason == record.fault
            refused[record.fault] += 1
    assert set(refused) == {"undecodable", "empty_record", "empty_post", "invalid_field", "record_too_large"}


def test_samples_cover_classes_languages_and_pictures(records: list[RawRecord], posts: list[Post]) -> None:
    """At least 80 records, 8 of each class, 8 languages, about half with pictures inline or by path."""
    assert len(records) >= 80
    per_class = Counter(record.label for record in records if record.label)
    assert set(per_class) == CLASSES
    assert min(per_class.values()) >= 8
    assert len({post.lang for post in posts} - {None}) >= 10
    n_illustrated = sum(bool(post.images) for post in posts)
    assert 0.4 < n_illustrated / len(posts) < 0.6
    inline = [image for post in posts for image in post.images if image.data]
    by_path = [image.path for post in posts for image in post.images if image.path]
    assert len(inline) > len(by_path) >= 5
    assert sum((SAMPLES_FOLDER / path).resolve().parent == IMAGES for path in by_path) == len(by_path) - 1


def test_samples_hold_the_awkward_inputs(records: list[RawRecord], posts: list[Post]) -> None:
    """Duplicates, an image bomb, unreadable images, MessagePack, an unknown field, an image alone."""
    values: dict[bytes, set[bytes]] = {}
    for record in records:
        values.setdefault(record.key, set()).add(record.value)
    n_per_key = Counter(record.key for record in records)
    repeated = [key for key, n in n_per_key.items() if n > 1]
    assert sorted(len(values[key]) for key in repeated) == [1, 2]
    assert any(dict(record.headers).get("content-type") == b"application/msgpack" for record in records)
    assert any(b'"likes"' in record.value for record in records)
    assert any(post.images and not post.text for post in posts)
    n_broken, n_bombs = 0, 0
    for data in (image.data for post in posts for image in post.images if image.data):
        try:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(Image, "MAX_IMAGE_PIXELS", 50_000_000)
                Image.open(io.BytesIO(data)).load()
        except Image.DecompressionBombError:
            n_bombs += 1
        except OSError:
            n_broken += 1
    assert (n_broken, n_bombs) == (2, 1)


def test_first_twenty_are_a_fair_mix() -> None:
    """A short run already shows alerts' class, pictures, several classes, a broken record and a duplicate."""
    first = list(sample_records(20))
    assert {record.label for record in first} - {None} == CLASSES
    assert sum(record.label == "infrastructure_and_utility_damage" for record in first) >= 5
    assert sum(record.fault is not None for record in first) >= 2
    assert len({record.key for record in first}) < len(first)


def test_more_than_there_are_come_again_under_new_ids(records: list[RawRecord]) -> None:
    """The second round differs from the first in ids alone, so that it is not taken for duplicates."""
    n = len(records)
    again = list(sample_records(2 * n + 1))
    assert len(again) == 2 * n + 1
    assert [record.value for record in again[:n]] == [record.value for record in records]
    assert _post(again[n]).id == f"{_post(records[0]).id}-2"
    assert again[n].key == records[0].key + b"-2"
    assert _post(again[2 * n]).id == f"{_post(records[0]).id}-3"
    first, second = _post(records[0]), _post(again[n])
    assert msgspec.structs.replace(second, id=first.id) == first


def test_nothing_in_the_samples_points_at_the_real_world(posts: list[Post]) -> None:
    """Links lead to example.org, which is reserved for examples."""
    for post in posts:
        assert all(part.startswith("example.org") for part in post.text.split("https://")[1:])
        assert post.url is None or post.url.startswith("https://example.org/")


def test_pictures_are_small_and_complete() -> None:
    """Every scene has its file, no file is left over, each is at most 384 pixels long."""
    files = sorted(IMAGES.glob("*.jpg"))
    assert [file.stem for file in files] == sorted(SCENES)
    assert sum(file.stat().st_size for file in files) < 600_000
    for file in files:
        assert file.stat().st_size <= MAX_IMAGE_BYTES
        with Image.open(file) as image:
            assert max(image.size) == 384


@pytest.mark.parametrize("name", ["bridge-1", "notice-1"])
def test_drawing_gives_the_shipped_picture(name: str) -> None:
    """The pictures are made by the script beside them, and by nothing else."""
    drawn = np.asarray(Image.open(io.BytesIO(draw(name))), dtype=float)
    with Image.open(IMAGES / f"{name}.jpg") as file:
        shipped = np.asarray(file, dtype=float)
    assert drawn.shape == shipped.shape
    assert np.abs(drawn - shipped).mean() < 3
