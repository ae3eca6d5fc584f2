"""The results file: every key and figure with its repetitions, median and spread; measures nothing."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

RESULTS: Final = Path(__file__).resolve().parent / "results"
SUMMARY: Final = RESULTS / "summary.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """What a key must reach; `at_most` turns the comparison round."""

    value: float
    what: str
    at_most: bool = False


GOALS: Final[Mapping[str, Goal]] = {
    "end_to_end_over_classifier_cpu": Goal(value=0.95, what="posts/s end to end ÷ classifier alone, CPU"),
    "end_to_end_over_classifier_gpu": Goal(value=0.9, what="the same on a GPU"),
    "wire_bare_over_quix": Goal(value=2.5, what="bare job, ours ÷ Quix Streams"),
    "wire_full_over_quix": Goal(value=3, what="full job, ours ÷ Quix Streams"),
    "wire_bare_over_naive_faust": Goal(value=40, what="bare job, ours ÷ naive Faust"),
    "wire_bare_over_limit": Goal(value=0.75, what="bare job, ours ÷ the limit of aiokafka"),
    "inference_over_eager_cpu": Goal(value=2.5, what="inference, ours ÷ fp32 eager, CPU"),
    "inference_over_eager_gpu": Goal(value=4, what="inference, ours ÷ fp32 eager, GPU"),
    "share_of_bf16_peak": Goal(value=0.4, what="share of the GPU's bf16 peak at saturation"),
    "p99_over_batch": Goal(
        value=3, at_most=True, what="p99 latency at half the capacity ÷ (a batch's inference + linger)"
    ),
    "scaling_4_workers": Goal(value=0.9, what="efficiency of 4 workers, sleeping classifier"),
    "cost_per_post_1e6_over_1e3": Goal(
        value=1.1, at_most=True, what="processor time per post, backlog of 10⁶ ÷ of 10³"
    ),
    "rss_beyond_model_mb": Goal(value=300, at_most=True, what="worker's memory beyond the model, full job, MB"),
}


@dataclass(slots=True, kw_only=True)
class Findings:
    """What sections found, by key and figure."""

    about: dict[str, Any]
    keys: dict[str, dict[str, Any]] = field(default_factory=dict)
    figures: dict[str, dict[str, Any]] = field(default_factory=dict)

    def key(self, name: str, runs: Sequence[float], /, **more: Any) -> None:
        """Enter a key of the table; its repetitions in the order they were made."""
        goal = GOALS[name]
        entry = spread(runs)
        median = entry["median"]
        reached = median is not None and (median <= goal.value if goal.at_most else median >= goal.value)
        bound = {"at_most" if goal.at_most else "at_least": goal.value}
        self.keys[name] = {"what": goal.what, **entry, **bound, "reached": reached, **more, **self._where()}

    def figure(self, name: str, runs: Sequence[float], /, *, unit: str, **more: Any) -> None:
        """Enter any other measured figure."""
        self.figures[name] = {**spread(runs), "unit": unit, **more, **self._where()}

    def table(self, name: str, rows: Sequence[Mapping[str, Any]], /, **more: Any) -> None:
        """Enter a course: rows of numbers, for a plot."""
        self.figures[name] = {"rows": [dict(row) for row in rows], **more, **self._where()}

    def median(self, name: str) -> float | None:
        """Return the median of a figure that this command measured, or None."""
        found: float | None = self.figures.get(name, {}).get("median")
        return found

    def _where(self) -> dict[str, Any]:
        return {name: self.about[name] for name in ("broker", "posts", "commit")}


def spread(runs: Sequence[float]) -> dict[str, Any]:
    """Return the repetitions with their median and range; those that could not be told are left out and counted."""
    shown = [_short(run) for run in runs if math.isfinite(run)]
    told = {"runs": shown, "n_dropped": len(runs) - len(shown)}
    if not shown:
        return {"median": None, "spread": None, **told}
    return {"median": _short(statistics.median(shown)), "spread": [min(shown), max(shown)], **told}


def write(findings: Findings, path: Path = SUMMARY) -> dict[str, Any]:
    """Write what was found over what an earlier command found, and return all of it.

    The file is one object: the keys of the table, then `figures` and `about`.
    """
    known: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.exists() else {}
    figures = {**known.pop("figures", {}), **findings.figures}
    known.pop("about", None)
    keys = {**known, **findings.keys}
    order = [name for name in GOALS if name in keys] + [name for name in keys if name not in GOALS]
    result = {"about": findings.about, **{name: keys[name] for name in order}, "figures": figures}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", "utf-8")
    return result


def _short(value: float) -> float:
    return float(f"{value:.4g}")
