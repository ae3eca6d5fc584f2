"""The file of measured figures: adds runs under a known key, refuses anything without runs, measures nothing."""

from __future__ import annotations

import json
import math
import os
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.errors import ModelError

FIELDS = ("mean", "sd", "runs", "rows", "protocol")
_TOLERANCE = 1e-9


class InvalidFigure(ModelError):
    """A figure that cannot be added or trusted; the message names the key and the fix."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A figure that the project set itself to reach; `goal` is None where it is only reported."""

    key: str
    title: str
    goal: float | None = None
    at_most: bool = False  # the goal is a limit, not a floor
    unit: str = ""

    def reached(self, mean: float) -> bool | None:
        """Whether a measured mean, not rounded, meets the goal; None without one."""
        if self.goal is None:
            return None
        return mean <= self.goal if self.at_most else mean >= self.goal


FIGURES = (
    Figure(key="unconstrained.macro_f1", title="Macro-F1, everything shown (no rationale constraint)", goal=0.84),
    Figure(key="rationale_only.macro_f1", title="Macro-F1, decided from rationales alone (the system)", goal=0.80),
    Figure(key="rationale_only.accuracy", title="accuracy, decided from rationales alone", goal=0.87),
    Figure(key="text_rationale_only.macro_f1", title="Macro-F1, text rationale only", goal=0.70),
    Figure(key="image_rationale_only.macro_f1", title="Macro-F1, image rationale only", goal=0.64),
    Figure(key="macro_f1_drop", title="Macro-F1 lost when rationales are removed", goal=0.39),
    Figure(key="comprehensiveness", title="comprehensiveness (ERASER)"),
    Figure(key="sufficiency", title="sufficiency (ERASER)", goal=0.03, at_most=True),
    Figure(key="aopc", title="AOPC of comprehensiveness, top 1, 5, 10, 20, 50%"),
    Figure(
        key="rationale_nepal_to_hagupit.token_f1",
        title="token-F1 with people's rationales, trained on Nepal, tested on Hagupit",
        goal=0.70,
    ),
    Figure(key="rationale_nepal_to_hagupit.auprc", title="AUPRC of the same", goal=0.80),
    Figure(key="selected.words", title="share of words selected, humanitarian classes", goal=0.35, at_most=True),
    Figure(key="selected.patches", title="share of patches selected, humanitarian classes", goal=0.30, at_most=True),
    Figure(key="image_faithfulness.gain_over_rise", title="image faithfulness, gain over RISE", goal=0.12),
    Figure(key="zero_shot.dmd.accuracy", title="accuracy, zero-shot on DMD", goal=0.80),
    Figure(key="official_text.macro_f1", title="Macro-F1, text only, official train to official test", goal=0.72),
    Figure(key="calibration.ece", title="calibration error (ECE) on unseen folds", goal=0.04, at_most=True),
    Figure(
        key="compact.macro_f1_gap",
        title="Macro-F1, `dual` (twelve layers of CLIP) minus `compact`",
        goal=0.03,
        at_most=True,
    ),
    Figure(key="compact.size_mb", title="size of the shipped model", goal=50.0, at_most=True, unit="MB"),
    Figure(
        key="compact.ms_with_image", title="one post with image, one CPU thread", goal=60.0, at_most=True, unit="ms"
    ),
    Figure(key="compact.ms_text", title="one post without image, one thread", goal=15.0, at_most=True, unit="ms"),
)

GOALS = {figure.key: figure for figure in FIGURES}
_GROUPS = {key.split(".")[0] for key in GOALS}
_HUMAID = re.compile(r"zero_shot\.humaid\.[a-z0-9_]+\.[a-z0-9_]+")
_PART = re.compile(r"[a-z0-9_]+(\.[a-z0-9_]+)*")


def add(path: Path, key: str, runs: Sequence[float], rows: int, protocol: str) -> None:
    """Puts the runs of one figure into the file, in place of earlier ones; the file is written whole or not at all.

    A key is one of `FIGURES`, or begins with one's first word: `rationale_only.macro_f1.restored_pixels`.
    """
    check_key(key)
    figures = read(path) if path.exists() else {}
    figures[key] = entry(runs, rows, protocol)
    write(path, figures)


def entry(runs: Sequence[float], rows: int, protocol: str) -> dict[str, Any]:
    """Mean and sample standard deviation (0 of one run) of the runs, as they stand in the file."""
    values = [float(value) for value in runs]
    made = {
        "mean": statistics.fmean(values) if values else math.nan,
        "sd": statistics.stdev(values) if len(values) > 1 else 0.0,
        "runs": values,
        "rows": int(rows),
        "protocol": protocol.strip(),
    }
    check_entry("the new figure", made)
    return made


def read(path: Path) -> dict[str, dict[str, Any]]:
    """Every figure of the file; raises `InvalidFigure` when one was not made by `add`."""
    figures = load(path)
    for key in figures:
        check_key(key)
    return figures


def load(path: Path) -> dict[str, dict[str, Any]]:
    """The same under any keys, as the ablations have them."""
    try:
        figures = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InvalidFigure(f"{path} is not JSON ({error}): restore it, or delete it and measure again") from error
    if not isinstance(figures, dict):
        raise InvalidFigure(f"{path} holds no JSON object: restore it, or delete it and measure again")
    for key, value in figures.items():
        check_entry(f"{path}: {key}", value)
    return figures


def check_key(key: str) -> None:
    """Raises `InvalidFigure` for a key that no table would show."""
    known = key in GOALS or _HUMAID.fullmatch(key) is not None
    if not known and not (_PART.fullmatch(key) and key.split(".")[0] in _GROUPS):
        raise InvalidFigure(f"{key!r} is no figure of the summary: take one of {', '.join(GOALS)}, or add a suffix")


def check_entry(where: str, value: object) -> None:
    """Raises `InvalidFigure` unless mean and spread are those of the runs that stand beside them."""
    if not isinstance(value, Mapping) or set(value) != set(FIELDS):
        found = sorted(value) if isinstance(value, Mapping) else value
        raise InvalidFigure(f"{where} has {found}, not {list(FIELDS)}: write it with model.summary.add")
    runs = value["runs"]
    if not isinstance(runs, list) or not runs or not all(_is_number(run) for run in runs):
        raise InvalidFigure(f"{where} has runs {runs!r}: give at least one finite number that was measured")
    spread = statistics.stdev(runs) if len(runs) > 1 else 0.0
    for name, expected in (("mean", statistics.fmean(runs)), ("sd", spread)):
        if not _is_number(value[name]) or not math.isclose(value[name], expected, abs_tol=_TOLERANCE):
            raise InvalidFigure(f"{where} says {name} {value[name]!r}, its runs say {expected:.6f}: measure again")
    if not isinstance(value["rows"], int) or isinstance(value["rows"], bool) or value["rows"] < 1:
        raise InvalidFigure(f"{where} has rows {value['rows']!r}: give how many rows were measured")
    if not isinstance(value["protocol"], str) or not value["protocol"]:
        raise InvalidFigure(f"{where} has protocol {value['protocol']!r}: say in a sentence how it was measured")


def write(path: Path, figures: Mapping[str, Mapping[str, Any]], order: Sequence[str] = tuple(GOALS)) -> None:
    """The figures in an order of keys, then by name; never half a file."""
    places = {key: place for place, key in enumerate(order)}
    ranked = sorted(figures, key=lambda key: (places.get(key, len(places)), key))
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.write_text(json.dumps({key: figures[key] for key in ranked}, indent=1) + "\n", encoding="utf-8")
    fresh.replace(path)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
