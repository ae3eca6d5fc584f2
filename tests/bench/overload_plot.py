"""Draws what `tests.bench.overload` measured: the latency of each post over the time when it was due."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

_URGENT: Final = "#d9442f"
_OTHER: Final = "#7d8590"
_MODE: Final = "#2b8fb3"


def draw(result: dict[str, Any], path: Path) -> None:
    """Write the plot; a panel per scenario, the same scale in all."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    scenarios = result["scenarios"]
    figure, panels = pyplot.subplots(
        1, len(scenarios), figsize=(3.4 * len(scenarios), 3.6), sharex=True, sharey=True, squeeze=False
    )
    for panel, (name, told) in zip(panels[0], scenarios.items(), strict=True):
        for start_s, end_s in _degraded(told):
            panel.axvspan(start_s, min(end_s, result["load_s"]), color=_MODE, alpha=0.12, linewidth=0)
        for kind, colour, size in (("other", _OTHER, 3), ("urgent", _URGENT, 6)):
            due_s, latency_s = zip(*told["points"][kind], strict=True)
            label = f"{kind}: p50 {told[kind]['p50_s']:g} s, p95 {told[kind]['p95_s']:g} s"
            panel.scatter(due_s, latency_s, s=size, color=colour, label=label, linewidths=0)
        panel.set_title(name, fontsize=10)
        panel.set_xlabel("post was due, s", fontsize=9)
        panel.legend(fontsize=7, loc="upper left", frameon=True, markerscale=2, framealpha=0.9)
        panel.grid(alpha=0.25)
        panel.tick_params(labelsize=8)
    top = max(point[1] for told in scenarios.values() for kind in ("urgent", "other") for point in told["points"][kind])
    panels[0][0].set_ylim(0, 1.22 * top)  # room for the legends
    panels[0][0].set_ylabel("finding published after, s", fontsize=9)
    shaded = "; shaded: degraded mode on" if any(_degraded(told) for told in scenarios.values()) else ""
    figure.suptitle(
        f"{result['factor']:g} times the capacity of {result['capacity']['posts_per_s']:g} posts/s"
        f" for {result['load_s']:g} s{shaded}",
        fontsize=11,
    )
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _degraded(told: dict[str, Any]) -> list[tuple[float, float]]:
    """Return when a degraded mode was on, in seconds."""
    spans: list[tuple[float, float]] = []
    since_s: float | None = None
    for switch in told["switches"]:
        if switch["mode"] != "full" and since_s is None:
            since_s = switch["at_s"]
        elif switch["mode"] == "full" and since_s is not None:
            spans.append((since_s, switch["at_s"]))
            since_s = None
    return spans if since_s is None else [*spans, (since_s, float("inf"))]
