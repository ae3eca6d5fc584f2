"""Reads a table that anyone may have written: separator, quotes, encoding and line ends are found out, rows kept."""

from __future__ import annotations

import codecs
import csv
import io
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from model.errors import ModelError

_MISSING = frozenset({"", "nan", "na", "n/a", "null", "none", "<na>", "nat"})
_NUL = "\0"  # csv refuses it
_QUOTE = '"'
_UNCLOSED = "unexpected end"  # as csv says it
_MAX_ROW_LINES = 1000
_TOKEN = re.compile(r"\w+")


class InvalidTable(ModelError):
    """A file that cannot be read as a table of posts; the message names the file and the fix."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows under lower-case column names, in the file's order; cells that say "missing" in any spelling are empty."""

    path: Path
    columns: tuple[str, ...]
    rows: list[dict[str, str]]
    notes: tuple[str, ...]  # what had to be guessed or mended, for the report


def read_table(path: Path) -> Table:
    """The table in a TSV or CSV file; raises `InvalidTable` when there is none, `OSError` when there is no file."""
    text, notes = _decode(path)
    if not text.strip():
        raise InvalidTable(f"{path} is empty: give a table with a header line and a row for each post")
    csv.field_size_limit(sys.maxsize)
    lines = _rows(text.split("\n"), notes)
    lines = [line for line in lines if any(cell.strip() for cell in line)]
    columns = tuple(name.strip().strip('"').lower() for name in lines[0])
    twice = sorted({name for name in columns if name and columns.count(name) > 1})
    if twice:
        raise InvalidTable(f"{path} has the column {twice[0]!r} twice: rename one")
    if len(lines) < 2:
        raise InvalidTable(f"{path} has a header and no row: give a row for each post")
    ragged = sum(len(line) != len(columns) for line in lines[1:])
    if ragged:
        notes.append(f"{ragged} rows have more or fewer cells than the header; missing cells were read as empty")
    rows = [{name: _cell(value) for name, value in zip(columns, line, strict=False)} for line in lines[1:]]
    return Table(
        path=path, columns=columns, rows=[dict.fromkeys(columns, "") | row for row in rows], notes=tuple(notes)
    )


def _decode(path: Path) -> tuple[str, list[str]]:
    data = path.read_bytes()
    encoding = "utf-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    try:
        return _normal(data.decode(encoding)), []
    except UnicodeDecodeError:
        try:
            return _normal(data.decode("cp1252")), ["not UTF-8: read as Windows-1252"]
        except UnicodeDecodeError:
            return _normal(data.decode("latin-1")), ["not UTF-8: read as Latin-1"]


def _normal(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n").replace(_NUL, "")


def _rows(lines: list[str], notes: list[str]) -> list[list[str]]:
    """Rows of cells, some quoted as CSV has it, some with quotes as plain characters.

    A lone quote at the start of a text must not swallow the rows after it, and a quoted text may hold separators and
    line ends: it goes on in the lines that follow unless one of them is a row of its own.
    """
    at = next(k for k, line in enumerate(lines) if line)
    separator = "\t" if "\t" in lines[at] or "," not in lines[at] else ","
    n = len(lines[at].split(separator))
    rows: list[list[str]] = []
    lone: list[int] = []
    while at < len(lines):
        row, n_lines = _quoted_row(lines, at, n, separator)
        if row is None:
            row = _plain_row(lines[at], n, separator)
            lone.append(at + 1)
        if not rows:
            n = len(row)
        rows.append(row)
        at += n_lines
    if lone and separator == ",":
        notes.append(
            f"{len(lone)} lines have a quote that is never closed where its cell ends, line {lone[0]} is the first;"
            " each was read as a row of its own"
        )
    return rows


def _quoted_row(lines: list[str], at: int, n: int, separator: str) -> tuple[list[str] | None, int]:
    """The row that begins at a line, None where its quotes do not close, and how many lines it takes."""
    if _QUOTE not in lines[at]:
        return lines[at].split(separator), 1
    for end in range(at + 1, min(at + _MAX_ROW_LINES, len(lines)) + 1):
        last = lines[end - 1]
        if end > at + 1 and _is_row(last, lines[at], n, separator):
            break
        if _QUOTE not in last:
            continue
        try:
            (row,) = csv.reader(io.StringIO("\n".join(lines[at:end]), newline=""), delimiter=separator, strict=True)
            return row, end - at
        except csv.Error as error:
            if _UNCLOSED not in str(error):
                break
    return None, 1


def _is_row(line: str, first: str, n: int, separator: str) -> bool:
    """Whether a line is a row of its own rather than more of a text that begins in the `first` line.

    It has as many cells. Between commas, which texts hold too, it also begins as the first line does (ends so where
    the text comes first), say with a number, and has no space after a comma.
    """
    cells, own = line.split(separator), first.split(separator)
    where = -1 if first.startswith(_QUOTE) else 0
    if len(cells) != n or n == 1 or (where and len(own) != n):
        return False
    spaced = any(cell.startswith(" ") for cell in cells[1:])
    return separator == "\t" or (not spaced and _shape(cells[where]) == _shape(own[where]))


def _shape(cell: str) -> str:
    return _TOKEN.sub(lambda token: "0" if any(map(str.isdigit, token.group())) else "a", cell)


def _plain_row(line: str, n: int, separator: str) -> list[str]:
    """A line's cells with their quotes; without where only that gives as many as there should be."""
    plain = line.split(separator)
    loose = plain if separator == "\t" else next(csv.reader([line]))
    return loose if len(loose) == n != len(plain) else plain


def _cell(value: str) -> str:
    return "" if value.strip().lower() in _MISSING else value
