"""What the demo leaves in its folder: the page, the findings, the alerts, overlays and metrics."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Final

from deploy.board import Board
from deploy.failure import CommandFailed
from deploy.gallery import Gallery
from deploy.overlay import draw_overlay
from deploy.report import TITLE, Page, render_page
from stream.records import Alert, Finding, encode

_OURS: Final = re.compile(r".+-[0-9a-f]{8}\.png")


class Exhibit:
    """Files in one folder; those of an earlier demo are replaced, others are left alone."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.page = folder / "index.html"
        self.findings = folder / "findings.jsonl"
        self.alerts = folder / "alerts.jsonl"
        self.overlays = folder / "overlays"
        self.metrics = folder / "metrics.txt"
        self.logs = folder / "logs"
        self.gallery = Gallery()
        self._drawn: set[str] = set()

    def check(self) -> None:
        """Make the folder, and change nothing that is in it.

        Raises:
            CommandFailed: its page is not one that a demo wrote.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.page.exists() and f"<title>{TITLE}</title>".encode() not in self.page.read_bytes():
            raise CommandFailed(f"{self.page} is not a page of this demo and stays: give another folder (--out)")

    def prepare(self) -> None:
        """Clear what an earlier demo left."""
        self.overlays.mkdir(parents=True, exist_ok=True)
        for file in self.overlays.iterdir():
            if _OURS.fullmatch(file.name):
                file.unlink()
        for file in (self.findings, self.alerts):
            file.write_bytes(b"")
        for file in (self.page, self.metrics):
            file.unlink(missing_ok=True)

    def append(self, outcome: Finding | Alert) -> None:
        """Add one line to the findings or the alerts."""
        file = self.findings if isinstance(outcome, Finding) else self.alerts
        with file.open("ab") as lines:
            lines.write(encode(outcome) + b"\n")

    async def write_live(self, board: Board, ledger: str, *, refresh_s: int) -> str | None:
        """Write the page as the board is now, while outcomes go on coming; return why it could not be written."""
        try:
            await asyncio.to_thread(self.write, board.snapshot(), ledger, refresh_s=refresh_s)
        except Exception as error:  # the edge: the pipeline that the page is about goes on without it
            return f"{type(error).__name__}: {error}"
        return None

    def write(self, board: Board, ledger: str, *, refresh_s: int | None = None) -> int:
        """Write page and overlays, and return how many overlays there are; blocks while it draws."""
        pictures = {}
        for finding in {finding.id: finding for finding in (*board.alert_findings, *board.findings)}.values():
            picture = self.gallery.picture(finding)
            if picture is None or finding.image_rationale is None:
                continue
            pictures[finding.id] = picture
            if finding.id not in self._drawn:
                self._drawn.add(finding.id)
                drawn = draw_overlay(picture, finding.image_rationale)
                drawn.save(
                    self.overlays / _overlay_name(finding), compress_level=1
                )  # six times quicker than the default
        html = render_page(Page(board=board, pictures=pictures, ledger=ledger, refresh_s=refresh_s))
        fresh = self.page.with_suffix(".new")
        fresh.write_text(html, "utf-8")
        fresh.replace(self.page)
        return len(self._drawn)


def _overlay_name(finding: Finding) -> str:
    name = re.sub(r"[^A-Za-z0-9_-]+", "_", finding.post_id)[:80]
    return f"{name}-{finding.id[:8]}.png"
