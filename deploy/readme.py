"""Fills the generated parts of the README and of the page of figures from code and result files; writes nothing else.

python -m deploy.readme [--check]
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase

from deploy.bench_tables import bench_keys, bench_tables
from deploy.gpu_tables import gpu_tables
from model.evaluation import summary, tables
from workers.metrics import Metrics
from workers.setting_sources import explain_settings
from workers.settings import SHIPPED_CHECKPOINT

ROOT: Final = Path(__file__).resolve().parent.parent
README: Final = ROOT / "README.md"
FIGURES: Final = ROOT / "model" / "results" / "README.md"
BENCH: Final = ROOT / "tests" / "bench" / "results"

_PART = re.compile(r"(<!-- begin:(?P<name>[a-z]+) -->\n).*?(<!-- end:(?P=name) -->)", re.DOTALL)


def settings_table() -> str:
    """Return every setting, its environment variable and default."""
    rows = ["| setting | environment | default | what it is for |", "|---|---|---|---|"]
    for setting in explain_settings(environ={}, file=None):
        shown = "the shipped one" if setting.value == str(SHIPPED_CHECKPOINT) else _code(setting.value)
        rows.append(f"| `{setting.name}` | `SITREP_{setting.name.upper()}` | {shown} | {setting.description} |")
    return "\n".join(rows)


def metrics_table() -> str:
    """Return every metric with its kind and labels, as a worker registers them."""
    registry = CollectorRegistry()
    rows = ["| metric | kind | labels | what it says |", "|---|---|---|---|"]
    for metric in vars(Metrics(registry)).values():
        if isinstance(metric, MetricWrapperBase):
            family = next(iter(metric.describe()))
            suffix = {"counter": "_total", "info": "_info"}.get(family.type, "")
            labels = ", ".join(f"`{name}`" for name in metric._labelnames)
            rows.append(f"| `{family.name}{suffix}` | {family.type} | {labels} | {family.documentation} |")
    return "\n".join(rows)


def goals_table() -> str:
    """Return the classifier's goals and what was reached."""
    return tables.goals_table(summary.read(FIGURES.with_name("summary.json")))


def figures_tables() -> str:
    """Return all figures of `model/results`, which `sitrep evaluate`, trainings and the ablations wrote."""
    folder = FIGURES.parent
    earlier = [summary.read(path) for path in sorted(folder.glob("earlier-*.json"))]
    return tables.model_table(summary.read(folder / "summary.json"), summary.load(folder / "ablations.json"), earlier)


