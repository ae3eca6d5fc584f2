"""Reads the training and evaluation tables from a data folder; never writes there and never mixes splits."""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from model.data.labels import MERGED, class_index
from model.records import TASKS

_LABELS = "crisismmd/labels/task_humanitarian_text_img_agreed_lab_{split}.tsv"
_TASK_TABLES = {  # with the columns of image id and label
    "informative": ("crisismmd/labels/task_informative_text_img_agreed_lab_{split}.tsv", "image_id", "label"),
    "damage": ("crisismmd/labels/task_damage_{split}.tsv", "Image_id", "Label"),
}
_MEDIC_DAMAGE = {"severe": "severe_damage", "mild": "mild_damage", "little_or_none": "little_or_no_damage"}


@dataclass(frozen=True, slots=True, kw_only=True)
class TextRow:
    """One labelled text; `label` indexes CLASSES."""

    row_id: str
    text: str
    label: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRow:
    """One image; labels are -1 where unknown. `text` is empty for images without a post."""

    row_id: str
    path: Path
    text: str
    label: int  # of the agreed split, or the image's own label
    disaster: int  # indexes DISASTERS
    split: str  # "train", "dev", "test" (official agreed) or "extra"
    group: str
    pixels: str  # "original" or "restored"


DISASTERS = ("none", "flood", "fire", "earthquake", "landslide", "hurricane", "drought")
_CDD_DISASTERS = {
    "floods": "flood",
    "fire_disaster_urban_fire": "fire",
    "wild_fire": "fire",
    "land_slide": "landslide",
    "drought": "drought",
    "non_damage_buildings_street": "none",
    "non_damage_wildlife_forest": "none",
    "human": "none",
}
_CDD_LABELS = {
    "non_damage_buildings_street": "not_humanitarian",
    "non_damage_wildlife_forest": "not_humanitarian",
    "land_slide": "infrastructure_and_utility_damage",
    "fire_disaster_urban_fire": "infrastructure_and_utility_damage",
}


def text_rows(data: Path, split: str) -> list[TextRow]:
    """The official agreed split: "train", "dev" or "test"; one row per image, so texts repeat."""
    return [
        TextRow(row_id=row["image_id"], text=row["tweet_text"], label=class_index(row["label"]))
        for row in _tsv(data / _LABELS.format(split=split))
    ]


def humaid_events(data: Path) -> list[str]:
    """The events of HumAID that are there, by name."""
    return sorted(path.name.removesuffix("_train.tsv") for path in (data / "humaid").glob("*_train.tsv"))


def humaid_rows(data: Path, events: Iterable[str], part: str = "train") -> list[TextRow]:
    """The tweets of HumAID's "train", "dev" or "test" part of some events, under our classes."""
    return [
        TextRow(row_id=row["tweet_id"], text=row["tweet_text"], label=class_index(row["class_label"]))
        for event in events
        for row in _tsv(data / "humaid" / f"{event}_{part}.tsv")
    ]


def disagreed_rows(data: Path) -> list[TextRow]:
    """CrisisMMD's train tweets outside every agreed split, under their text label."""
    held = {row.row_id.split("_")[0] for split in ("train", "dev", "test") for row in text_rows(data, split)}
    held |= {row["tweet_id"] for row in _tsv(data / "crisismmd/pairs.tsv") if row["split_full"] != "train"}
    rows: dict[str, TextRow] = {}
    for path in sorted((data / "crisismmd/annotations").glob("*.tsv")):
        for row in _tsv(path):
            if row["tweet_id"] not in held and row["text_human"] in MERGED:
                rows[row["tweet_id"]] = TextRow(
                    row_id=row["tweet_id"], text=row["tweet_text"], label=class_index(row["text_human"])
                )
    return list(rows.values())


def task_texts(data: Path, task: str) -> dict[str, list[TextRow]]:
    """The official "train", "dev" and "test" rows of a further task of `TASKS`; `label` indexes its classes.

    The texts are the annotations', for one of the tables has none.
    """
    table, id_column, label_column = _TASK_TABLES[task]
    texts, classes = _annotated_texts(data), TASKS[task]
    return {
        split: [
            TextRow(row_id=row[id_column], text=texts[row[id_column]], label=classes.index(row[label_column]))
            for row in _tsv(data / table.format(split=split))
            if row[id_column] in texts and row[label_column] in classes
        ]
        for split in ("train", "dev", "test")
    }


