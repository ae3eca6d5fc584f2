"""Tables as people write them: every row comes out, under its column, whatever the quotes and line ends."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.data.table_file import InvalidTable, Table, read_table


def read(tmp_path: Path, content: str | bytes, name: str = "posts.tsv") -> Table:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_table(path)


def texts(table: Table) -> list[str]:
    return [row["tweet_text"] for row in table.rows]


def test_windows_file_with_bom_and_capitals(tmp_path: Path) -> None:
    """What a spreadsheet saves."""
    table = read(tmp_path, "\ufeffImage_ID\tTweet_Text\r\n1\tflood\r\n2\tfire\r\n")

    assert table.columns == ("image_id", "tweet_text")
    assert texts(table) == ["flood", "fire"]
    assert table.notes == ()


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig", "utf-8"])
def test_unicode_encodings(encoding: str, tmp_path: Path) -> None:
    """Found out from the bytes; nothing to say about it."""
    table = read(tmp_path, "id\ttweet_text\n1\t洪水 😀 é\n".encode(encoding))

    assert texts(table) == ["洪水 😀 é"]
    assert table.notes == ()


def test_other_encoding_is_read_and_told(tmp_path: Path) -> None:
    """An old Windows file is guessed, and the report says so."""
    table = read(tmp_path, "id\ttweet_text\n1\tcafé “flooded”\n".encode("cp1252"))

    assert texts(table) == ["café “flooded”"]
    assert table.notes == ("not UTF-8: read as Windows-1252",)


def test_quoted_cell_may_hold_tabs_quotes_and_line_ends(tmp_path: Path) -> None:
    """As CSV has it, also between tabs."""
    table = read(tmp_path, 'id\ttweet_text\timage\n1\t"a\tb ""c""\nd"\tx.jpg\n2\tplain\ty.jpg\n')

    assert texts(table) == ['a\tb "c"\nd', "plain"]
    assert [row["image"] for row in table.rows] == ["x.jpg", "y.jpg"]


def test_lone_quote_swallows_no_row(tmp_path: Path) -> None:
    """Tweets begin with a quote and never close it; rows after it stay rows."""
    rows = ['1\t"Pray for the city\tx.jpg', '2\tfire "downtown\ty.jpg', '3\t"Flood" is over\tz.jpg', '4\tend"\tw.jpg']
    table = read(tmp_path, "id\ttweet_text\timage\n" + "\n".join(rows))

    assert texts(table) == ['"Pray for the city', 'fire "downtown', '"Flood" is over', 'end"']
    assert [row["image"] for row in table.rows] == ["x.jpg", "y.jpg", "z.jpg", "w.jpg"]


def test_lone_quote_beside_quoted_cell(tmp_path: Path) -> None:
    """Both kinds in one file."""
    content = 'id\ttweet_text\timage\n1\t"alone\tx.jpg\n2\t"a\ttab"\ty.jpg\n3\t"over\nlines"\tz.jpg\n'

    assert texts(read(tmp_path, content)) == ['"alone', "a\ttab", "over\nlines"]


@pytest.mark.parametrize(
    "cells",
    [
        ['"Help us now', "fire", "flood"],
        ['"Help us now', "fire", '"More help'],
        ['"Help us now', "fire", 'more help"'],
        ['"Help us now', '"More help', "fire", 'more help"', '"More', "flood"],
        ['"Help" is here', "fire", 'it said "help"', "flood"],
        ['"Help us now', "fire", '"water, food"', 'more help"', "flood"],
    ],
)
@pytest.mark.parametrize("layout", ["{n},{text},{label}", "{n},{text}", "{text},{label}"])
def test_stray_quotes_swallow_no_row_of_a_csv(cells: list[str], layout: str, tmp_path: Path) -> None:
    """However many there are: two that pair up would make one row of all between them."""
    header = layout.format(n="id", text="tweet_text", label="label")
    rows = [layout.format(n=k, text=cell, label="ab"[k % 2]) for k, cell in enumerate(cells)]
    table = read(tmp_path, "\n".join([header, *rows, ""]), "posts.csv")

    assert texts(table) == [cell if cell != '"water, food"' else "water, food" for cell in cells]
    assert [row.get("label", "ab"[k % 2]) for k, row in enumerate(table.rows)] == [
        "ab"[k % 2] for k in range(len(cells))
    ]
    (note,) = table.notes
    assert "never closed" in note and "line 2 is the first" in note


@pytest.mark.parametrize(
    "text", ["Flood\nin Houston", "Flood\n\nStay safe, all", 'he said:\n"flood, fire"\n', "Flood\na,b\nc,d", '"\n"']
)
@pytest.mark.parametrize("columns", [("id", "tweet_text"), ("id", "tweet_text", "label"), ("tweet_text", "label")])
@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
def test_quoted_text_of_a_csv_may_go_over_lines(
    text: str, columns: tuple[str, ...], quoting: int, tmp_path: Path
) -> None:
    """As every program writes it, also where a line of it has as many commas as a row."""
    values = {"id": "912_0", "tweet_text": text, "label": "not_humanitarian"}
    written = io.StringIO()
    csv.writer(written, quoting=quoting).writerows([columns, *[[values[name] for name in columns]] * 3])  # type: ignore[arg-type]
    table = read(tmp_path, written.getvalue(), "posts.csv")

    assert texts(table) == [text] * 3
    assert table.notes == ()


@given(rows=st.lists(st.tuples(st.text('ab, "\n', min_size=1), st.sampled_from(["x", "y"])), min_size=1, max_size=6))
def test_csv_of_numbered_texts_reads_back(
    rows: list[tuple[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever commas, quotes and line ends the texts hold: none of their lines begins with a number."""
    written = io.StringIO()
    csv.writer(written).writerows([("id", "tweet_text", "label"), *((k, *row) for k, row in enumerate(rows))])
    table = read(tmp_path_factory.mktemp("csv"), written.getvalue())

    assert texts(table) == [text if text.strip() else "" for text, _ in rows]


