"""Writes the demo's page: one HTML file with no script and nothing from outside; every text is escaped."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import jinja2
from PIL import Image

from deploy.board import Board
from deploy.overlay import relative
from deploy.render import LOOKS, look, patches_text, safe
from stream.records import DeadLetter, Finding, ImageRationale

TITLE: Final = "Sitrep demo"
_TEMPLATE: Final = Path(__file__).parent / "report.html.j2"
_THUMBNAIL_EDGE: Final = 480
_MAX_CARDS: Final = 200
_MAX_VALUE_CHARS: Final = 160
_MAX_HEAT: Final = 0.6
_HARMLESS: Final = "\n\u200e\u200f\u061c"


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """What is on the page; `pictures` by finding id, `refresh_s` when it is still being written."""

    board: Board
    pictures: Mapping[str, Image.Image]
    ledger: str
    refresh_s: int | None = None


def render_page(page: Page) -> str:
    """Return the page as HTML."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    template = environment.from_string(_TEMPLATE.read_text("utf-8"))
    board = page.board
    alerting = {finding.id for finding in board.alert_findings}
    quiet = [finding for finding in board.findings if finding.id not in alerting]
    alerts, others = (
        [_card(finding, page.pictures.get(finding.id)) for finding in list(findings)[: -_MAX_CARDS - 1 : -1]]
        for findings in (board.alert_findings, quiet)
    )
    newest = board.findings[-1] if board.findings else None
    return template.render(
        title=TITLE,
        alerts=alerts,
        cards=others,
        n_alerts=board.n_alerts,
        n_older_alerts=board.n_alerts - len(alerts),
        n_older=board.n_findings - len(alerts) - len(others),
        classes=_classes(board),
        dead_letters=[_letter(letter) for letter in reversed(board.dead_letters)],
        tiles=_tiles(board),
        ledger=page.ledger,
        model=newest.model if newest is not None else None,
        p50_s=board.latency_s(0.5),
        refresh_s=page.refresh_s,
        written=f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC",
    )


def segments(finding: Finding) -> list[tuple[str, float | None]]:
    """Return the text cut at the rationale: pieces with their score, None where a piece is not evidence."""
    pieces: list[tuple[str, float | None]] = []
    text, end = _shown(finding.text), 0
    for span in sorted(finding.text_rationale, key=lambda span: span.start):
        if span.start > end:
            pieces.append((text[end : span.start], None))
        pieces.append((text[max(end, span.start) : span.end], span.score))
        end = max(end, span.end)
    if end < len(text):
        pieces.append((text[end:], None))
    return [piece for piece in pieces if piece[0]]


def _shown(text: str) -> str:
    """The text without what could reorder or hide it; line breaks and marks of direction are harmless on a page."""
    return "".join(char if char in _HARMLESS else safe(char) for char in text)


def data_uri(picture: Image.Image) -> str:
    """Return a small JPEG of the picture that a page can hold."""
    small = picture.convert("RGB")
    small.thumbnail((_THUMBNAIL_EDGE, _THUMBNAIL_EDGE))
    buffer = BytesIO()
    small.save(buffer, format="JPEG", quality=82)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _card(finding: Finding, picture: Image.Image | None) -> dict[str, Any]:
    ordered = sorted(finding.probabilities.items(), key=lambda item: -item[1])
    url = finding.url if finding.url is not None and finding.url.startswith(("https://", "http://")) else None
    return {
        "id": finding.id,
        "post_id": safe(finding.post_id),
        "label": finding.label,
        "look": look(finding.label),
        "probability": finding.probability,
        "bars": [(look(label), probability, label == finding.label) for label, probability in ordered],
        "segments": segments(finding),
        "lang": None if finding.lang is None else safe(finding.lang),
        "source": safe(finding.source),
        "accepted": f"{finding.accepted_at:%H:%M:%S}",
        "degraded": [safe(mode) for mode in finding.degraded],
        "url": url,
        "picture": data_uri(picture) if picture is not None and finding.image_rationale is not None else None,
        "evidence": _evidence(finding.image_rationale) if finding.image_rationale is not None else None,
        "patches": patches_text(finding),
    }


def _evidence(rationale: ImageRationale) -> dict[str, Any]:
    """Return what is drawn over a picture, in the original's pixels."""
    cell_w, cell_h = rationale.width / rationale.cols, rationale.height / rationale.rows
    heat = [
        (index % rationale.cols * cell_w, index // rationale.cols * cell_h, round(_MAX_HEAT * score**1.5, 3))
        for index, score in enumerate(relative(rationale.scores)[: rationale.rows * rationale.cols])
    ]
    boxes = [(box.x0, box.y0, box.x1 - box.x0, box.y1 - box.y0) for box in rationale.boxes]
    line = max(rationale.width, rationale.height) / 110
    size = {"width": rationale.width, "height": rationale.height, "cell_w": cell_w, "cell_h": cell_h, "line": line}
    return size | {"heat": heat, "boxes": boxes, "n_selected": len(rationale.selected)}


def _classes(board: Board) -> list[dict[str, Any]]:
    most = max([1, *board.by_class.values()])
    labels = [*LOOKS, *sorted(set(board.by_class) - set(LOOKS))]
    return [
        {"label": label, "look": look(label), "n": board.by_class[label], "share": board.by_class[label] / most}
        for label in labels
    ]


def _tiles(board: Board) -> Sequence[tuple[str, int, str]]:
    return (
        ("posts", max(board.n_sent, board.n_outcomes), ""),  # others may feed the same topics
        ("findings", board.n_findings, ""),
        ("alerts", board.n_alerts, "red" if board.n_alerts else ""),
        ("dead letters", board.n_dead_letters, "amber" if board.n_dead_letters else ""),
        ("duplicates", board.n_duplicates, ""),
    )


def _letter(letter: DeadLetter) -> dict[str, Any]:
    value = (letter.value or b"")[:_MAX_VALUE_CHARS].decode("utf-8", "backslashreplace")
    return {
        "id": safe(letter.id),
        "reason": safe(letter.reason),
        "message": safe(letter.message[:300]),
        "size_bytes": len(letter.value or b""),
        "value": safe(value) + ("…" if len(letter.value or b"") > _MAX_VALUE_CHARS else ""),
    }
