"""Findings in the terminal: evidence marked in place, and no post can steer the terminal."""

from __future__ import annotations

import io

import msgspec
from rich.console import Console

from deploy.board import Board
from deploy.live import LiveView, PlainView, view_for
from deploy.render import alert_line, finding_line, highlighted, marked, safe
from stream.records import Span
from stream.topics import topics
from tests.deploy.findings import Record, finding_record, make_finding
from workers.findings import make_alert

TOPICS = topics(prefix="t.", n_partitions=1, max_record_bytes=1_000)


def test_control_characters_are_replaced_one_by_one() -> None:
    """Escapes, bells, and direction overrides; joiners that scripts and emoji need stay."""
    text = "a\x1b[31mb\x07c\u202ed\ne 👨\u200d👩"

    shown = safe(text)

    assert len(shown) == len(text)
    assert not set("\x1b\x07\u202e\n") & set(shown)
    assert "👨\u200d👩" in shown


def test_rationale_words_are_marked_in_place() -> None:
    """Also after characters that were replaced."""
    spans = [Span(start=2, end=5, score=0.5), Span(start=6, end=9, score=0.5)]

    assert marked("\x1b two six", spans) == "\ufffd [two] [six]"
    assert [(one.start, one.end) for one in highlighted("\x1b two six", spans).spans] == [(2, 5), (6, 9)]


def test_markup_in_a_post_is_text() -> None:
    """Rich's own markup must not be read in what strangers write."""
    console = Console(file=io.StringIO(), force_terminal=False, width=80)
    console.print(highlighted("[bold red]fire[/]", []))

    assert "[bold red]fire[/]" in console.file.getvalue()  # type: ignore[attr-defined]


def test_finding_and_alert_are_one_line_each() -> None:
    """For logs: newlines of the post do not break the line."""
    finding = make_finding("bridge\ndown", picture=True)
    alert = make_alert(finding, threshold=0.1)
    assert alert is not None

    assert "\n" not in finding_line(finding)
    assert "1 of 8 picture patches" in finding_line(finding)
    assert alert_line(alert).startswith("ALERT  infrastructure damage  0.75")
    marked_alert = alert_line(msgspec.structs.replace(alert, degraded=["language_untested"]))
    assert marked_alert == f"{alert_line(alert)}  (degraded: language_untested)"


def test_same_outcome_counts_once_on_the_board() -> None:
    """At-least-once delivery: a repeated finding is shown once."""
    board = Board(topics=TOPICS)
    record = finding_record(make_finding())

    assert board.take(record) is not None
    assert board.take(record) is None
    board.take(Record(topic="t.duplicates", value=b"{}", offset=1))

    assert (board.n_findings, board.n_duplicates, board.n_outcomes) == (1, 1, 2)
    assert board.latency_s(0.5) == 0.5


def test_live_view_draws_at_any_size() -> None:
    """Wide and narrow terminals, an empty board and a full one."""
    board = Board(topics=TOPICS, n_to_send=40)
    for width, height in ((150, 40), (70, 20), (30, 8)):
        console = Console(file=io.StringIO(), force_terminal=True, width=width, height=height)
        with LiveView(board, console) as view:
            view.say("working")
            for number in range(40):
                outcome = board.take(finding_record(make_finding("word " * 50, post_id=f"{width}-{number}")))
                assert outcome is not None
                view.show(outcome)
        assert "sitrep demo" in console.file.getvalue()  # type: ignore[attr-defined]


def test_plain_view_where_there_is_no_terminal() -> None:
    """Pipes and CI logs get lines."""
    assert isinstance(view_for(Board(topics=TOPICS)), PlainView)


def test_alert_can_be_read() -> None:
    """The headline of an alert is not drawn in the colour of its background."""
    board = Board(topics=TOPICS)
    alert = make_alert(make_finding("Bridge on Route 9 collapsed"), threshold=0.1)
    assert alert is not None
    board.alerts.append(alert)
    console = Console(file=io.StringIO(), width=120, height=30, force_terminal=True, color_system="standard")
    in_alerts = [
        segment
        for segment in console.render(LiveView(board, console))
        if "Bridge on Route 9" in segment.text and segment.style is not None and segment.style.color is not None
    ]
    assert in_alerts
    assert all(one.style is not None and one.style.color != one.style.bgcolor for one in in_alerts)
