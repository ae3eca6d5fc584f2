"""Reads CrisisMMD's archive as it is published, or a folder of the same tables; never writes and never mixes splits."""

from __future__ import annotations

import csv
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from model.data import datasets, rationales
from model.data.labels import MERGED
from model.data.rationales import RationaleRow
from model.errors import ModelError
from model.records import HUMANITARIAN, TASKS

log = logging.getLogger(__name__)

SPLITS = ("train", "dev", "test")
_FILES = {
    HUMANITARIAN: ("task_humanitarian_text_img_agreed_lab_{}.tsv", "task_humanitarian_text_img_{}.tsv"),
    "informative": ("task_informative_text_img_agreed_lab_{}.tsv", "task_informative_text_img_{}.tsv"),
    "damage": ("task_damage_text_img_{}.tsv", "task_damage_{}.tsv"),
}
_PROBED = 200  # rows looked at to find where the images are


class DataError(ModelError):
    """Training data that is not there or not as published; the message names the file and the fix."""


@dataclass(slots=True, kw_only=True)
class Post:
    """One pair of text and image with its labels; both may be missing. Filled in while the tables are read."""

    row_id: str
    text: str = ""
    image: Path | None = None
    labels: dict[str, int] = field(default_factory=dict)  # of each task that labels it
    splits: dict[str, str] = field(default_factory=dict)  # where each task's authors put it


_Row = TypeVar("_Row", Post, RationaleRow)


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """What may be trained on, and what is held out by any task; a held-out row is in no training row's tweet."""

    train: list[Post]
    held: list[Post]
    n_missing_images: int
    digest: str  # of the tables that were read

    def dev(self, task: str) -> list[Post]:
        return [post for post in self.held if post.splits.get(task) == "dev"]

    def test(self, task: str) -> list[Post]:
        """Rows that chose nothing: those that another task has in its dev split are left out."""
        return [post for post in self.held if post.splits.get(task) == "test" and "dev" not in post.splits.values()]


def load_archive(folder: Path, tasks: Sequence[str], *, drop_copies: bool) -> Archive:
    """All splits of all tasks; without copies no training row shares a tweet or text with a held-out one."""
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; give --data the folder that holds CrisisMMD's archive")
    posts: dict[str, Post] = {}
    paths: dict[str, str] = {}
    tables: list[Path] = []
    for task in tasks:
        for split in SPLITS:
            table = _split_file(folder, task, split)
            tables.append(table)
            for row in _rows(table, ("image_id", "image", "label")):
                name = _label(task, row)
                if name is None:
                    continue
                post = posts.setdefault(row["image_id"], Post(row_id=row["image_id"]))
                post.text = post.text or row.get("tweet_text", "")
                post.labels[task] = TASKS[task].index(name)
                post.splits[task] = split
                paths[post.row_id] = row["image"]
    tables += _fill_texts(folder, posts)
    n_missing = _find_images(folder, posts, paths, tables[0])
    train = [post for post in posts.values() if set(post.splits.values()) == {"train"}]
    held = [post for post in posts.values() if set(post.splits.values()) != {"train"}]
    if drop_copies:
        train = without_copies(train, held)
    for task in tasks:
        for split, rows in (("train", train), ("dev", held)):
            if not any(post.splits.get(task) == split for post in rows):
                raise DataError(f"no usable {split} row for the task {task} under {folder}; check its {split} file")
    names = [path.relative_to(folder).as_posix() for path in tables]
    return Archive(train=train, held=held, n_missing_images=n_missing, digest=datasets.digest(folder, names))


def load_rationales(files: Iterable[Path]) -> list[RationaleRow]:
    """Tweets with the words people marked; `informative_content` holds verbatim spans with [SEP] between them."""
    rows: list[RationaleRow] = []
    for path in files:
        try:
            table = rationales.rationale_table(path)
        except OSError as error:
            raise DataError(f"{path} cannot be read ({error.strerror}); give --rationales a table of tweets") from error
        found = rationales.marked_rows(table)
        if not found:
            raise DataError(f"{path} has no row with a known label and a span found in its text; check its columns")
        if len(found) < len(table.rows):
            log.warning(
                "%d of %d rows of %s are left out: not related, another label than ours, or no span found in the text",
                len(table.rows) - len(found),
                len(table.rows),
                path,
            )
        rows += found
    return rows


