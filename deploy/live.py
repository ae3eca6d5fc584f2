"""The demo in the terminal: a live view of findings, alerts and counts, or plain lines where there is no terminal."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Final, Protocol, Self

from rich import box
from rich.cells import cell_len
from rich.columns import Columns
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from deploy.board import Board
from deploy.render import (
    LOOKS,
    alert_line,
    clipped,
    dead_letter_line,
    finding_line,
    headline,
    highlighted,
    look,
    patches_text,
    safe,
)
from stream.records import Alert, DeadLetter, Finding

_REFRESH_S: Final = 0.1
_SIDE_WIDTH: Final = 46
_MIN_WIDE: Final = 100
_COUNTS_HEIGHT: Final = 14


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
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.refresh()
        self._live.stop()

    def say(self, status: str) -> None:
        self._status = status
        self._live.refresh()

    def note(self, line: str) -> None:
        self._live.console.print(line, highlight=False, soft_wrap=True)

    def show(self, outcome: Finding | Alert | DeadLetter) -> None:
        self.refresh()

    def refresh(self) -> None:
        now = time.monotonic()
        if now - self._drawn_s >= _REFRESH_S:
            self._drawn_s = now
            self._live.refresh()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width, height = options.max_width, max(14, console.height - 1)
        yield _headline(self._board, self._status, width)
        if width >= _MIN_WIDE:
            grid = Table.grid(padding=(0, 1, 0, 0))
            grid.add_column(width=width - _SIDE_WIDTH - 1)
            grid.add_column(width=_SIDE_WIDTH)
            main = _findings(self._board, width - _SIDE_WIDTH - 1, height - 2)
            grid.add_row(
                main, Group(_counts(self._board), _alerts(self._board, _SIDE_WIDTH, height - 2 - _COUNTS_HEIGHT))
            )
            yield grid
        else:
            yield _alerts(self._board, width, 5)
            yield _findings(self._board, width, height - 9)
            yield _one_line_counts(self._board)


def _headline(board: Board, status: str, width: int) -> RenderableType:
    total = "" if board.n_to_send is None else f" of {board.n_to_send}"
    line = Text.assemble((" sitrep demo ", "bold white on blue"), "  ", (f"{board.n_outcomes}{total} posts", "bold"))
    if board.n_outcomes:
        line.append(f"  {board.posts_per_s:.1f}/s", style="dim")
    p50 = board.latency_s(0.5)
    if p50 is not None:
        line.append(f"  p50 {p50 * 1000:.0f} ms", style="dim")
    line.append(f"   {status}", style="italic")
    return clipped(line, width)


def _findings(board: Board, width: int, height: int) -> RenderableType:
    room, shown = height - 2, []
    for finding in reversed(board.findings):
        entry, n_lines = _entry(finding, width - 4)
        room -= n_lines
        if room < 0:
            break
        shown.append(entry)
    lines = shown[::-1] or [Text("no findings yet", style="dim italic")]
    return Panel(
        Group(*lines),
        title="findings, newest last; the highlighted words decided",
        title_align="left",
        border_style="bright_black",
        box=box.ROUNDED,
        height=height,
    )


def _entry(finding: Finding, width: int) -> tuple[RenderableType, int]:
    """Return a finding for the list, and how many lines it takes."""
    shown = look(finding.label)
    head = Text.assemble((f" {shown.name} ", f"bold white on {shown.style}"), (f" {finding.probability:.0%} ", "bold"))
    head.append(f" {safe(finding.post_id)}", style="dim")
    if finding.lang:
        head.append(f" {safe(finding.lang)}", style="dim")
    patches = patches_text(finding)
    if patches:
        head.append(f"  ▦ {patches}", style="cyan")
    if finding.degraded:
        head.append(f"  degraded: {', '.join(map(safe, finding.degraded))}", style="yellow")
    text = clipped(highlighted(finding.text, finding.text_rationale), 2 * width - 16)
    if not finding.text:
        text = Text("(no text, picture only)", style="dim italic")
    n_text_lines = max(1, -(-cell_len(text.plain) // (width - 9)))
    return Group(clipped(head, width), Padding(text, (0, 0, 1, 1))), 2 + n_text_lines


def _counts(board: Board) -> RenderableType:
    classes = Table.grid(padding=(0, 1))
    classes.add_column(width=21)
    classes.add_column(width=13)
    classes.add_column(justify="right", width=5)
    most = max([1, *board.by_class.values()])
    for label in [*LOOKS, *(set(board.by_class) - set(LOOKS))]:
        n, style = board.by_class[label], look(label).style
        classes.add_row(Text(look(label).name, style), Text("█" * round(13 * n / most), style), str(n))
    outcomes = Table.grid(padding=(0, 1))
    outcomes.add_column(width=21)
    outcomes.add_column(justify="right", width=5)
    outcomes.add_row("findings", str(board.n_findings))
    outcomes.add_row(Text("dead letters", "yellow"), str(board.n_dead_letters))
    outcomes.add_row(Text("duplicates", "dim"), str(board.n_duplicates))
    outcomes.add_row(Text("alerts", "bold red"), Text(str(board.n_alerts), "bold red"))
    reasons = Text(", ".join(f"{reason} {n}" for reason, n in board.by_reason.most_common()), "dim yellow")
    return Panel(
        Group(classes, Text(), outcomes, clipped(reasons, 2 * (_SIDE_WIDTH - 4))),
        title="counts",
        title_align="left",
        border_style="bright_black",
        box=box.ROUNDED,
        width=_SIDE_WIDTH,
        height=_COUNTS_HEIGHT,
    )


def _alerts(board: Board, width: int, height: int) -> RenderableType:
    n_shown = max(1, (height - 2) // 3)
    lines: list[RenderableType] = []
    for alert in list(board.alerts)[-n_shown:]:
        line = Text.assemble((f" {alert.probability:.0%} ", "bold white on red"), (f" {headline(alert)}", "bold red"))
        lines.append(Padding(clipped(line, 2 * (width - 5)), (0, 0, 0 if width > _SIDE_WIDTH else 1, 0)))
    if not lines:
        lines = [Text("no alert so far", "dim")]
    return Panel(
        Group(*lines),
        title=f"ALERTS: {board.n_alerts}",
        title_align="left",
        border_style="bold red" if board.alerts else "bright_black",
        box=box.HEAVY if board.alerts else box.ROUNDED,
        width=width,
        height=max(5, height),
    )


def _one_line_counts(board: Board) -> RenderableType:
    parts = [Text(f"{look(label).name} {n}", look(label).style) for label, n in board.by_class.most_common()]
    parts += [Text(f"dead letters {board.n_dead_letters}", "yellow"), Text(f"duplicates {board.n_duplicates}", "dim")]
    return Columns(parts, padding=(0, 2))