def replay_table() -> str:
    """Return what `python -m tests.bench.replay` measured."""
    rows = [
        "| replay | broker | accepted | findings | dead letters | duplicates | missing | repeated | differing "
        "| posts/s | p50, p99 at half that rate |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for path in sorted(BENCH.glob("replay-*.json")):
        result = json.loads(path.read_text("utf-8"))
        flood, paced = result["flood"], result.get("paced_at_half_rate")
        name = result["file"] + (f", worker killed {flood['kills']}×" if flood["kills"] else "")
        latency = f"{paced['latency_p50_s']} s, {paced['latency_p99_s']} s" if paced else ""
        counts = [flood[key] for key in ("accepted", "findings", "dead_letters", "duplicates", "missing")]
        counts += [flood["repeated"], flood["differing"], flood["posts_per_s"]]
        rows.append(f"| {name} | {result['broker']} | " + " | ".join(map(str, counts)) + f" | {latency} |")
    quality = _quality()
    return "\n".join(rows) + (f"\n\n{quality}" if quality else "")


def chaos_table() -> str:
    """Return the table that `make chaos` wrote."""
    return (ROOT / "tests" / "chaos" / "results" / "table.md").read_text("utf-8").strip()


def overload_table() -> str:
    """Return what `python -m tests.bench.overload` measured."""
    result = json.loads((BENCH / "overload.json").read_text("utf-8"))
    capacity = result["capacity"]["posts_per_s"]
    rows = [
        f"One worker, classifier: {result['model']}, {result['machine']}; {result['factor']:g} times the"
        f" {capacity:g} posts/s that it did with a backlog, for {result['load_s']:g} s; {result['urgent_share']:.0%} of"
        f" the posts urgent, {result['image_share']:.0%} with a picture; broker: {result['broker']}.",
        "",
        "| scenario | settings | offered | posts/s meanwhile | lost | urgent p50, p95 | others p50, p95 "
        "| all done after | degraded findings |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, told in result["scenarios"].items():
        urgent, other = (f"{told[kind]['p50_s']:g} s, {told[kind]['p95_s']:g} s" for kind in ("urgent", "other"))
        degraded = ", ".join(f"{n} `{mark}`" for mark, n in told["degraded"].items()) or "0"
        settings = ", ".join(f"`{setting}` {value}" for setting, value in told["settings"].items())
        rate, done = told["served_per_s"], f"{told['all_done_s']:g} s"
        cells = (name, settings, told["offered"], rate, told["lost"], urgent, other, done, degraded)
        rows.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(rows)


def busy_table() -> str:
    """Return what `python -m tests.bench.busy` measured."""
    rows = ["| posts | code | checkpoint | posts/s | device busy | posts a batch |", "|---|---|---|---|---|---|"]
    for name, told in json.loads((BENCH / "device-busy.json").read_text("utf-8")).items():
        for mix, seen in told.items():
            if isinstance(seen, dict) and "device_busy_share" in seen:
                rows.append(
                    f"| {mix} | {name} (`{told['commit']}`) | {seen['model']} | {seen['posts_per_s']:g}"
                    f" | {seen['device_busy_share']:.1%} | {seen['posts_per_batch']:g} |"
                )
    return "\n".join(rows)


def bench_table() -> str:
    """Return what `make bench` measured; see `deploy.bench_tables`."""
    return bench_tables(json.loads((BENCH / "summary.json").read_text("utf-8")))


def newer_table() -> str:
    """Return what it measured, at an earlier commit, on a CPU with instructions for int8."""
    return bench_keys(json.loads((BENCH / "int8.json").read_text("utf-8")))


def gpu_table() -> str:
    """Return what `python -m tests.bench --device cuda` measured; see `deploy.gpu_tables`."""
    paths = sorted(BENCH.glob("gpu-*.json"))
    return gpu_tables({path.stem.removeprefix("gpu-"): json.loads(path.read_text("utf-8")) for path in paths})


PARTS: Final[dict[str, Callable[[], str]]] = {
    "settings": settings_table,
    "metrics": metrics_table,
    "goals": goals_table,
    "figures": figures_tables,
    "replay": replay_table,
    "chaos": chaos_table,
    "overload": overload_table,
    "busy": busy_table,
    "bench": bench_table,
    "newer": newer_table,
    "gpu": gpu_table,
}


def filled(text: str) -> str:
    """Return the page with its generated parts made anew."""

    def part(match: re.Match[str]) -> str:
        return f"{match[1]}{PARTS[match['name']]()}\n{match[3]}"

    return _PART.sub(part, text)


def main() -> None:
    """Write both pages, or with `--check` exit 1 when one is not what the code and results say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing, exit 1 when a page is out of date")
    args = parser.parse_args()
    for page in (README, FIGURES):
        text = page.read_text("utf-8")
        wanted = filled(text)
        if args.check and wanted != text:
            sys.exit(f"{page.relative_to(ROOT)} is out of date: run `make readme`")
        if not args.check:
            page.write_text(wanted, "utf-8")


def _quality() -> str:
    for path in sorted(BENCH.glob("replay-*.json")):
        scores: dict[str, Any] = json.loads(path.read_text("utf-8")).get("held_out", {})
        if "all" in scores:
            parts = ", ".join(
                f"{name} pixels: accuracy {score['accuracy']:.3f}, Macro-F1 {score['macro_f1']:.3f}"
                f" ({score['rows']} rows)"
                for name, score in scores.items()
            )
            return f"Published findings against the labels of rows never trained on — {parts} (`{path.name}`)."
    return ""


def _code(value: object) -> str:
    return f"`{value}`" if value != "" else "none"


if __name__ == "__main__":
    main()
