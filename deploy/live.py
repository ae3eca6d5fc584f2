"""The demo in the terminal: a live view of findings, alerts and counts, or plain lines where there is no terminal."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Final, Protocol, Self

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.live import Live
from rich.table import Table

from deploy.board import Board
from deploy.panels import (
    COUNTS_HEIGHT,
    SIDE_WIDTH,
    draw_alerts,
    draw_counts,
    draw_findings,
    draw_headline,
    draw_one_line_counts,
)
from deploy.render import alert_line, dead_letter_line, finding_line
from stream.records import Alert, DeadLetter, Finding

_REFRESH_S: Final = 0.1
_MIN_WIDE: Final = 100
# scripts whose width terminal and rich count differently would wrap, and each redraw would then leave a line behind
_WRAP_OFF: Final = "\x1b[?7l"
_WRAP_ON: Final = "\x1b[?7h"


class View(Protocol):
    """Shows the board while the demo runs."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    def say(self, status: str) -> None:
        """Show what is going on."""

    def note(self, line: str) -> None:
        """Leave a line that stays."""

    def show(self, outcome: Finding | Alert | DeadLetter) -> None:
        """Show an outcome that came back."""

    def refresh(self) -> None:
        """Draw again, if it is time to."""


def view_for(board: Board) -> View:
    """Return the live view on a terminal, else the plain one."""
    console = Console()
    return LiveView(board, console) if console.is_terminal and not console.is_dumb_terminal else PlainView()


class PlainView:
    """One line for each outcome, for pipes and logs."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        sys.stdout.flush()

    def say(self, status: str) -> None:
        print(status, flush=True)

    note = say

    def show(self, outcome: Finding | Alert | DeadLetter) -> None:
        if isinstance(outcome, Finding):
            print(finding_line(outcome), flush=True)
        elif isinstance(outcome, Alert):
            print(alert_line(outcome), flush=True)
        else:
            print(dead_letter_line(outcome), flush=True)

    def refresh(self) -> None:
        return


class LiveView:
    """Draws the board in place, some times a second."""

    def __init__(self, board: Board, console: Console) -> None:
        self._board = board
        self._status = ""
        self._drawn_s = 0.0
        self._live = Live(self, console=console, auto_refresh=False, vertical_overflow="crop")

    def __enter__(self) -> Self:
        self._write(_WRAP_OFF)
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.refresh()
        self._live.stop()
        self._write(_WRAP_ON)

    def say(self, status: str) -> None:
        self._status = status
        self._live.refresh()

    def note(self, line: str) -> None:
        self._write(_WRAP_ON)
        self._live.console.print(line, highlight=False, soft_wrap=True)
        self._write(_WRAP_OFF)

    def show(self, outcome: Finding | Alert | DeadLetter) -> None:
        self.refresh()

    def refresh(self) -> None:
        now = time.monotonic()
        if now - self._drawn_s >= _REFRESH_S:
            self._drawn_s = now
            self._live.refresh()

    def _write(self, sequence: str) -> None:
        self._live.console.file.write(sequence)
        self._live.console.file.flush()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width, height = options.max_width, max(14, console.height - 1)
        yield draw_headline(self._board, self._status, width)
        if width >= _MIN_WIDE:
            grid = Table.grid(padding=(0, 1, 0, 0))
            grid.add_column(width=width - SIDE_WIDTH - 1)
            grid.add_column(width=SIDE_WIDTH)
            main = draw_findings(self._board, width - SIDE_WIDTH - 1, height - 2)
            grid.add_row(
                main, Group(draw_counts(self._board), draw_alerts(self._board, SIDE_WIDTH, height - 2 - COUNTS_HEIGHT))
            )
            yield grid
        else:
            yield draw_alerts(self._board, width, 5)
            yield draw_findings(self._board, width, height - 9)
            yield draw_one_line_counts(self._board)
