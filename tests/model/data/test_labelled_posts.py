"""From tables to posts: which column is what, whose label is ours, where an image lies."""

from __future__ import annotations

from pathlib import Path

import pytest

from model.data.labelled_posts import Choice, Posts, read_posts
from model.data.labels import UnknownLabel, class_indices, read_label_map
from model.data.table_file import InvalidTable, read_table
from model.records import CLASSES

TASKS = {"humanitarian": CLASSES}
ALL = Choice()


def posts(tmp_path: Path, content: str, choice: Choice = ALL, name: str = "posts.tsv", **given: object) -> Posts:
    path = tmp_path / name
    path.write_text(content, "utf-8")
    return read_posts(read_table(path), TASKS, choice, **given)  # type: ignore[arg-type]


def names(found: Posts) -> list[str]:
    return [CLASSES[post.label] if post.label >= 0 else "" for post in found.posts]


def test_crisismmd_columns(tmp_path: Path) -> None:
    """Other columns are ignored, finer classes merged, an image is looked for by its path and by its name."""
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.jpg").touch()
    content = (
        "event_name\ttweet_id\timage_id\ttweet_text\timage\tlabel\tlabel_text\n"
        "irma\t9\t9_0\tBridge gone\tdata_image/irma/a.jpg\tvehicle_damage\tx\n"
        "irma\t9\t9_1\tHelp\tdata_image/irma/b.jpg\tmissing_or_found_people\tx\n"
    )

    found = posts(tmp_path, content, images=tmp_path / "pictures")

    assert names(found) == ["infrastructure_and_utility_damage", "affected_individuals"]
    assert [post.row_id for post in found.posts] == ["9_0", "9_1"]
    assert found.posts[0].image == tmp_path / "pictures" / "a.jpg"
    assert found.posts[1].image == tmp_path / "pictures" / "data_image/irma/b.jpg"
    assert found.columns == {"id": "image_id", "text": "tweet_text", "image": "image", "label": "label"}


def test_humaid_columns(tmp_path: Path) -> None:
    """Text only; ten classes merged to five."""
    content = "tweet_id\ttweet_text\tclass_label\n1\ta\tcaution_and_advice\n2\tb\tsympathy_and_support\n"

    found = posts(tmp_path, content)

    assert names(found) == ["other_relevant_information", "not_humanitarian"]
    assert [post.image for post in found.posts] == [None, None]


def test_rationale_columns(tmp_path: Path) -> None:
    """Spans of the corrected label's rows; none of posts about nothing, of which people marked nearly all."""
    content = (
        "tweet_id,tweet_text,label,corrected_label,informative_content\n"
        "'1',Red Cross: alive and missing,x,affected_people_and_evacuations,Red Cross[SEP]missing\n"
        "'2',hello there,x,not_related_or_irrelevant,hello there\n"
    )

    found = posts(tmp_path, content, name="people.csv")

    assert [post.spans for post in found.posts] == [((0, 9), (21, 28)), None]
    assert [post.row_id for post in found.posts] == ["1", "2"]


def test_pairs_columns(tmp_path: Path) -> None:
    """Rows without an agreed label are there, unlabelled; `where` keeps a split."""
    content = (
        "image_id\tlabel5_agreed\tsplit_agreed\ttweet_text\timage\tpixels\n"
        "1_0\tnot_humanitarian\ttest\ta\tx.jpg\trestored\n2_0\t\t\tb\ty.jpg\toriginal\n"
    )

    everything = posts(tmp_path, content)
    test = posts(tmp_path, content, Choice(where={"split_agreed": "test"}))

    assert names(everything) == ["not_humanitarian", ""]
    assert [post.pixels for post in everything.posts] == ["restored", "original"]
    assert [post.row_id for post in test.posts] == ["1_0"]


def test_ids_and_limit_keep_the_order(tmp_path: Path) -> None:
    """The first rows of those that were asked for."""
    content = "id\ttext\n" + "".join(f"{n}\tpost {n}\n" for n in range(6))

    chosen = Choice(columns={}, where={}, ids={"1", "3", "5"}, limit=2)

    assert [post.row_id for post in posts(tmp_path, content, chosen).posts] == ["1", "3"]


def test_missing_id_becomes_the_row(tmp_path: Path) -> None:
    """A table without ids, and repeated ids, keep every row."""
    bare = posts(tmp_path, "text\tlabel\na\tnot_humanitarian\nb\t\n")
    twice = posts(tmp_path, "id\ttext\n7\ta\n7\ta\n")

    assert [post.row_id for post in bare.posts] == ["row-1", "row-2"]
    assert [post.row_id for post in twice.posts] == ["7", "7"]
    assert twice.notes == ("1 rows repeat the id of an earlier row; each was kept",)


