"""Tables are read as published: HumAID by event, so that unseen ones can be measured, and each task's own labels."""

import struct
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from model import data
from model.records import CLASSES, TASKS
from stream.pixels import prepare_image


def test_humaid_rows_are_those_of_the_events_and_part_asked_for(tmp_path: Path) -> None:
    (tmp_path / "humaid").mkdir()
    for event, label in (("kerala_floods_2018", "injured_or_dead_people"), ("hurricane_irma_2017", "not_humanitarian")):
        for part in ("train", "test"):
            row = f"{event}-{part}\ta post\t{label}\n"
            (tmp_path / "humaid" / f"{event}_{part}.tsv").write_text("tweet_id\ttweet_text\tclass_label\n" + row)

    assert data.humaid_events(tmp_path) == ["hurricane_irma_2017", "kerala_floods_2018"]
    [row] = data.humaid_rows(tmp_path, ["kerala_floods_2018"], "test")
    assert (row.row_id, CLASSES[row.label]) == ("kerala_floods_2018-test", "affected_individuals")
    both = data.humaid_rows(tmp_path, data.humaid_events(tmp_path))
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
    splits = data.task_texts(tmp_path, "damage")
    [row] = splits["dev"]  # the other image's text is nowhere
    assert splits["train"] == splits["test"] == []
    assert (row.row_id, row.text, TASKS["damage"][row.label]) == ("1_0", "the roof is gone", "severe_damage")
    assert data.image_labels(tmp_path, "informative") == {"1_0": 0, "images/flood": 0}
    assert data.image_labels(tmp_path, "damage") == {"1_0": 2, "images/flood": 0}


def picture(kind: str) -> Image.Image:
    left = Image.new("RGB", (40, 30), "white")
    left.paste("red", (0, 0, 12, 9))
    if kind == "transparent":
        left.putalpha(Image.linear_gradient("L").resize((40, 30)))
    if kind == "palette":
        return left.convert("P", palette=Image.Palette.ADAPTIVE)
    if kind == "16 bits":
        return Image.fromarray(np.linspace(0, 65_535, 1_200, dtype=np.uint16).reshape(30, 40))
    return left


@pytest.mark.parametrize("kind", ["plain", "turned", "transparent", "palette", "16 bits"])
def test_picture_of_a_table_is_the_one_that_a_worker_prepares(kind: str, tmp_path: Path) -> None:
    """Training and evaluation must see the pixels that are classified later."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6 if kind == "turned" else 1
    buffer = BytesIO()
    picture(kind).save(buffer, "PNG", exif=exif)
    (tmp_path / "a.png").write_bytes(buffer.getvalue())

    pixels = data.read_image(tmp_path / "a.png")

    served = prepare_image(buffer.getvalue(), index=0, edge=384, max_pixels=10_000)
    assert pixels.shape == (served.height, served.width, 3)
    assert pixels.tobytes() == served.pixels


def test_broken_metadata_does_not_cost_the_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a worker; Pillow fails at it in many ways."""
    picture("plain").save(tmp_path / "a.png")
    upright = data.read_image(tmp_path / "a.png")

    def broken(image: Image.Image) -> Image.Image:
        raise struct.error("unpack requires a buffer of 2 bytes")

    monkeypatch.setattr("model.data.ImageOps.exif_transpose", broken)
    assert np.array_equal(data.read_image(tmp_path / "a.png"), upright)
