"""Findings as terminal text: colours on a terminal, marks elsewhere; post text can never steer the terminal."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from stream.records import Alert, DeadLetter, Finding, Span

_BAR_CELLS: Final = 28
_UNSAFE: Final = frozenset({"Cc", "Cf", "Co", "Cs", "Zl", "Zp"})
_JOINERS: Final = frozenset("\u200c\u200d")  # emoji and several scripts need them


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassLook:
    """How a class is shown: a short name, a terminal style and a colour for pages."""

    name: str
    style: str
    colour: str


LOOKS: Final[Mapping[str, ClassLook]] = {
    "infrastructure_and_utility_damage": ClassLook(name="infrastructure damage", style="red", colour="#d9442f"),
    "affected_individuals": ClassLook(name="affected people", style="magenta", colour="#b04ac0"),
    "rescue_volunteering_or_donation_effort": ClassLook(name="rescue or donation", style="green", colour="#2f9e5b"),
    "other_relevant_information": ClassLook(name="other relevant", style="cyan", colour="#2b8fb3"),
    "not_humanitarian": ClassLook(name="not humanitarian", style="bright_black", colour="#7d8590"),
}


def look(label: str) -> ClassLook:
    """Return how the class is shown; an unknown class has its own name."""
    return LOOKS.get(label) or ClassLook(name=label.replace("_", " "), style="white", colour="#7d8590")


def safe(text: str) -> str:
    """Return the text with control and invisible characters replaced one by one, so spans keep their place."""
    return "".join(
        (" " if char in "\n\r\t" else "\ufffd")
        if unicodedata.category(char) in _UNSAFE and char not in _JOINERS
        else char
        for char in text
    )


def highlighted(text: str, spans: Sequence[Span], *, style: str = "bold black on yellow") -> Text:
    """Return the text with the rationale words in `style`."""
    shown = Text(safe(text))
    for span in spans:
        shown.stylize(style, span.start, span.end)
    return shown


def marked(text: str, spans: Sequence[Span]) -> str:
    """Return the text as one plain line with the rationale words in [brackets]."""
    shown, parts, end = safe(text), [], 0
    for span in sorted(spans, key=lambda span: span.start):
        parts += [shown[end : span.start], "[", shown[span.start : span.end], "]"]
        end = span.end
    return "".join([*parts, shown[end:]])


def probability_bars(probabilities: Mapping[str, float], label: str) -> Table:
    """Return the calibrated probabilities as bars, the highest first."""
    table = Table.grid(padding=(0, 1))
    for name, probability in sorted(probabilities.items(), key=lambda item: -item[1]):
        style = look(name).style
        n_cells = round(probability * _BAR_CELLS)
        bar = Text("█" * n_cells, style=style) + Text("░" * (_BAR_CELLS - n_cells), style="bright_black")
        table.add_row(
            Text(look(name).name, style=f"bold {style}" if name == label else style), bar, f"{probability:6.1%}"
        )
    return table


def finding_lines(finding: Finding, *, plain: bool = False) -> RenderableType:
    """Return a finding in full: label, post with highlights, probabilities, picture evidence, degraded modes.

    `plain` marks the rationale words with brackets, for where there are no colours.
    """
    head = Text.assemble(
        (look(finding.label).name, f"bold {look(finding.label).style}"), f"  {finding.probability:.0%}"
    )
    head.append(f"   {safe(finding.post_id)}", style="dim")
    parts: list[RenderableType] = [head]
    if finding.text:
        spans = finding.text_rationale
        parts.append(Text(marked(finding.text, spans)) if plain else highlighted(finding.text, spans))
    parts.append(probability_bars(finding.probabilities, finding.label))
    if (evidence := patches_text(finding)) is not None:
        parts.append(Text(evidence, style="dim"))
    if finding.degraded:
        parts.append(Text("degraded: " + ", ".join(map(safe, finding.degraded)), style="yellow"))
    model = finding.model
    parts.append(Text(f"{model.name} {model.version}, weights {model.digest[:19]}…", style="dim"))
    return Group(*parts)


def finding_line(finding: Finding) -> str:
    """Return a finding as one plain line."""
    degraded = _degraded(finding)
    patches = patches_text(finding)
    seen = f"  + {patches}" if patches else ""
    return (
        f"{finding.accepted_at:%H:%M:%S}  {look(finding.label).name:<21}  {finding.probability:4.2f}  "
        f"{safe(finding.post_id)}  {marked(finding.text, finding.text_rationale)}{seen}{degraded}"
    )


def alert_line(alert: Alert) -> str:
    """Return an alert as one plain line."""
    post_ids = ", ".join(map(safe, alert.post_ids))
    return f"ALERT  {look(alert.kind).name}  {alert.probability:4.2f}  {post_ids}  {headline(alert)}{_degraded(alert)}"


def headline(alert: Alert) -> str:
    """Return the alert's headline; a post without text has none of its own."""
    return safe(alert.headline).strip() or f"(picture of {', '.join(map(safe, alert.post_ids))})"


def dead_letter_line(letter: DeadLetter) -> str:
    """Return a dead letter as one plain line."""
    return f"DEAD LETTER  {letter.reason}  {safe(letter.id)}  {safe(letter.message)}"


def patches_text(finding: Finding) -> str | None:
    """Return what of the picture was selected, in words."""
    rationale = finding.image_rationale
    if rationale is None:
        return None
    n_patches = rationale.rows * rationale.cols
    return f"{len(rationale.selected)} of {n_patches} picture patches"


def clipped(text: Text, width: int) -> Text:
    """Return the text cut to `width` terminal cells, with an ellipsis where something is missing."""
    if cell_len(text.plain) > width:
        text = text.copy()
        text.truncate(width, overflow="ellipsis")
    return text


def _degraded(outcome: Finding | Alert) -> str:
    return f"  (degraded: {', '.join(map(safe, outcome.degraded))})" if outcome.degraded else ""
