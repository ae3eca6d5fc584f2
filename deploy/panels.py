"""The parts of the demo's live view: headline, findings with their evidence, counts and alerts."""

from __future__ import annotations

from typing import Final

from rich import box
from rich.cells import cell_len
from rich.columns import Columns
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from deploy.board import Board
from deploy.render import LOOKS, clipped, headline, highlighted, look, safe
from stream.records import Finding

SIDE_WIDTH: Final = 46
COUNTS_HEIGHT: Final = 14


def draw_headline(board: Board, status: str, width: int) -> RenderableType:
    """Return one line: how far the demo is, how fast, and what it does."""
    total = "" if board.n_to_send is None else f" of {board.n_to_send}"
    line = Text.assemble((" sitrep demo ", "bold white on blue"), "  ", (f"{board.n_outcomes}{total} posts", "bold"))
    if board.n_outcomes:
        line.append(f"  {board.posts_per_s:.1f}/s", style="dim")
    p50 = board.latency_s(0.5)
    if p50 is not None:
        line.append(f"  p50 {p50 * 1000:.0f} ms", style="dim")
    line.append(f"   {status}", style="italic")
    return clipped(line, width)


def draw_findings(board: Board, width: int, height: int) -> RenderableType:
    """Return the newest findings that fit, newest last."""
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
    picture = finding.image_rationale
    if picture is not None:
        head.append(f"  ▦ {len(picture.selected)}/{len(picture.scores)} patches", style="cyan")
    if finding.degraded:
        # what the reader cannot see for himself comes first: the end may be cut
        modes = sorted(finding.degraded, key=lambda mode: mode in ("no_image", "no_text"))
        head.append(f"  degraded: {', '.join(map(safe, modes))}", style="yellow")
    text = clipped(highlighted(finding.text, finding.text_rationale), 2 * width - 16)
    if not finding.text:
        text = Text("(no text, picture only)", style="dim italic")
    n_text_lines = max(1, -(-cell_len(text.plain) // (width - 9)))
    return Group(clipped(head, width), Padding(text, (0, 0, 1, 1))), 2 + n_text_lines


def draw_counts(board: Board) -> RenderableType:
    """Return the counts by class and by outcome."""
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
        Group(classes, Text(), outcomes, clipped(reasons, 2 * (SIDE_WIDTH - 4))),
        title="counts",
        title_align="left",
        border_style="bright_black",
        box=box.ROUNDED,
        width=SIDE_WIDTH,
        height=COUNTS_HEIGHT,
    )


def draw_alerts(board: Board, width: int, height: int) -> RenderableType:
    """Return the newest alerts that fit."""
    n_shown = max(1, (height - 2) // 3)
    lines: list[RenderableType] = []
    for alert in list(board.alerts)[-n_shown:]:
        line = Text.assemble((f" {alert.probability:.0%} ", "bold white on red"), (f" {headline(alert)}", "bold red"))
        lines.append(Padding(clipped(line, 2 * (width - 5)), (0, 0, 0 if width > SIDE_WIDTH else 1, 0)))
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


def draw_one_line_counts(board: Board) -> RenderableType:
    """Return the counts for a narrow terminal."""
    parts = [Text(f"{look(label).name} {n}", look(label).style) for label, n in board.by_class.most_common()]
    parts += [Text(f"dead letters {board.n_dead_letters}", "yellow"), Text(f"duplicates {board.n_duplicates}", "dim")]
    return Columns(parts, padding=(0, 2))
