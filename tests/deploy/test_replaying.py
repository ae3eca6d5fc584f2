"""A replay names what it leaves out."""

from __future__ import annotations

from pathlib import Path

from deploy.replaying import _few, _Left, _noted
from stream.feeds import FeedCounts, read_feed


def test_rows_without_text_or_image_are_named(tmp_path: Path) -> None:
    """Rows by number, posts that go without their picture by id and reason."""
    (tmp_path / "bad.jpg").touch()
    table = tmp_path / "posts.tsv"
    rows = ["post_id\ttext\timage", "a\t\t", "b\t \tgone.jpg", "c\tflood\tgone.jpg", "d\tfire\t", "e\t\t"]
    table.write_text("\n".join(rows))
    counts, left = FeedCounts(), _Left()

    records = list(_noted(read_feed(table, counts=counts), counts, left))

    assert [record.key for record in records] == [b"c", b"d"]
    assert left.empty == ["row 1", "row 2", "row 5"]
    assert list(left.without_image.values()) == [["c"]]
    assert list(left.without_image) == list(counts.images_left_out)


def test_only_the_first_few_are_named() -> None:
    assert _few(["a", "b"]) == "a, b"
    assert _few(list("abcdefg")) == "a, b, c, d, e and 2 more"
