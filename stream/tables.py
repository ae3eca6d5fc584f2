"""Tab-separated files with a header line become rows; knows the dialects in use, and nothing of posts."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from io import StringIO
from pathlib import Path

from stream.errors import StreamError

_Numbered = list[tuple[int, list[str]]]


class FeedError(StreamError):
    """A file that cannot be read as a feed; the message names file, line and fix."""


def read_table(file: Path, *, ids: Sequence[str], contents: Sequence[str]) -> list[dict[str, str]]:
    """Return the rows by lower-case column name; one of `ids` and one of `contents` must be there.

    Quotes are the text's own, as in CrisisMMD's splits, unless the whole file is quoted as CSV.

    Raises:
        FeedError: the file is not UTF-8, lacks a column, or has a row that does not match its header.
    """
    data = file.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise FeedError(f"{file}, line {line}: {error.reason}, so it is not UTF-8: convert the file") from error
    header, *lines = _lines(text) or [(1, [])]
    names = [name.strip().lower() for name in header[1]]
    for wanted in (ids, contents):
        if not set(wanted) & set(names):
            raise FeedError(f"{file}, line 1: no column {' or '.join(wanted)} among {names}: name one in line 1")
    rows = []
    for number, cells in lines:
        if len(cells) != len(names):
            raise FeedError(
                f"{file}, line {number}: {len(cells)} columns where the header has {len(names)}: remove tabs and "
                "line breaks inside the text"
            )
        row = dict(zip(names, cells, strict=True))
        empty = [name for name in ids if name in row and not row[name].strip()]
        if empty:
            raise FeedError(f"{file}, line {number}: column {empty[0]} is empty: every row needs an id")
        rows.append(row)
    return rows


def _lines(text: str) -> _Numbered:
    """Return the cells of each line, numbered; a quoted line break counts only where the file needs it."""
    literal = [(n, line.removesuffix("\r").split("\t")) for n, line in enumerate(text.split("\n"), 1) if line.strip()]
    reader = csv.reader(StringIO(text, newline=""), delimiter="\t", strict=True)
    try:
        quoted = [(reader.line_num, cells) for cells in reader if cells]
    except csv.Error:  # a quote inside a text that begins with one
        return literal
    if len(quoted) == len(literal) or (_is_even(quoted) and not _is_even(literal)):
        return quoted
    return literal


def _is_even(lines: _Numbered) -> bool:
    return len({len(cells) for _, cells in lines}) <= 1
