"""The demo's page: complete, self-contained, and safe whatever the posts say."""

from __future__ import annotations

import re
import urllib.request
from pathlib import Path

import pytest
from PIL import Image

from deploy.board import Board
from deploy.page_server import serve
from deploy.report import Page, render_page, segments
from stream.errors import InvalidRecord
from stream.headers import Cause, dead_letter_headers
from stream.topics import topics
from tests.deploy.findings import Record, alert_record, finding_record, make_finding

TOPICS = topics(prefix="t.", n_partitions=1, max_record_bytes=1_000)
HOSTILE = "<script>alert(1)</script> \"'><img src=x onerror=alert(2)>"


@pytest.fixture
def board() -> Board:
    return Board(topics=TOPICS)


def page_of(board: Board, **more: object) -> str:
    return render_page(Page(board=board, pictures=more.get("pictures", {}), ledger="ledger: accepted=1"))  # type: ignore[arg-type]


def test_hostile_post_stays_text(board: Board) -> None:
    """Text, id, language, link and dead letters come from strangers."""
    finding = make_finding(HOSTILE, post_id=HOSTILE, spans=((0, 8),), url="javascript:alert(3)")
    board.take(finding_record(finding))
    broken = Record(topic="t.posts", value=HOSTILE.encode())
    headers = dead_letter_headers(
        broken, Cause(reason="undecodable", stage="prepare", error=InvalidRecord("x", HOSTILE))
    )
    board.take(Record(topic="t.dead-letters", value=broken.value, headers=headers))

    html = page_of(board)

    assert "<script" not in html
    assert "onerror=alert" not in re.sub(r"&[a-z0-9#]+;[^<]*", "", html)
    assert "javascript:" not in html
    assert "&lt;script&gt;" in html


def test_text_is_shown_in_its_order(board: Board) -> None:
    """No control that reorders or hides text reaches the page; line breaks and marks of direction stay."""
    finding = make_finding("bridge\u202egnp.exe\x1b\nشارع\u200f down", post_id="p\u202ex", spans=((0, 6),))
    board.take(finding_record(finding))

    html = page_of(board)

    assert not re.search("[\u202a-\u202e\u2066-\u2069\x00-\x08\x1b]", html)
    assert "gnp.exe\ufffd\nشارع\u200f down" in html


def test_page_says_what_it_leaves_out(board: Board) -> None:
    """It holds the newest; its counts are of all that came back, whoever sent it."""
    for number in range(450):
        finding = make_finding(post_id=f"p{number}")
        board.take(finding_record(finding))

    html = page_of(board)

    assert html.count("<article") == 200
    assert "not on this page: 250" in html
    assert "<b>450</b><span>posts</span>" in html


def test_page_loads_nothing_from_outside(board: Board) -> None:
    """Pictures are inside the page; no style, script, font or picture has an address."""
    finding = make_finding(picture=True, url="https://example.org/p")
    board.take(finding_record(finding))

    html = page_of(board, pictures={finding.id: Image.new("RGB", (400, 200))})

    assert "data:image/jpeg;base64," in html
    assert not re.search(r"""(src|srcset|@import|url\()=?["']?https?:""", html)
    assert "default-src 'none'" in html


def test_alerts_stand_above_other_findings(board: Board) -> None:
    """A finding behind an alert is shown once, among the alerts."""
    alarming, quiet = (
        make_finding("bridge down", post_id="a"),
        make_finding("nice day", post_id="b", label="not_humanitarian"),
    )
    for record in (finding_record(alarming), finding_record(quiet), alert_record(alarming)):
        board.take(record)

    html = page_of(board)

    assert html.index('data-label="infrastructure_and_utility_damage"') < html.index(">Findings<")
    assert html.count("<article") == 2


@pytest.mark.parametrize("alert_first", [False, True])
def test_alerts_stay_on_the_page(board: Board, alert_first: bool) -> None:
    """Whatever number of other findings came since, and whichever of the topics was read first."""
    alarming = make_finding("bridge down", post_id="alarming")
    records = [finding_record(alarming), alert_record(alarming)]
    for record in reversed(records) if alert_first else records:
        board.take(record)
    for number in range(450):
        board.take(finding_record(make_finding(post_id=f"p{number}", label="not_humanitarian")))

    alerts, _, others = page_of(board).partition(">Findings<")

    assert "1 alert:" in alerts
    assert alerts.count("<article") == 1
    assert "alarming" in alerts
    assert "alarming" not in others
    assert "none so far" not in alerts
    assert "on this page" not in alerts


def test_page_says_which_alerts_it_leaves_out(board: Board) -> None:
    """It holds the newest of them too."""
    for number in range(450):
        finding = make_finding(post_id=f"p{number}")
        board.take(finding_record(finding))
        board.take(alert_record(finding))

    alerts, _, others = page_of(board).partition(">Findings<")

    assert (alerts.count("<article"), others.count("<article")) == (200, 0)
    assert "not on this page: 250" in alerts
    assert "p449" in alerts
    assert "none so far" not in alerts


def test_picture_that_is_not_here_is_said(board: Board) -> None:
    """Of posts that others fed, the page has the evidence but no picture to draw it on."""
    board.take(finding_record(make_finding("", spans=(), picture=True)))

    html = page_of(board)

    assert "<figure" not in html
    assert "1 of 8 picture patches, picture not here" in html


def test_chosen_class_outlives_a_refresh(board: Board, tmp_path: Path) -> None:
    """It is in the address, and the page is served with it chosen; without a refresh there is no server to ask."""
    html = render_page(Page(board=board, pictures={}, ledger="", refresh_s=6))
    (tmp_path / "index.html").write_text(html, "utf-8")
    choices = re.findall(r'<a href="([?]class=\d)">', html)

    with serve(tmp_path) as url:
        served = [urllib.request.urlopen(url + choice).read().decode() for choice in ("", *choices)]

    checked = [re.findall(r'id="class-(\d)" checked', page)[-1] for page in served]
    assert checked == ["0", "1", "2", "3", "4", "5"]
    assert [page.replace(f'id="class-{n}" checked', f'id="class-{n}"') for n, page in enumerate(served) if n] == [
        html
    ] * 5
    assert "?class=" not in page_of(board)


def test_empty_board_gives_a_page(board: Board) -> None:
    """A demo that ended early still shows what it has."""
    assert "none so far" in page_of(board)


@pytest.mark.parametrize(
    ("text", "spans", "pieces"),
    [
        ("abc", (), ["abc"]),
        ("abc", ((0, 3),), ["[abc]"]),
        ("a bc d", ((2, 4),), ["a ", "[bc]", " d"]),
        ("🌉 ab", ((0, 1), (2, 4)), ["[🌉]", " ", "[ab]"]),
        ("", (), []),
    ],
)
def test_text_is_cut_at_the_rationale(text: str, spans: tuple[tuple[int, int], ...], pieces: list[str]) -> None:
    """In characters of the original text, whatever the order of the spans."""
    for order in (spans, spans[::-1]):
        found = segments(make_finding(text, spans=order))
        assert [piece if score is None else f"[{piece}]" for piece, score in found] == pieces
