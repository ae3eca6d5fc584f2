"""What may be trained on: no copy of a test post, in whichever way it is one."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest

from model.data import datasets
from model.data.corpus import Corpus, load_corpus
from model.data.datasets import TextRow

DAMAGE, NOTHING = "infrastructure_and_utility_damage", "not_humanitarian"
TEST = "The bridge is down http://t.co/a"
COPY = "RT @someone: the BRIDGE is down! https://t.co/b"  # but for links, names and punctuation the same
DEV = "water is needed"
PAIRS = ("tweet_id", "image_id", "image", "tweet_text", "split_full", "split_agreed", "label5_agreed", "image_human")


def table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join("\t".join(row) for row in (columns, *rows)) + "\n", "utf-8")


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    """Tweet 1 is the test row, tweet 2 the dev row; tweet 3's picture is in the group of tweet 1's."""
    columns = ("image_id", "tweet_text", "label")
    splits = {
        "train": [
            ("1_1", "another text of the same tweet", DAMAGE),
            ("10_0", COPY, DAMAGE),
            ("3_0", "same picture", DAMAGE),
            ("11_0", "roof gone", DAMAGE),
            ("11_1", "roof gone", DAMAGE),
            ("12_0", "@you roof gone!", DAMAGE),
        ],
        "dev": [("2_0", DEV, DAMAGE)],
        "test": [("1_0", TEST, DAMAGE)],
    }
    for split, rows in splits.items():
        table(tmp_path / f"crisismmd/labels/task_humanitarian_text_img_agreed_lab_{split}.tsv", columns, rows)
    posts = [
        ("20", COPY),
        ("21", "Water is needed"),
        ("3", "same picture"),
        ("1", "another text of the same tweet"),
        ("22", "love this song"),
    ]
    notes = [(tweet, f"{tweet}_9", text, NOTHING) for tweet, text in posts]
    table(tmp_path / "crisismmd/annotations/irma.tsv", ("tweet_id", "image_id", "tweet_text", "text_human"), notes)
    pairs = [
        ("1", "1_0", "a.jpg", TEST, "test", "test", DAMAGE, DAMAGE, "g1", "restored"),
        ("3", "3_0", "b.jpg", "same picture", "train", "train", DAMAGE, DAMAGE, "g1", "original"),
        ("11", "11_0", "c.jpg", "roof gone", "train", "train", DAMAGE, DAMAGE, "g2", "original"),
    ]
    table(tmp_path / "crisismmd/pairs.tsv", (*PAIRS, "group", "pixels"), pairs)
    humaid = [
        ("1", "the same tweet again", "caution_and_advice"),
        ("30", COPY, "caution_and_advice"),
        ("31", DEV, "caution_and_advice"),
        ("3", "its picture is in a test row's group", "caution_and_advice"),
        ("32", "stay inside", "caution_and_advice"),
    ]
    table(tmp_path / "humaid/hurricane_irma_2017_train.tsv", ("tweet_id", "tweet_text", "class_label"), humaid)
    unseen = [("40", "lava", "caution_and_advice")]
    table(tmp_path / "humaid/volcano_2020_train.tsv", ("tweet_id", "tweet_text", "class_label"), unseen)
    (tmp_path / "rationales").mkdir()
    (tmp_path / "rationales/nepal_earthquake_2015.csv").write_text(
        "tweet_id,tweet_text,corrected_label,informative_content\n9,all quiet,not_related_or_irrelevant,all quiet\n"
    )
    aidr = ("image", "medic_humanitarian", "disaster_type")
    table(tmp_path / "aidr/images.tsv", aidr, [("images/flood.jpg", DAMAGE, "flood")])
    table(tmp_path / "cdd/images.tsv", ("image", "label"), [])
    return load_corpus(tmp_path, held_out_events=["volcano_2020"])


def ids(rows: Iterable[TextRow]) -> list[str]:
    return [row.row_id for row in rows]


def test_copies_of_test_rows_are_in_no_training_part(corpus: Corpus) -> None:
    """The same tweet, the same words, a picture of the same group; of HumAID also no tweet of a held-out event."""
    assert ids(corpus.test) == ["1_0"]
    assert ids(corpus.dev) == ["2_0"]
    assert ids(corpus.train) == ["11_0"]
    assert ids(corpus.disagreed) == ["22"]
    assert ids(corpus.humaid) == ["32"]


def test_pictures_in_a_test_rows_group_are_not_free(corpus: Corpus) -> None:
    free = {row.row_id: free for row, free in zip(corpus.images, corpus.free, strict=True)}

    assert free == {"1_0": False, "3_0": False, "11_0": True, "images/flood": True}
    assert corpus.tied == {"1", "3"}


def test_rows_of_another_task_are_cleared_likewise(corpus: Corpus) -> None:
    copies = [TextRow(row_id=row_id, text=text, label=0) for row_id, text in (("1_5", "x"), ("50", COPY), ("3_7", "y"))]
    kept = TextRow(row_id="51", text="roof gone", label=0)

    assert corpus.clear_of_test([*copies, kept]) == [kept]


def test_without_and_unique_texts_know_a_copy_by_tweet_and_by_words() -> None:
    first, again, other = (
        TextRow(row_id=row_id, text=text, label=0) for row_id, text in (("1_0", TEST), ("2_0", COPY), ("3_0", "fire"))
    )

    assert datasets.unique_texts([first, again, other]) == [first, other]
    assert datasets.without([again, other], [first]) == [other]
    assert datasets.without([other], [TextRow(row_id="3_1", text="smoke", label=0)]) == []