def test_modality_hides_the_other(tmp_path: Path) -> None:
    """Text alone needs no image to be there; the image alone sees no text."""
    content = "id\ttweet_text\timage\n1\ta\tx.jpg\n"

    text = posts(tmp_path, content, Choice(modality="text")).posts[0]
    image = posts(tmp_path, content, Choice(modality="image")).posts[0]

    assert (text.text, text.image) == ("a", None)
    assert (image.text, image.image) == ("", tmp_path / "x.jpg")


@pytest.mark.parametrize(
    ("content", "choice", "told"),
    [
        ("id\tbody\n1\ta\n", ALL, "no column tweet_text or image: its columns are id, body"),
        (
            "id\ttext\n1\ta\n",
            Choice(columns={"label": "klass"}),
            "klass",
        ),
        (
            "id\ttext\n1\ta\n",
            Choice(where={"split": "test"}),
            "split",
        ),
        ("id\ttext\n1\ta\n", Choice(where={"id": "2"}), "no row"),
        ("text\tlabel\na\t\n", Choice(ids={"1"}), "column of ids"),
        ("id\ttext\n1\ta\n", Choice(modality="image"), "no column image"),
    ],
)
def test_table_that_lacks_something_is_refused(content: str, choice: Choice, told: str, tmp_path: Path) -> None:
    """The message says what is there."""
    with pytest.raises(InvalidTable, match=told):
        posts(tmp_path, content, choice)


def test_named_column_wins(tmp_path: Path) -> None:
    """`--column` reads any table."""
    choice = Choice(columns={"text": "Body", "label": "KIND"})

    found = posts(tmp_path, "id\tbody\tkind\tlabel\n1\ta\tNot humanitarian\tnonsense\n", choice)

    assert (found.posts[0].text, names(found)) == ("a", ["not_humanitarian"])


def test_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidTable, match="nowhere"):
        posts(tmp_path, "id\timage\n1\tx.jpg\n", images=tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("label", "merged"),
    [
        ("Injured_or_dead_people", "affected_individuals"),
        ("damaged_nature", "infrastructure_and_utility_damage"),
        ("non_damage", "not_humanitarian"),
        ("rescue volunteering or donation effort", "rescue_volunteering_or_donation_effort"),
    ],
)
def test_known_vocabularies_merge(label: str, merged: str) -> None:
    """CrisisMMD's, HumAID's, DMD's and CrisisNLP's names, in any spelling."""
    assert class_indices([label], TASKS) == ("humanitarian", [CLASSES.index(merged)])


@pytest.mark.parametrize(
    ("label", "told"),
    [
        ("not_informative", "'informative'"),
        ("severe_damage", "'damage'"),
        ("infrastructure_damage_and_utility", "did you mean infrastructure_and_utility_damage"),
        ("7", "--label-map"),
    ],
)
def test_label_of_another_task_or_of_none_is_refused(label: str, told: str) -> None:
    """Never scored as something it is not."""
    with pytest.raises(UnknownLabel, match=told):
        class_indices(["not_humanitarian", label, label], TASKS)


BOTH = {"humanitarian": CLASSES, "damage": ("little_or_no_damage", "mild_damage", "severe_damage")}


def test_labels_choose_the_task() -> None:
    """A checkpoint with several heads is scored on the one that the labels are of; without labels, on the first."""
    assert class_indices(["severe", "", "mild_damage"], BOTH) == ("damage", [2, -1, 1])
    assert class_indices(["not_humanitarian"], BOTH) == ("humanitarian", [2])
    assert class_indices(["", ""], BOTH) == ("humanitarian", [-1, -1])
    assert class_indices(["a", "b"], BOTH, {"a": "mild_damage", "b": "ignore"}) == ("damage", [1, -1])


def test_labels_of_two_tasks_are_refused() -> None:
    with pytest.raises(UnknownLabel, match="several tasks"):
        class_indices(["severe", "not_humanitarian"], BOTH)


@pytest.mark.parametrize("name", ["map.toml", "map.json"])
def test_own_label_map_wins(name: str, tmp_path: Path) -> None:
    """Also over the built-in names; "ignore" leaves rows unscored."""
    path = tmp_path / name
    toml = '"Class 7" = "not_humanitarian"\ncaution_and_advice = "ignore"\n'
    path.write_text(
        toml if name.endswith("toml") else '{"Class 7": "not_humanitarian", "caution_and_advice": "ignore"}'
    )

    own = read_label_map(path, TASKS)

    assert class_indices(["class 7", "caution_and_advice", ""], TASKS, own) == ("humanitarian", [2, -1, -1])


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("[[", "neither TOML nor JSON"),
        ("", "maps no label"),
        ('a = "b"', "maps 'a' to 'b'"),
        ("a = 1", "maps 'a' to 1"),
    ],
)
def test_label_map_that_maps_nothing_is_refused(content: str, told: str, tmp_path: Path) -> None:
    path = tmp_path / "map.toml"
    path.write_text(content)

    with pytest.raises(UnknownLabel, match=told):
        read_label_map(path, TASKS)
