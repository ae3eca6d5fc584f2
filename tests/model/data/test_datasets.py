"""Tables are read as published: HumAID by event, so that unseen ones can be measured, and each task's own labels."""

from pathlib import Path

from model.data import datasets
from model.records import CLASSES, TASKS


def test_humaid_rows_are_those_of_the_events_and_part_asked_for(tmp_path: Path) -> None:
    (tmp_path / "humaid").mkdir()
    for event, label in (("kerala_floods_2018", "injured_or_dead_people"), ("hurricane_irma_2017", "not_humanitarian")):
        for part in ("train", "test"):
            row = f"{event}-{part}\ta post\t{label}\n"
            (tmp_path / "humaid" / f"{event}_{part}.tsv").write_text("tweet_id\ttweet_text\tclass_label\n" + row)

    assert datasets.humaid_events(tmp_path) == ["hurricane_irma_2017", "kerala_floods_2018"]
    [row] = datasets.humaid_rows(tmp_path, ["kerala_floods_2018"], "test")
    assert (row.row_id, CLASSES[row.label]) == ("kerala_floods_2018-test", "affected_individuals")
    both = datasets.humaid_rows(tmp_path, datasets.humaid_events(tmp_path))
    assert [row.row_id for row in both] == ["hurricane_irma_2017-train", "kerala_floods_2018-train"]


def test_labels_of_further_tasks_come_from_their_own_tables(tmp_path: Path) -> None:
    for folder in ("crisismmd/labels", "crisismmd/annotations", "aidr"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "crisismmd/labels/task_damage_dev.tsv").write_text(
        "Event_name\tImage_id\tImage\tLabel\nirma\t1_0\ta.jpg\tsevere_damage\nirma\t2_0\tb.jpg\tmild_damage\n"
    )
    (tmp_path / "crisismmd/annotations/irma.tsv").write_text("image_id\ttweet_text\n1_0\tthe roof is gone\n")
    (tmp_path / "crisismmd/pairs.tsv").write_text(
        "image_id\ttext_info\timage_info\timage_damage\n"
        "1_0\tinformative\tinformative\tsevere_damage\n"
        "2_0\tinformative\tnot_informative\t\n"
    )
    (tmp_path / "aidr/images.tsv").write_text(
        "image\tmedic_informative\tmedic_damage\nimages/flood.jpg\tinformative\tlittle_or_none\n"
    )
    for split in ("train", "test"):
        (tmp_path / f"crisismmd/labels/task_damage_{split}.tsv").write_text("Event_name\tImage_id\tImage\tLabel\n")
    splits = datasets.task_texts(tmp_path, "damage")
    [row] = splits["dev"]  # the other image's text is nowhere
    assert splits["train"] == splits["test"] == []
    assert (row.row_id, row.text, TASKS["damage"][row.label]) == ("1_0", "the roof is gone", "severe_damage")
    assert datasets.image_labels(tmp_path, "informative") == {"1_0": 0, "images/flood": 0}
    assert datasets.image_labels(tmp_path, "damage") == {"1_0": 2, "images/flood": 0}
