"""The rows each part may train on: nothing that shares a post, a text or a picture group with a test row."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from model.data import datasets, rationales
from model.data.datasets import ImageRow, TextRow
from model.data.rationales import RationaleRow

_TABLES = (
    "aidr/images.tsv",
    "cdd/images.tsv",
    "crisismmd/pairs.tsv",
    "crisismmd/labels/*_train.tsv",
    "crisismmd/labels/*_dev.tsv",
    "crisismmd/annotations/*.tsv",
    "humaid/*_train.tsv",
    "rationales/nepal_earthquake_2015.csv",
)


def tables(folder: Path) -> list[str]:
    """The names of all tables that training reads."""
    return sorted(str(path.relative_to(folder)) for pattern in _TABLES for path in folder.glob(pattern))


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    train: list[TextRow]  # official train, unique texts
    disagreed: list[TextRow]  # CrisisMMD train tweets whose image has another label
    humaid: list[TextRow]
    dev: list[TextRow]
    test: list[TextRow]
    nepal: list[RationaleRow]
    images: list[ImageRow]
    free: list[bool]  # per image: neither a test row nor in a test row's group
    tied: frozenset[str]  # tweets that share a picture group with a test row

    def clear_of_test(self, rows: Iterable[TextRow]) -> list[TextRow]:
        """The rows that share neither tweet, nor text, nor picture group with a test row."""
        return _untied(datasets.without(rows, self.test), self.tied)


def load_corpus(folder: Path, held_out_events: Collection[str] = ()) -> Corpus:
    """Everything there is, without the HumAID tweets of the held-out events."""
    train, dev, test = (datasets.text_rows(folder, split) for split in ("train", "dev", "test"))
    events = [event for event in datasets.humaid_events(folder) if event not in held_out_events]
    images = [*datasets.pair_rows(folder), *datasets.textless_rows(folder)]
    test_groups = {row.group for row in images if row.split == "test"}
    tied = frozenset(row.row_id.split("_")[0] for row in images if row.group in test_groups)

    def clean(rows: Sequence[TextRow], held_out: Sequence[TextRow]) -> list[TextRow]:
        return _untied(datasets.unique_texts(datasets.without(rows, held_out)), tied)

    return Corpus(
        train=clean(train, test),
        disagreed=clean(datasets.disagreed_rows(folder), [*test, *dev]),
        humaid=clean(datasets.humaid_rows(folder, events), [*test, *dev]),
        dev=dev,
        test=test,
        nepal=rationales.rationale_rows(folder, "nepal_earthquake_2015"),
        images=images,
        free=[row.split != "test" and row.group not in test_groups for row in images],
        tied=tied,
    )


def _untied(rows: Sequence[TextRow], tied: Collection[str]) -> list[TextRow]:
    return [row for row in rows if row.row_id.split("_")[0] not in tied]


def sample(rows: Sequence[TextRow], n_rows: int, seed: int) -> list[TextRow]:
    """At most n_rows rows, the same for the same seed."""
    return random.Random(seed).sample(list(rows), min(n_rows, len(rows)))
