"""Tweets whose rationales people marked: their tables, and the marks as spans and as words; scores nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from model.data.labels import MERGED, class_index, normal
from model.data.table_file import InvalidTable, Table, read_table
from model.text import Word

_COLUMNS = ("tweet_id", "tweet_text", "corrected_label", "informative_content")


@dataclass(frozen=True, slots=True, kw_only=True)
class RationaleRow:
    """A tweet with the character spans that people marked."""

    row_id: str
    text: str
    label: int
    spans: tuple[tuple[int, int], ...]


def rationale_rows(data: Path, event: str) -> list[RationaleRow]:
    """Tweets of "nepal_earthquake_2015" or "typhoon_hagupit_2014" whose marked spans can be found verbatim.

    `not_related` tweets are left out: people marked nearly all of them.
    """
    return marked_rows(rationale_table(data / "rationales" / f"{event}.csv"))


def rationale_table(path: Path) -> Table:
    """The table in a file, with the columns of rationales; raises `InvalidTable`, `OSError` when there is no file."""
    table = read_table(path)
    lacking = [name for name in _COLUMNS if name not in table.columns]
    if lacking:
        raise InvalidTable(f"{path} lacks the column {lacking[0]!r}: a table of rationales has {', '.join(_COLUMNS)}")
    return table


def marked_rows(table: Table) -> list[RationaleRow]:
    """The rows of such a table with one of our classes and a span found in the text; no `not_related` ones."""
    rows: list[RationaleRow] = []
    for row in table.rows:
        name = normal(row["corrected_label"])
        spans = find_spans(row["tweet_text"], row["informative_content"])
        if name in MERGED and not name.startswith("not_related") and spans:
            rows.append(
                RationaleRow(
                    row_id=row["tweet_id"].strip("'"),
                    text=row["tweet_text"],
                    label=class_index(name),
                    spans=spans,
                )
            )
    return rows


def marked_words(row: RationaleRow, words: Sequence[Word]) -> list[bool]:
    """Words of which more than half was marked by a person."""
    marked: list[bool] = []
    for word in words:
        overlap = sum(max(0, min(word.end, end) - max(word.start, start)) for start, end in row.spans)
        marked.append(word.selectable and 2 * overlap > word.end - word.start)
    return marked


def find_spans(text: str, marked: str) -> tuple[tuple[int, int], ...]:
    """Where `[SEP]`-separated passages stand in a text; those that are not there verbatim are left out."""
    spans: list[tuple[int, int]] = []
    cursor = 0
    for part in marked.split("[SEP]"):
        part = part.strip()
        start = text.find(part, cursor)
        start = text.find(part) if start < 0 else start
        if part and start >= 0:
            spans.append((start, start + len(part)))
            cursor = start + len(part)
    return tuple(spans)