def without_copies(rows: Sequence[_Row], held: Sequence[Post]) -> list[_Row]:
    """The rows that share neither a tweet nor, normalised, a text with a held-out one."""
    tweets = {post.row_id.split("_")[0] for post in held}
    texts = {datasets.text_key(post.text) for post in held if post.text}
    return [row for row in rows if row.row_id.split("_")[0] not in tweets and datasets.text_key(row.text) not in texts]


def _split_file(folder: Path, task: str, split: str) -> Path:
    for pattern in _FILES[task]:
        name = pattern.format(split)
        for place in ("", "*/", "*/*/"):
            found = sorted(folder.glob(place + name))
            if found:
                return found[0]
    names = " or ".join(pattern.format(split) for pattern in _FILES[task])
    raise DataError(
        f"{folder} holds no {names}; unpack CrisisMMD's split files there, or leave {task} out of the tasks"
    )


def _rows(path: Path, required: Sequence[str]) -> Iterator[dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        names = [name.lower() for name in reader.fieldnames or []]
        lacking = [name for name in required if name not in names]
        if lacking:
            raise DataError(f"{path} lacks the column {lacking[0]!r}; it has {', '.join(names)}; unpack it again")
        reader.fieldnames = names
        for row in reader:
            yield {key: value or "" for key, value in row.items() if key is not None}


def _label(task: str, row: Mapping[str, str]) -> str | None:
    """The class that text and image agree on, merged to ours; None where they differ or it is not ours."""

    def merged(name: str) -> str:
        return MERGED.get(name, name) if task == HUMANITARIAN else name

    name = merged(row["label"])
    text, image = (merged(row.get(key, "") or row["label"]) for key in ("label_text", "label_image"))
    if task != "damage" and text != image:
        return None
    return name if name in TASKS[task] else None


def _fill_texts(folder: Path, posts: Mapping[str, Post]) -> list[Path]:
    """Damage tables have no text; the annotations do. Returns the tables that were read for it."""
    if all(post.text for post in posts.values()):
        return []
    tables = [table for place in ("annotations", "*/annotations") for table in sorted(folder.glob(f"{place}/*.tsv"))]
    for table in tables:
        for row in _rows(table, ("image_id", "tweet_text")):
            post = posts.get(row["image_id"])
            if post is not None and not post.text:
                post.text = row["tweet_text"]
    return tables


def _find_images(folder: Path, posts: Mapping[str, Post], paths: Mapping[str, str], table: Path) -> int:
    """Gives each post its image where the file is there; returns how many are missing, unless all are."""
    roots = [folder, table.parent, table.parent.parent, *sorted(path for path in folder.iterdir() if path.is_dir())]
    probed = list(paths.values())[:_PROBED]
    root = next((root for root in roots if any((root / path).is_file() for path in probed)), None)
    known = _listed_images(folder) if root is None else {row_id: root / path for row_id, path in paths.items()}
    for post in posts.values():
        path = known.get(post.row_id)
        if path is not None and path.is_file():
            post.image = path
    n_missing = sum(post.image is None for post in posts.values())
    if posts and n_missing == len(posts):
        first = next(iter(paths.values()))
        raise DataError(f"no image is under {folder}, {first} for one; unpack CrisisMMD's data_image folder there")
    if n_missing:
        log.warning("%d of %d images are missing: these posts are read as text only", n_missing, len(posts))
    return n_missing


def _listed_images(folder: Path) -> dict[str, Path]:
    """A table of the images that could be had, `pairs.tsv`, in place of the archive's own layout."""
    tables = sorted(path for place in ("", "*/") for path in folder.glob(f"{place}pairs.tsv"))
    return {
        row["image_id"]: table.parent / row["image"] for table in tables for row in _rows(table, ("image_id", "image"))
    }
