"""Renders the measured figures as the Markdown that README and model cards include; computes none."""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from model.evaluation.summary import FIGURES, GOALS, Figure

Figures = Mapping[str, Mapping[str, Any]]

DUAL = ".dual"  # ends the keys of figures that the larger image tower has
_PIXELS = (".original_pixels", ".restored_pixels")
_CLASS_F1 = "rationale_only.f1."
_VERDICTS = {True: "reached", False: "**missed**", None: ""}


def goals_table(figures: Figures) -> str:
    """Goals and what was reached; how each was measured comes last."""
    protocols: dict[str, int] = {}
    return _joined([_goals(figures, protocols)], protocols)


def model_table(figures: Figures, ablations: Figures, earlier: Sequence[Figures]) -> str:
    """Goals and what was reached, other figures, by class, tower, kind of pixels, by the recipe before; ablations.

    `earlier` are figures of at least two trainings by the recipe before, or none. How each was measured comes last:
    protocols are numbered in the order in which they come up and spelt out once.
    """
    protocols: dict[str, int] = {}
    parts = [
        _goals(figures, protocols),
        _others(figures, protocols),
        _classes(figures, earlier, protocols),
        _dual(figures, protocols),
        _pixels(figures, protocols),
        _earlier(figures, earlier, protocols),
        _ablations(ablations, protocols),
    ]
    return _joined(parts, protocols)


def _joined(parts: Sequence[str], protocols: Mapping[str, int]) -> str:
    hows = "\n".join(f"{number}. {protocol}" for protocol, number in protocols.items())
    return "\n\n".join(part for part in (*parts, hows) if part) or "Nothing has been measured yet."


def _goals(figures: Figures, protocols: dict[str, int]) -> str:
    rows = [
        f"{figure.title} | {_value(figures[figure.key], figure.unit)} | {_goal(figure)} |"
        f" {_VERDICTS[figure.reached(figures[figure.key]['mean'])]} | {_about(figures[figure.key], protocols)}"
        for figure in FIGURES
        if figure.key in figures
    ]
    return _table("figure | measured | goal |  | runs | rows | how", rows)


def _others(figures: Figures, protocols: dict[str, int]) -> str:
    rows = [
        f"`{key}` | {_value(figure)} | {_about(figure, protocols)}"
        for key, figure in figures.items()
        if key not in GOALS and not key.endswith((*_PIXELS, DUAL)) and not key.startswith(_CLASS_F1)
    ]
    return _table("also measured | measured | runs | rows | how", rows)


def _classes(figures: Figures, earlier: Sequence[Figures], protocols: dict[str, int]) -> str:
    """F1 of each class, beside the mean of those trainings by the recipe before whose file has it."""
    keys = [key for key in figures if key.startswith(_CLASS_F1) and not key.endswith(DUAL)]
    others = [run for run in earlier if keys and all(key in run for key in keys)]
    rows: list[str] = []
    for key in keys:
        means = [run[key]["mean"] for run in others]
        cells = [_value(figures[key]), *([f"{statistics.mean(means):.3f}"] if means else [])]
        rows.append(f"`{key.removeprefix(_CLASS_F1)}` | {' | '.join(cells)} | {_about(figures[key], protocols)}")
    titles = ["measured", *([f"mean of {len(others)} trainings by the recipe before"] if others else [])]
    return _table(" | ".join(["F1 of the class, decided from rationales alone", *titles, "runs", "rows", "how"]), rows)


def _dual(figures: Figures, protocols: dict[str, int]) -> str:
    """The shipped model beside the one with the larger image tower."""
    rows = [
        f"`{key}` | {_value(figures[key])} | {_value(figures[key + DUAL])} | {_about(figures[key], protocols)}"
        for key in (name.removesuffix(DUAL) for name in figures if name.endswith(DUAL))
        if key in figures
    ]
    return _table("figure | `compact` (shipped) | `dual` | runs | rows | how", rows)


