"""Reads a table that anyone may have written: separator, quotes, encoding and line ends are found out, rows kept."""

from __future__ import annotations

import codecs
import csv
import io
import sys
from dataclasses import dataclass
from pathlib import Path

from model.errors import ModelError

_MISSING = frozenset({"", "nan", "na", "n/a", "null", "none", "<na>", "nat"})
_NUL = "\0"  # csv refuses it
_QUOTE = '"'
_MAX_ROW_LINES = 50


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
    text = text.lstrip("\n")
    if not text.strip():
        raise InvalidTable(f"{path} is empty: give a table with a header line and a row for each post")
    header = text[: text.find("\n")] if "\n" in text else text
    csv.field_size_limit(sys.maxsize)
    lines = _tab_rows(text) if "\t" in header or "," not in header else _comma_rows(text, notes)
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


def _comma_rows(text: str, notes: list[str]) -> list[list[str]]:
    """Rows as CSV has them; line by line where a quote is never closed, which would swallow all that follows."""
    try:
        return list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except csv.Error as error:
        if "unexpected end" not in str(error):
            return list(csv.reader(io.StringIO(text, newline="")))
        notes.append("a quote is never closed; each line was read as a row of its own")
        return [row for line in text.split("\n") for row in csv.reader([line])]


def _tab_rows(text: str) -> list[list[str]]:
    """Rows of tab-separated tweets, some quoted as CSV has it, some with quotes as plain characters.

    A lone quote at the start of a tweet must not swallow the rows after it, and a quoted tweet may hold tabs and
    line ends: each line is a row as soon as its cells are as many as the header's.
    """
    lines = text.split("\n")
    n = len(lines[0].split("\t"))
    rows: list[list[str]] = []
    at = 0
    while at < len(lines):
        row, n_lines = _tab_row(lines, at, n)
        rows.append(row)
        at += n_lines
    return rows


def _tab_row(lines: list[str], at: int, n: int) -> tuple[list[str], int]:
    """The row that begins at a line, and how many lines it takes."""
    plain = lines[at].split("\t")
    if _QUOTE not in lines[at]:
        return plain, 1
    for end in range(at + 1, min(at + _MAX_ROW_LINES, len(lines)) + 1):
        if end > at + 1 and len(lines[end - 1].split("\t")) == n > 1:
            break  # that line is a row of its own
        quoted = _quoted("\n".join(lines[at:end]))
        if quoted is not None and len(quoted) == n:
            return quoted, end - at
    return plain, 1


def _quoted(line: str) -> list[str] | None:
    """The cells of one row whose quotes all close where a cell ends; None when they do not."""
    try:
        rows = list(csv.reader(io.StringIO(line, newline=""), delimiter="\t", strict=True))
    except csv.Error:
        return None
    return rows[0] if len(rows) == 1 else None


def _cell(value: str) -> str:
    return "" if value.strip().lower() in _MISSING else value
