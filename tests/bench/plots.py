"""Draws the results and prints the keys; reads the summary alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.bench.summary import GOALS, SUMMARY

_RATES = ("bare", "full")
_KIND_COLORS = {"posts": "#c0392b", "pictures": "#2c3e50"}


def text(summary: Mapping[str, Any]) -> str:
    """Return the keys, one a line."""
    lines = []
    for name in GOALS:
        if name in summary:
            entry = summary[name]
            bound = f"at most {entry['at_most']}" if "at_most" in entry else f"at least {entry['at_least']}"
            verdict = "reached" if entry["reached"] else "MISSED"
            lines.append(f"{name}: {entry['median']} ({bound}, {verdict}) {entry['runs']}")
    return "\n".join(lines)


def draw(summary: Mapping[str, Any], results: Path) -> list[Path]:
    """Write the plots that the results file has figures for beside it, and return their files."""
    folder, prefix = results.parent, "" if results.stem == SUMMARY.stem else f"{results.stem}-"
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figures = summary["figures"]
    written = []
    for job in _RATES:
        rates = {key: one for key, one in figures.items() if key.startswith(f"wire_{job}_")}
        if rates:
            written.append(_bars(pyplot, rates, f"{job} job, posts/s", folder / f"{prefix}wire-{job}.png"))
    ends = {key: figures[key] for key in figures if key.startswith("end_to_end_") or key == "classifier_alone"}
    if ends:
        written.append(_bars(pyplot, ends, "real classifier, posts/s", folder / f"{prefix}end-to-end.png"))
    if "latency_under_a_rising_rate" in figures:
        written.append(
            _latency(pyplot, figures["latency_under_a_rising_rate"]["rows"], folder / f"{prefix}latency.png")
        )
    curves = {name: one["rows"] for name, one in figures.items() if name.startswith("gpu_") and "rows" in one}
    if curves:
        written.append(_curves(pyplot, curves, summary["about"]["gpu"], folder / f"{prefix}curve.png"))
    return written


def _curves(pyplot: Any, curves: Mapping[str, Any], gpu: str, file: Path) -> Path:
    figure, axes = pyplot.subplots(figsize=(6.4, 3.6), layout="constrained")
    for name, rows in curves.items():
        _, model, kind, *alone = name.split("_")
        axes.plot(
            [row["batch"] for row in rows],
            [row["posts_per_s"] for row in rows],
            marker="o",
            linestyle="--" if alone else "-",
            color=_KIND_COLORS[kind],
            label=f"{model}, {kind}{', networks alone' if alone else ''}",
        )
    axes.set(xscale="log", yscale="log", xlabel="posts in a batch", ylabel="posts/s")
    axes.set_xticks(sizes := sorted({row["batch"] for rows in curves.values() for row in rows}), map(str, sizes))
    axes.minorticks_off()
    axes.set_title(f"The classifier on one {gpu}")
    axes.legend(fontsize="small")
    return _saved(pyplot, figure, file)


def _bars(pyplot: Any, rates: Mapping[str, Any], title: str, file: Path) -> Path:
    told = [one for one in rates.values() if one["median"] is not None]  # of an output in one burst there is no rate
    ordered = sorted(told, key=lambda one: one["median"])
    figure, axes = pyplot.subplots(figsize=(6.4, 0.5 * len(ordered) + 1), layout="constrained")
    medians = [one["median"] for one in ordered]
    errors = [
        [one["median"] - one["spread"][0] for one in ordered],
        [one["spread"][1] - one["median"] for one in ordered],
    ]
    colors = ["#c0392b" if one["name"] == "Sitrep" else "#7f8c8d" for one in ordered]
    bars = axes.barh([one["name"] for one in ordered], medians, xerr=errors, color=colors)
    axes.bar_label(bars, labels=[f" {median:,.0f}" if median >= 100 else f" {median:.1f}" for median in medians])
    axes.margins(x=0.15)
    axes.set_title(f"{title} (median, range)")
    return _saved(pyplot, figure, file)


def _latency(pyplot: Any, rows: list[Mapping[str, Any]], file: Path) -> Path:
    figure, axes = pyplot.subplots(figsize=(6.4, 3.6), layout="constrained")
    rates = [row["rate_per_s"] for row in rows]
    for name, label in (("p50_s", "p50"), ("p99_s", "p99")):
        axes.plot(rates, [1000 * row[name] for row in rows], marker="o", label=label)
    axes.set(yscale="log", xlabel="posts/s sent, on schedule whatever happens", ylabel="from due to published, ms")
    axes.set_title("Latency under a rising rate, sleeping classifier")
    axes.legend()
    return _saved(pyplot, figure, file)


def _saved(pyplot: Any, figure: Any, file: Path) -> Path:
    figure.savefig(file, dpi=110, metadata={"Software": None})
    pyplot.close(figure)
    return file