def _pixels(figures: Figures, protocols: dict[str, int]) -> str:
    """Original files and pixels restored from published overlays, never mixed."""
    rows: list[str] = []
    for key in _unique(key.rpartition(".")[0] for key in figures if key.endswith(_PIXELS)):
        found = [figures[key + kind] for kind in _PIXELS if key + kind in figures]
        cells = [f"{_value(figures[key + kind])}" if key + kind in figures else "" for kind in _PIXELS]
        n_rows = " + ".join(str(figure["rows"]) for figure in found)
        hows = ", ".join(_unique(_how(figure, protocols) for figure in found))
        rows.append(f"`{key}` | {' | '.join(cells)} | {n_rows} | {hows}")
    return _table("figure | original pixels | restored pixels | rows | how", rows)


def _earlier(figures: Figures, earlier: Sequence[Figures], protocols: dict[str, int]) -> str:
    """The shipped training beside those by the recipe before, each from nothing: what is measured alike of all."""
    if not earlier:
        return ""
    rows: list[str] = []
    for figure in FIGURES:
        found = [run[figure.key] for run in (figures, *earlier) if figure.key in run]
        if len(found) == 1 + len(earlier) and len({one["protocol"] for one in found}) == 1:
            means = [one["mean"] for one in found[1:]]
            spread = (
                f"{statistics.mean(means):.3f} ± {statistics.stdev(means):.3f} | {min(means):.3f} to {max(means):.3f}"
            )
            rows.append(f"{figure.title} | {_value(found[0])} | {spread} | {_about(found[-1], protocols)}")
    titles = ["figure", "shipped", f"{len(earlier)} trainings by the recipe before", "from, to"]
    return _table(" | ".join([*titles, "runs in each", "rows", "how"]), rows)


def _ablations(ablations: Figures, protocols: dict[str, int]) -> str:
    """One row each; the columns are the measures that any of them has."""
    names = _unique(key.rpartition(".")[0] for key in ablations)
    measures = _unique(key.rpartition(".")[2] for key in ablations)
    rows: list[str] = []
    for name in names:
        found = [ablations[f"{name}.{measure}"] for measure in measures if f"{name}.{measure}" in ablations]
        cells = [_value(ablations[key]) if (key := f"{name}.{measure}") in ablations else "" for measure in measures]
        title = re.sub(r"(?<=\d)_(?=\d)", ".", name).replace("_", " ")
        rows.append(f"{title} | {' | '.join(cells)} | {_about(found[0], protocols)}")
    titles = [
        measure.replace("_", " ").replace("macro f1", "Macro-F1").replace("token f1", "token-F1")
        for measure in measures
    ]
    return _table(" | ".join(["ablation", *titles, "runs", "rows", "how"]), rows)


def _value(figure: Mapping[str, Any], unit: str = "") -> str:
    digits = 1 if unit else 3
    spread = f" ± {figure['sd']:.{digits}f}" if len(figure["runs"]) > 1 else ""
    return f"{figure['mean']:.{digits}f}{spread}{' ' + unit if unit else ''}"


def _goal(figure: Figure) -> str:
    if figure.goal is None:
        return ""
    unit = f" {figure.unit}" if figure.unit else ""
    return f"{'≤' if figure.at_most else '≥'} {figure.goal:{'g' if figure.unit else '.2f'}}{unit}"


def _about(figure: Mapping[str, Any], protocols: dict[str, int]) -> str:
    return f"{len(figure['runs'])} | {figure['rows']} | {_how(figure, protocols)}"


def _how(figure: Mapping[str, Any], protocols: dict[str, int]) -> str:
    return f"({protocols.setdefault(figure['protocol'], len(protocols) + 1)})"


def _unique(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))


def _table(header: str, rows: Sequence[str]) -> str:
    if not rows:
        return ""
    rule = "|".join(["---"] * (header.count(" | ") + 1))
    return "\n".join([f"| {header} |", f"|{rule}|", *(f"| {row} |" for row in rows)])
