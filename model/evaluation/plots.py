"""The three plots of an evaluation; draws from the metrics and probabilities it is given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from model.evaluation.measures import Labels, Probs, reliability

SHORT = {
    "affected_individuals": "affected\nindividuals",
    "infrastructure_and_utility_damage": "infrastructure\ndamage",
    "not_humanitarian": "not\nhumanitarian",
    "other_relevant_information": "other relevant\ninformation",
    "rescue_volunteering_or_donation_effort": "rescue,\nvolunteers,\ndonations",
}
_INK, _FAINT, _BLUE, _ORANGE = "#1f2937", "#9ca3af", "#1d4ed8", "#c2410c"
_DPI = 150
_N_BINS = 10


def confusion(path: Path, labels: Labels, probs: Probs, classes: Sequence[str]) -> None:
    """Rows are labels, columns predictions; shade is the share of the label's row, figures are counts."""
    counts = np.zeros((len(classes), len(classes)), dtype=int)
    np.add.at(counts, (labels, probs.argmax(1)), 1)
    shares = counts / np.maximum(1, counts.sum(1, keepdims=True))
    figure, axes = _canvas(7.0, 6.3)
    axes.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0)
    names = [SHORT.get(name, name) for name in classes]
    axes.set_xticks(range(len(classes)), names, fontsize=8)
    axes.set_yticks(range(len(classes)), [f"{name}\n(n = {n})" for name, n in zip(names, counts.sum(1), strict=True)])
    axes.tick_params(length=0, labelsize=8)
    for row, col in np.ndindex(*counts.shape):
        if counts[row].sum():
            text = f"{counts[row, col]}\n{shares[row, col]:.0%}"
            ink = "white" if shares[row, col] > 0.55 else _INK
            axes.text(col, row, text, ha="center", va="center", fontsize=9, color=ink)
    axes.set_xticks(np.arange(-0.5, len(classes)), minor=True)
    axes.set_yticks(np.arange(-0.5, len(classes)), minor=True)
    axes.grid(which="minor", color="white", linewidth=2)
    axes.tick_params(which="minor", length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("predicted")
    axes.set_ylabel("label")
    axes.set_title(f"Predictions against labels ({len(labels)} posts)")
    _save(figure, path)


def reliability_diagram(path: Path, labels: Labels, probs: Probs, ece: float) -> None:
    """Accuracy against confidence of the top class; a bar below says how many posts had that confidence."""
    bins = reliability(labels, probs, _N_BINS)
    figure = Figure(figsize=(5.6, 6.4), layout="constrained", dpi=_DPI)
    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    axes.plot([0, 1], [0, 1], color=_FAINT, linestyle="--", linewidth=1, label="perfectly calibrated")
    x, y = [b.confidence for b in bins], [b.accuracy for b in bins]
    axes.vlines(x, x, y, color=_ORANGE, linewidth=1.5, alpha=0.6, label="gap")
    axes.plot(x, y, color=_BLUE, marker="o", markersize=6, linewidth=1.5, label="posts by confidence")
    axes.set(ylim=(-0.02, 1.02), xlim=(0, 1.01), ylabel="accuracy")
    axes.set_title(f"Reliability of the top class (ECE {ece:.3f}, {len(labels)} posts)")
    axes.legend(frameon=False, loc="upper left")
    below.bar(x, [b.share for b in bins], width=0.06, color=_BLUE, alpha=0.35)
    below.set(xlabel="confidence", ylabel="share of posts", ylim=(0, None))
    for one in (axes, below):
        _plain(one)
    _save(figure, path)


def budget_curve(path: Path, budgets: Sequence[Mapping[str, float]], own: Mapping[str, Any]) -> None:
    """Scores against the share of words and patches shown; a diamond marks the model's own selection."""
    figure, axes = _canvas(6.4, 4.6)
    shares = [100 * row["share"] for row in budgets]
    for name, title, color in (("accuracy", "accuracy", _BLUE), ("macro_f1", "Macro-F1", _ORANGE)):
        axes.plot(shares, [row[name] for row in budgets], color=color, marker="o", markersize=5, label=title)
        axes.plot([100 * own["share"]], [own[name]], color=color, marker="D", markersize=9, markeredgecolor="white")
    axes.plot([], [], color=_INK, marker="D", markersize=8, linestyle="none", label="the model's own selection")
    values = [row[name] for row in [*budgets, own] for name in ("accuracy", "macro_f1")]
    axes.set(xlim=(0, 103), ylim=(max(0.0, min(values) - 0.08), min(1.02, max(values) + 0.06)))
    axes.set(xlabel="words and patches shown, best first (%)", ylabel="score")
    axes.set_title(f"What the decision needs ({budgets[0]['n']:.0f} posts)")
    figure.legend(frameon=False, loc="outside lower center", ncols=3)
    _plain(axes)
    _save(figure, path)


def _canvas(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained", dpi=_DPI)
    return figure, figure.subplots()


def _plain(axes: Axes) -> None:
    axes.grid(color="#e5e7eb", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, metadata={"Software": None})