def test_quoted_text_between_tabs_may_stand_first(tmp_path: Path) -> None:
    """Its last line has as many cells as a row."""
    assert texts(read(tmp_path, 'tweet_text\tlabel\n"over\nlines"\tx\n')) == ["over\nlines"]


def test_commas_are_found_out(tmp_path: Path) -> None:
    """A rationale table, quoted as CSV, whatever its name."""
    table = read(tmp_path, 'tweet_id,tweet_text,label\n1,"a, ""b""\nc",x\n2,d,y\n', "rationales.csv")

    assert texts(table) == ['a, "b"\nc', "d"]


@pytest.mark.parametrize("cell", ["", "nan", "NaN", "NULL", "None", "N/A", " "])
def test_cell_that_says_missing_is_empty(cell: str, tmp_path: Path) -> None:
    """As data frames write it."""
    assert texts(read(tmp_path, f"id\ttweet_text\tlabel\n1\t{cell}\tx\n")) == [""]


def test_short_and_long_rows_are_kept_and_told(tmp_path: Path) -> None:
    """Nothing is dropped silently."""
    table = read(tmp_path, "id\ttweet_text\tlabel\n1\tshort\n2\tlong\tx\ty\n3\tok\tx\n")

    assert [(row["tweet_text"], row["label"]) for row in table.rows] == [("short", ""), ("long", "x"), ("ok", "x")]
    assert table.notes == ("2 rows have more or fewer cells than the header; missing cells were read as empty",)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "is empty"),
        ("\n \n", "is empty"),
        ("image_id\ttweet_text\n", "no row"),
        ("text\tText\na\tb\n", "'text' twice"),
    ],
)
def test_file_without_a_table_is_refused(content: str, told: str, tmp_path: Path) -> None:
    """One line that names the file."""
    with pytest.raises(InvalidTable, match=told):
        read(tmp_path, content)


def test_text_keeps_its_own_spaces(tmp_path: Path) -> None:
    """Rationale positions count the original's characters."""
    assert texts(read(tmp_path, "id\ttweet_text\n1\t  flood  here \n")) == ["  flood  here "]