def image_labels(data: Path, task: str) -> dict[str, int]:
    """The class of a further task that each image with pixels has, by `ImageRow.row_id`; unknown ones are left out.

    Pairs count as informative or not where text and image agree on it.
    """
    found: dict[str, str] = {}
    for row in _tsv(data / "crisismmd/pairs.tsv"):
        agreed = row["text_info"] if row["text_info"] == row["image_info"] else ""
        found[row["image_id"]] = agreed if task == "informative" else row["image_damage"]
    for row in _tsv(data / "aidr/images.tsv"):
        damage = _MEDIC_DAMAGE.get(row["medic_damage"], "")
        found[_textless_id(data / "aidr" / row["image"])] = row[f"medic_{task}"] if task == "informative" else damage
    return {row_id: TASKS[task].index(label) for row_id, label in found.items() if label in TASKS[task]}


def without(rows: Iterable[TextRow], held_out: Iterable[TextRow]) -> list[TextRow]:
    """Rows that share neither tweet nor normalised text with the held-out ones."""
    held = list(held_out)
    ids = {row.row_id.split("_")[0] for row in held}
    texts = {text_key(row.text) for row in held}
    return [row for row in rows if row.row_id.split("_")[0] not in ids and text_key(row.text) not in texts]


def unique_texts(rows: Iterable[TextRow]) -> list[TextRow]:
    """One row per normalised text, the first."""
    seen: dict[str, TextRow] = {}
    for row in rows:
        seen.setdefault(text_key(row.text), row)
    return list(seen.values())


def text_key(text: str) -> str:
    """What two copies of a post share: letters and digits without links and user names."""
    bare = re.sub(r"https?://\S+|@\w+|\brt\b", " ", text.lower())
    return " ".join(re.findall(r"\w+", bare))


def pair_rows(data: Path) -> list[ImageRow]:
    """CrisisMMD pairs with pixels; agreed rows keep their official split, the others are "extra"."""
    rows: list[ImageRow] = []
    for row in _tsv(data / "crisismmd/pairs.tsv"):
        agreed = row["split_agreed"]
        label = row["label5_agreed"] if agreed else row["image_human"]
        rows.append(
            ImageRow(
                row_id=row["image_id"],
                path=data / "crisismmd" / row["image"],
                text=row["tweet_text"],
                label=class_index(label) if label else -1,
                disaster=-1,
                split=agreed or "extra",
                group=row["group"],
                pixels=row["pixels"],
            )
        )
    return rows


def textless_rows(data: Path) -> list[ImageRow]:
    """Images without posts: AIDR (MEDIC labels) and CDD (disaster types, some with a clear class)."""
    rows: list[ImageRow] = []
    for row in _tsv(data / "aidr/images.tsv"):
        label, kind = row["medic_humanitarian"], row["disaster_type"].replace("not_disaster", "none")
        rows.append(_textless(data / "aidr" / row["image"], class_index(label) if label else -1, kind))
    for row in _tsv(data / "cdd/images.tsv"):
        label = _CDD_LABELS.get(row["label"], "")
        kind = _CDD_DISASTERS[row["label"]]
        rows.append(_textless(data / "cdd" / row["image"], class_index(label) if label else -1, kind))
    return rows


def digest(data: Path, names: Iterable[str]) -> str:
    """One digest over the named tables, so that a checkpoint says what it was trained on."""
    total = hashlib.sha256()
    for name in sorted(names):
        total.update(name.encode() + b"\0" + hashlib.sha256((data / name).read_bytes()).digest())
    return f"sha256:{total.hexdigest()}"


def _textless(path: Path, label: int, kind: str) -> ImageRow:
    return ImageRow(
        row_id=_textless_id(path),
        path=path,
        text="",
        label=label,
        disaster=DISASTERS.index(kind) if kind in DISASTERS else -1,
        split="extra",
        group=_textless_id(path),
        pixels="original",
    )


def _textless_id(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


def _annotated_texts(data: Path) -> dict[str, str]:
    """Every annotated pair's text by its image id."""
    paths = sorted((data / "crisismmd/annotations").glob("*.tsv"))
    return {row["image_id"]: row["tweet_text"] for path in paths for row in _tsv(path)}


def _tsv(path: Path) -> Iterator[dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        yield from csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
